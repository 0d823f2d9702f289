"""Versions on other devices: which lane a version is to have, whatever becomes of those there are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from server.config import ServeConfig
from server.models.lifecycle import FAILED, LOADING, READY, Retire, Running, Start, Wanted, decide
from server.models.live_load import from_text
from server.models.placement import Model
from server.protocol.assignment import Assignment, to_text
from server.supervisor.moves import MODEL_FAILED, Moves, place_key

CELLS = {"cpu": [(1, 10)], "openvino:CPU": [(1, 20)]}
STATES = {0: LOADING, 1: READY, 2: READY, MODEL_FAILED: FAILED}


def version(files: object = "f") -> Any:
    return SimpleNamespace(name="m", version=1, files=files)


def lane(number: int, *devices: str, state: int = 1, files: object = "f", placed: str = "") -> Any:
    arena = SimpleNamespace(model_state=state, model_reason="it is broken", placed=placed)
    return SimpleNamespace(number=number, name="m", version=1, found=version(files), devices=devices, arena=arena)


def moves() -> Moves:
    return Moves(ServeConfig(compute_cores=4))


def actions(of: Moves, lanes: list[Any], found: Any) -> list[Start | Retire]:
    """As the lifecycle asks, after each change."""
    of.drop_failed(lanes)
    wanted = [Wanted(found.name, found.version, of.wanted(found))]
    running = [Running(one.number, "m", 1, place_key(one), STATES[one.arena.model_state]) for one in lanes]
    return decide(wanted, running)


def test_a_move_is_a_reload() -> None:
    of, old = moves(), lane(1)
    assert actions(of, [old], old.found) == []
    of.set(old.found, ("openvino:CPU",))
    assert actions(of, [old], old.found) == [Start("m", 1)]
    new = lane(2, "openvino:CPU", state=0)
    assert actions(of, [old, new], old.found) == []
    new.arena.model_state = 1
    assert actions(of, [old, new], old.found) == [Retire(1)]
    of.forget([new])
    assert of.devices_of(new.found) == ("openvino:CPU",) and actions(of, [new], new.found) == []
    # Its executor is being started again; then the files change, and others are to be measured.
    new.arena.model_state = 2
    assert actions(of, [new], new.found) == []
    assert actions(of, [new], version("g")) == [Start("m", 1)] and of.devices_of(version("g")) == ()


def test_one_that_cannot_be_loaded_there_leaves_what_serves() -> None:
    of, old = moves(), lane(1)
    of.set(old.found, ("openvino:CPU",))
    failed = lane(2, "openvino:CPU", state=MODEL_FAILED)
    assert actions(of, [old, failed], old.found) == [Retire(2)]
    assert of.failures == [("m", 1)] and of.devices_of(old.found) == ()
    # So does a second move of one that has moved.
    moved = lane(3, "cpu")
    of.set(moved.found, ("openvino:CPU",))
    assert actions(of, [moved, failed], moved.found) == [Retire(2)]
    assert of.devices_of(moved.found) == ("cpu",) and actions(of, [moved], moved.found) == []


def test_one_that_cannot_be_loaded_there_again_is_measured_anew() -> None:
    of = moves()
    of.set(version(), ("openvino:CPU",))
    failed = lane(2, "openvino:CPU", state=MODEL_FAILED)
    assert actions(of, [failed], failed.found) == [Start("m", 1), Retire(2)]
    assert of.devices_of(failed.found) == ()


def test_a_failed_lane_that_never_moved_is_left_as_it_is() -> None:
    of, failed = moves(), lane(1, state=MODEL_FAILED)
    assert actions(of, [failed], failed.found) == [] and of.failures == []
    assert not of.drop(failed.found, [failed], "no room")


def test_what_is_gone_is_forgotten() -> None:
    of, old = moves(), lane(1, placed=to_text(Assignment(measured=CELLS)))
    assert of.run_ns(old) == CELLS
    of.set(old.found, ("openvino:CPU",))
    new = lane(2, "openvino:CPU", placed=to_text(Assignment("openvino:CPU")))
    of.forget([old, new])
    # A lane that was told where to go has measured nothing: what the first one did counts.
    assert of.run_ns(new) == CELLS and of.devices_of(new.found) == ("openvino:CPU",)
    of.forget([lane(3, files="g")])
    assert of.run_ns(new) == {} and of.devices_of(new.found) == ()


def test_an_executor_is_told_of_the_others() -> None:
    of = moves()
    other = Model("other:1", ("cpu",), {"cpu": ((1, 10),)}, 5.0)
    of.snapshot = of.snapshot._replace(models=[other, Model("m:1", ("cpu",), {}, 7.0)])
    told = from_text(of.live_for(version()))
    assert told.models == [other, Model("m:1", (), {}, 7.0)] and told.devices[0].lanes == 4
