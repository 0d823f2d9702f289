"""Files that are being written are left alone; what counted until then goes on counting."""

from __future__ import annotations

from pathlib import Path

from server.models.repository import ModelVersion
from server.models.settling import SETTLE_NS, of_model, settled

NOW_NS = 10**18


def version(name: str, number: int, files: int = 0, age_ns: int = SETTLE_NS) -> ModelVersion:
    return ModelVersion(name, number, Path(), files=((files,),), written_ns=NOW_NS - age_ns)


def test_what_has_come_to_rest_counts() -> None:
    found = [version("m", 2), version("n", 1)]
    assert settled([version("m", 1)], found, NOW_NS) == (found, False)


def test_a_version_that_is_being_written_waits_and_the_one_before_stays() -> None:
    old, new = version("m", 1), version("m", 2, age_ns=SETTLE_NS - 1)
    assert settled([old], [new], NOW_NS) == ([old], True)
    assert settled([old], [new], NOW_NS + 1) == ([new], False)


def test_changed_files_of_one_version_wait() -> None:
    old, new = version("m", 1, files=1), version("m", 1, files=2, age_ns=5)
    assert settled([old], [new], NOW_NS) == ([old], True)


def test_files_that_count_already_go_on_counting_however_new() -> None:
    known = version("m", 1, files=1, age_ns=5)
    assert settled([known], [known], NOW_NS) == ([known], False)


def test_a_new_model_waits_and_its_neighbours_do_not() -> None:
    new, other, gone = version("m", 1, age_ns=5), version("n", 2), version("n", 1)
    assert settled([gone], [new, other], NOW_NS) == ([other], True)


def test_a_model_that_is_gone_is_gone() -> None:
    assert settled([version("m", 1)], [], NOW_NS) == ([], False)


def test_several_versions_of_which_one_waits() -> None:
    first, second, third = version("m", 1), version("m", 2), version("m", 3, age_ns=5)
    assert settled([first, second], [first, second, third], NOW_NS) == ([first, second], True)


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    new = version("m", 1, age_ns=-5 * SETTLE_NS)
    assert settled([], [new], NOW_NS) == ([new], False)


def test_a_model_that_is_asked_for_comes_alone() -> None:
    before = [version("changed", 1), version("gone", 1), version("m", 1), version("refused", 1)]
    found = [version("changed", 2), version("m", 2), version("new", 1), version("other", 1), version("refused", 2)]

    def at(serving: set[str], unwanted: set[str]) -> list[tuple[str, int]]:
        counts = of_model("m", before, found, is_wanted=lambda name: name not in unwanted, serving=serving)
        return [(one.name, one.version) for one in counts]

    others = [("changed", 1), ("gone", 1)]
    assert at({"changed", "gone", "m"}, {"other"}) == [*others, ("m", 2), ("other", 1), ("refused", 1)]
    # The index shows what could be loaded, and nothing of what is there no more and serves no more.
    assert at({"m"}, {"changed", "gone", "new", "other"}) == [
        ("changed", 2),
        ("m", 2),
        ("new", 1),
        ("other", 1),
        ("refused", 1),
    ]
