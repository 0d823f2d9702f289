"""The rule of models that come and go, case by case, and its promises over random histories."""

from __future__ import annotations

import random

import pytest

from server.models.lifecycle import (
    FAILED,
    LOADING,
    READY,
    Retire,
    Running,
    Start,
    Wanted,
    decide,
    labels_in_effect,
    waiting_labels,
)

CASES = {
    "first start": ([Wanted("m", 1, "a")], [], [Start("m", 1)]),
    "nothing to do": ([Wanted("m", 1, "a")], [Running(1, "m", 1, "a", READY)], []),
    "still loading": ([Wanted("m", 1, "a")], [Running(1, "m", 1, "a", LOADING)], []),
    "new version starts beside the old": ([Wanted("m", 2, "b")], [Running(1, "m", 1, "a", READY)], [Start("m", 2)]),
    "old serves while the new loads": (
        [Wanted("m", 2, "b")],
        [Running(1, "m", 1, "a", READY), Running(2, "m", 2, "b", LOADING)],
        [],
    ),
    "old retires when the new is ready": (
        [Wanted("m", 2, "b")],
        [Running(1, "m", 1, "a", READY), Running(2, "m", 2, "b", READY)],
        [Retire(1)],
    ),
    "a failed version replaces nothing": (
        [Wanted("m", 2, "b")],
        [Running(1, "m", 1, "a", READY), Running(2, "m", 2, "b", FAILED)],
        [],
    ),
    "an unusable version replaces nothing": ([Wanted("m", 2, "b", False)], [Running(1, "m", 1, "a", READY)], []),
    "changed files of one version": (
        [Wanted("m", 1, "b")],
        [Running(1, "m", 1, "a", READY)],
        [Start("m", 1)],
    ),
    "changed files, new lane ready": (
        [Wanted("m", 1, "b")],
        [Running(1, "m", 1, "a", READY), Running(2, "m", 1, "b", READY)],
        [Retire(1)],
    ),
    "a version still wanted is replaced by its own lane only": (
        [Wanted("m", 1, "b"), Wanted("m", 2, "c")],
        [Running(1, "m", 1, "a", READY), Running(2, "m", 2, "c", READY), Running(3, "m", 1, "b", LOADING)],
        [],
    ),
    "removed model": ([], [Running(1, "m", 1, "a", READY)], [Retire(1)]),
    "removed while loading": ([], [Running(1, "m", 1, "a", LOADING)], [Retire(1)]),
    "failed and unchanged is left": ([Wanted("m", 1, "a")], [Running(1, "m", 1, "a", FAILED)], []),
    "failed and changed is tried": (
        [Wanted("m", 1, "b")],
        [Running(1, "m", 1, "a", FAILED)],
        [Start("m", 1), Retire(1)],
    ),
    "other models are not touched": (
        [Wanted("m", 2, "b"), Wanted("n", 1, "x")],
        [Running(1, "m", 1, "a", READY), Running(2, "m", 2, "b", READY), Running(3, "n", 1, "x", READY)],
        [Retire(1)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_rule(case: str) -> None:
    wanted, running, expected = CASES[case]
    assert decide(wanted, running) == expected


def test_a_failed_lane_is_tried_again_when_asked() -> None:
    wanted, running = [Wanted("m", 1, "a")], [Running(1, "m", 1, "a", FAILED)]
    assert decide(wanted, running, retry=frozenset({"m"})) == [Start("m", 1), Retire(1)]
    running = [Running(1, "m", 1, "a", READY)]
    assert decide(wanted, running, retry=frozenset({"m"})) == []


@pytest.mark.parametrize("seed", range(200))
def test_random_histories_never_take_the_last_ready_lane_of_a_wanted_model(seed: int) -> None:
    """Files change, versions come and go, loads succeed or fail in any order: a model that once was ready and is still
    wanted stays ready, and when all is quiet exactly the usable wanted versions run.
    """
    chance = random.Random(seed)
    running: list[Running] = []
    wanted: list[Wanted] = []
    next_lane = 1
    was_ready: set[str] = set()
    for _ in range(60):
        if chance.random() < 0.3:
            wanted = [
                Wanted(name, version, chance.choice("ab"), chance.random() < 0.8)
                for name in "mn"
                for version in chance.sample(range(1, 4), chance.randint(0, 2))
            ]
        was_ready &= {item.name for item in wanted}
        for _ in range(3):
            for action in decide(wanted, running):
                if isinstance(action, Start):
                    item = next(one for one in wanted if (one.name, one.version) == action)
                    running.append(Running(next_lane, item.name, item.version, item.files, LOADING))
                    next_lane += 1
                else:
                    running = [lane for lane in running if lane.lane != action.lane]
        assert was_ready <= {lane.name for lane in running if lane.state == READY}
        running = [
            lane._replace(state=chance.choice([READY, READY, FAILED, LOADING])) if lane.state == LOADING else lane
            for lane in running
        ]
        was_ready |= {lane.name for lane in running if lane.state == READY and lane.name in {w.name for w in wanted}}
    running = [lane._replace(state=READY) if lane.state == LOADING else lane for lane in running]
    for action in decide(wanted, running):
        if isinstance(action, Retire):
            running = [lane for lane in running if lane.lane != action.lane]
    for item in wanted:
        lanes = [lane for lane in running if (lane.name, lane.version) == (item.name, item.version)]
        assert len([lane for lane in lanes if lane.files == item.files and lane.state == READY]) <= 1


@pytest.mark.parametrize(
    ("before", "ready", "version"),
    [
        (None, [], 2),
        (None, [1], 2),
        (1, [1], 1),
        (1, [1, 2], 2),
        (1, [2], 2),
        (1, [], 2),
        (2, [1], 2),
    ],
)
def test_a_label_moves_when_its_version_is_ready(before: int | None, ready: list[int], version: int) -> None:
    known = {} if before is None else {("m", "stable"): before}
    there = {("m", number) for number in ready}
    said = {("m", "stable"): 2}
    in_effect = labels_in_effect(said, known, there)
    assert in_effect == {("m", "stable"): version}
    assert waiting_labels(said, in_effect) == (frozenset() if version == 2 else {("m", version)})


def test_a_version_that_a_label_stands_for_meanwhile_is_kept() -> None:
    wanted = [Wanted("m", 2, "b"), Wanted("m", 3, "c")]
    running = [Running(1, "m", 1, "a", READY), Running(2, "m", 2, "b", READY), Running(3, "m", 3, "c", LOADING)]
    assert decide(wanted, running) == [Retire(1)]
    labelled = frozenset({("m", 1)})
    assert decide(wanted, running, labelled=labelled) == []
    # Not what is wanted of nobody, and not what other files have taken the place of.
    assert decide([], running, labelled=labelled) == [Retire(1), Retire(2), Retire(3)]
    running = [Running(1, "m", 2, "a", READY), Running(2, "m", 2, "b", READY)]
    assert decide([Wanted("m", 2, "b")], running, labelled=frozenset({("m", 2)})) == [Retire(1)]
