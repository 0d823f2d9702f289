"""Models that come and go while the server runs: scans the repository, starts lanes, retires them, answers for it.

What to do is decided by server.models.lifecycle; this module does it. A lane is announced to the workers as soon as it
exists and serves from the moment its executor says "ready" in shared memory; a retired one ends when every worker has
answered its last request.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Sequence
from dataclasses import replace

from server import hostinfo, log, yielding
from server.channel import Document
from server.config import ServeConfig
from server.models import lifecycle
from server.models.instance_places import is_placed_by_load, too_many
from server.models.lane_settings import LaneSettings, settings_of
from server.models.lifecycle import Retire, Running, Start, Wanted
from server.models.memory_policy import expected_bytes, shortage
from server.models.repository import Files, ModelVersion, RepositoryError
from server.models.settling import of_model, settled
from server.models.sources import Repository
from server.option_values import ALL_MODELS, EXPLICIT, POLL
from server.supervisor.executor_groups import all_instances, best_device, group_of
from server.supervisor.executors import Executors
from server.supervisor.lanes import MODEL_LOADING, MODEL_READY, Lane
from server.supervisor.model_requests import ModelRequests
from server.supervisor.moves import Moves, place_key
from server.supervisor.workers import Workers

_STATES = (lifecycle.LOADING, lifecycle.READY, lifecycle.READY, lifecycle.FAILED, lifecycle.READY)

#: Of --reload-without-room: the old version goes before the new one comes.
UNLOAD_FIRST = "unload-first"
#: What tells a model that was not asked for from one that cannot be served.
UNLOADED = "unloaded"


class Lifecycle:
    """All lanes of the server, and what the repository held when it was last looked at."""

    def __init__(
        self,
        config: ServeConfig,
        repository: Repository,
        found: Sequence[ModelVersion],
        workers: Workers,
        executors: Executors,
    ) -> None:
        self._config = config
        self._repository = repository
        self._workers = workers
        self._executors = executors
        self._best_device = best_device(config)
        self._numbers = 0
        self.found: list[ModelVersion] = list(found)
        #: Names that are to serve; None: whatever is found.
        self._chosen: set[str] | None = None
        if config.model_control_mode == EXPLICIT:
            is_all = ALL_MODELS in config.load_model
            self._chosen = {one.name for one in found} if is_all else set(config.load_model)
        self.moves = Moves(config)
        self.lanes: list[Lane] = []
        #: Retired lanes: the workers that may still answer requests of them.
        self._draining: dict[int, set[int]] = {}
        self.requests = ModelRequests(config, repository, workers, self)
        self._told: tuple[list[list[object]], list[list[str]]] | None = None
        self._labels: lifecycle.Labels = self._labels_said()
        self._is_deciding = False
        #: Why the repository could not be looked at unasked, when last tried.
        self._unreadable = ""
        #: Models whose new version waits for the memory of the old one.
        self._held: set[str] = set()
        #: What was said of versions for which there is no memory.
        self._short: dict[tuple[str, int, Files], str] = {}
        #: Why versions are refused, as far as the log has it.
        self._logged = {(one.name, one.version): one.error for one in self.found}
        for index, version in enumerate(self.found):
            if version.error is None and self.is_chosen(version.name):
                lane = self._add(index)
                if lane is not None:
                    lane.is_initial = True

    # -- what there is

    def served(self) -> list[Lane]:
        """Lanes that take requests, now or when they are loaded."""
        return [lane for lane in self.lanes if not lane.is_retired]

    def others(self) -> list[list[object]]:
        """Versions without a lane of their present files, for the workers' catalogue.

        Name, version, reason, and whether clients may ask.
        """
        have = {(lane.name, lane.version) for lane in self.served()}
        rows: list[list[object]] = []
        for version in self.found:
            if (version.name, version.version) in have and version.error is None:
                continue
            if not self.is_chosen(version.name):
                rows.append([version.name, str(version.version), UNLOADED, False])
            elif version.error is not None:
                # Clients read the reason: where the repository lies is not theirs to know.
                reason = version.error.replace(f"{version.path.parent}/", "")
                rows.append([version.name, str(version.version), reason, True])
        return rows

    def labels(self) -> list[list[str]]:
        """Name, label, version of every version label."""
        return [[name, label, str(version)] for (name, label), version in self._labels.items()]

    def _labels_said(self) -> lifecycle.Labels:
        return {
            (source.name or "", label): version
            for source in self._repository.sources
            for label, version in source.labels
        }

    def is_chosen(self, name: str) -> bool:
        """Whether the model is to serve, if it is there."""
        return self._chosen is None or name in self._chosen

    def _wanted(self) -> list[ModelVersion]:
        return [version for version in self.found if self.is_chosen(version.name)]

    def _is_usable(self, version: ModelVersion) -> bool:
        return version.error is None and version.name not in self._held

    def _add(self, index: int) -> Lane | None:
        """A lane for a version that was found; None, and the reason with the version, where there is no room for it."""
        version = self.found[index]
        devices = self.moves.devices_of(version)
        reason = too_many(version.config, self._config)
        if not reason and (short := self._shortage(version)):
            # What is available changes from look to look: it is said once.
            reason = self._short.setdefault((version.name, version.version, version.files), short)
        if reason:
            self._refuse(index, reason)
            return None
        # Those that run keep the threads that they were started with.
        running = all_instances(
            ((one.config, self._group_of(one)) for one in self._wanted() if one.error is None or one is version),
            self._config,
        )
        group = self._group_of(version)
        try:
            bells = self._executors.shared(group).bells if group is not None else ()
            lane = Lane(
                self._numbers,
                version,
                self._config,
                self._config.workers,
                running,
                group=group,
                bells=bells,
                devices=devices,
            )
        except (OSError, MemoryError, ValueError, OverflowError) as error:
            log.error("lane_not_made", model=version.name, version=version.version, reason=str(error))
            self._refuse(index, f"no memory or descriptors for it: {error}")
            return None
        self._numbers += 1
        self._short.pop((version.name, version.version, version.files), None)
        if not devices and is_placed_by_load(version.config, self._config):
            lane.live = functools.partial(self.moves.live_for, version)
        self.lanes.append(lane)
        return lane

    def _refuse(self, index: int, reason: str) -> None:
        """There is no room for a version that was found. One that was to move stays where it is."""
        version = self.found[index]
        if not self.moves.drop(version, self.served(), reason):
            self.found[index] = replace(version, error=reason)

    def _group_of(self, version: ModelVersion) -> str | None:
        return group_of(version.config, self._config, self._best_device)

    # -- changes

    def refresh(self, retry: frozenset[str] = frozenset()) -> str:
        """Looks at the repository and does what follows; the reason when it could not be read, else ""."""
        try:
            self.found = self._scan()
        except RepositoryError as error:
            log.error("repository_unreadable", reason=str(error))
            return str(error)
        self.decide(retry)
        return ""

    def _scan(self) -> list[ModelVersion]:
        with yielding.aside():
            return self._repository.scan()

    def poll(self) -> bool:
        """Looks at the repository unasked: files that are being written are left for later; whether there are any."""
        try:
            found = self._scan()
        except RepositoryError as error:
            if str(error) != self._unreadable:
                log.error("repository_unreadable", reason=str(error))
            self._unreadable = str(error)
            return False
        self._unreadable = ""
        self.found, is_waiting = settled(self.found, found, time.time_ns())
        self.decide()
        return is_waiting

    def is_held(self, name: str) -> bool:
        """Whether the model waits until another is gone; "": whether any does."""
        return bool(self._held) if not name else name in self._held

    def give_config(self, name: str, config: Document | None) -> None:
        """What takes the place of the model's config.pbtxt, None: nothing. What was said of its files is said again."""
        self._repository.configs.give(name, config)
        self._logged = {key: reason for key, reason in self._logged.items() if key[0] != name}
        self._short = {key: reason for key, reason in self._short.items() if key[0] != name}

    def choose(self, name: str) -> None:
        """The model is to serve from now on; what of it failed is tried again."""
        if self._chosen is not None:
            self._chosen.add(name)
        self.decide(frozenset({name}))

    def leave(self, name: str) -> None:
        """The model is not to serve any more. For --model-control-mode explicit."""
        assert self._chosen is not None
        self._chosen.discard(name)
        self.decide()

    def look_at(self, name: str) -> set[str]:
        """Takes up how one model is now, if it is there; the names of all that are. Raises RepositoryError."""
        found = self._scan()
        names = {version.name for version in found}
        if name in names:
            serving = {lane.name for lane in self.served()}
            self.found = of_model(name, self.found, found, is_wanted=self.is_chosen, serving=serving)
        return names

    def decide(self, retry: frozenset[str] = frozenset()) -> None:
        """Does what the rule says about the present state; called after each change of it."""
        if not self._is_deciding:
            with yielding.aside():
                self._decide(retry)

    def _decide(self, retry: frozenset[str]) -> None:
        self._is_deciding = True
        self.moves.drop_failed(self.served())
        try:
            while True:
                running = [
                    Running(lane.number, lane.name, lane.version, place_key(lane), _STATES[lane.arena.model_state])
                    for lane in self.served()
                ]
                # Before the actions: labels may stand for what is retired now, and what has a reason or a lane before
                # or after them has one in between.
                ready = {(lane.name, lane.version) for lane in running if lane.state == lifecycle.READY}
                self._labels = lifecycle.labels_in_effect(self._labels_said(), self._labels, ready)
                self._tell(_united(self.others(), self._told[0] if self._told else []))
                wanted = [
                    Wanted(one.name, one.version, self.moves.wanted(one), self._is_usable(one))
                    for one in self._wanted()
                ]
                labelled = lifecycle.waiting_labels(self._labels_said(), self._labels)
                actions = lifecycle.decide(wanted, running, retry=retry, labelled=labelled)
                if not actions:
                    break
                for action in actions:
                    if isinstance(action, Start):
                        self._start(action)
                    else:
                        self._retire(action)
                retry = frozenset()
        finally:
            self._is_deciding = False
        self._tell(self.others())
        self.moves.forget(self.served())
        self._log_refusals()
        self.requests.settle()

    def _tell(self, others: list[list[object]]) -> None:
        """Says to the workers what has no lane, and what labels stand for."""
        told = (others, self.labels())
        if told != self._told:
            self._told = told
            self._workers.tell({"kind": "others", "models": told[0], "labels": told[1]})

    def _log_refusals(self) -> None:
        """Says of each version that cannot be served why, once for each reason."""
        before, self._logged = self._logged, {}
        for one in self._wanted():
            key = (one.name, one.version)
            self._logged[key] = one.error
            if one.error is not None and before.get(key) != one.error:
                log.error("model_refused", model=one.name, version=one.version, reason=one.error)

    def _start(self, action: Start) -> None:
        index = next(
            at for at, one in enumerate(self.found) if (one.name, one.version) == (action.name, action.version)
        )
        if self._config.reload_without_room == UNLOAD_FIRST and self._make_room(self.found[index]):
            return
        lane = self._add(index)
        if lane is None:
            return
        log.info("model_loading", model=lane.name, version=lane.version, lane=lane.number)
        self._workers.tell({"kind": "lane", **lane.document()}, lane.descriptors())
        self._executors.start(lane)

    def _shortage(self, version: ModelVersion, settings: LaneSettings | None = None) -> str:
        """Why there is no memory for a version, or ""."""
        settings = settings or settings_of(version, self._config, devices=self.moves.devices_of(version))
        promised = sum(
            expected_bytes(lane.found, lane.settings)
            for lane in self.lanes
            if lane.arena.model_state == MODEL_LOADING and not lane.was_ready
        )
        memory = hostinfo.memory()
        available = memory.available_bytes if memory else None
        return shortage(expected_bytes(version, settings), available, promised)

    def _make_room(self, version: ModelVersion) -> bool:
        """Where a version does not fit beside what it replaces: ends that first; whether it is to be waited for."""
        if not self._shortage(version):
            return False
        kept = {(one.version, self.moves.wanted(one)) for one in self._wanted() if one.name == version.name}
        for lane in self.served():
            if lane.name == version.name and (lane.version, place_key(lane)) not in kept:
                self._retire(Retire(lane.number))
        if not self._is_leaving(version.name):
            return False
        log.info("unloading_first", model=version.name, version=version.version)
        self._held.add(version.name)
        return True

    def _is_leaving(self, name: str) -> bool:
        return any(lane.name == name and lane.is_retired for lane in self.lanes)

    def _retire(self, action: Retire) -> None:
        lane = next(lane for lane in self.lanes if lane.number == action.lane)
        lane.is_retired = True
        self._draining[lane.number] = {index for index, _ in self._workers.items()}
        log.info("model_retired", model=lane.name, version=lane.version, lane=lane.number)
        self._workers.tell({"kind": "retire", "lane": lane.number})
        self._workers_left(lane)

    def _workers_left(self, lane: Lane) -> None:
        if not self._draining[lane.number] and not lane.is_over:
            self._executors.end(lane)

    # -- moves

    def may_move(self, lane: Lane) -> bool:
        """Whether a lane that serves may go to other devices: nobody has said where it is to run, it has a process of
        its own, and its model is not being loaded, changed or unloaded.
        """
        return (
            self._movable(lane) is not None
            and lane.group is None
            and is_placed_by_load(lane.found.config, self._config)
            and lane.name not in self._held
            and not self.requests.is_about(lane.name)
            and all(
                not other.is_retired and other.arena.model_state == MODEL_READY and other.version != lane.version
                for other in self.lanes
                if other.name == lane.name and other is not lane
            )
        )

    def _movable(self, lane: Lane) -> ModelVersion | None:
        """The version that the lane serves, if it is to serve on."""
        for version in self._wanted():
            if (version.name, version.version, self.moves.wanted(version)) == (
                lane.name,
                lane.version,
                place_key(lane),
            ):
                return version if version.error is None and not lane.is_retired else None
        return None

    def move(self, lane: Lane, devices: tuple[str, ...]) -> str:
        """Loads what the lane serves on these devices, beside the lane, which then goes; why not, or ""."""
        version = self._movable(lane)
        if version is None or not self.may_move(lane):
            return "its model is being loaded or unloaded"
        settings = settings_of(version, self._config, devices=devices)
        if reason := self._shortage(version, settings):
            return reason
        self.moves.set(version, devices)
        self.decide()
        return ""

    # -- events

    def on_drained(self, index: int, number: int) -> None:
        """Worker `index` has answered the last request of a retired lane."""
        for lane in self.lanes:
            if lane.number == number and number in self._draining:
                self._draining[number].discard(index)
                self._workers_left(lane)
                return

    def on_worker_death(self, index: int) -> None:
        """It holds nothing any more."""
        for lane in list(self.lanes):
            if lane.number in self._draining:
                self._draining[lane.number].discard(index)
                self._workers_left(lane)

    def on_lane_over(self, lane: Lane) -> None:
        """Its executor has ended: gives its memory back."""
        self._draining.pop(lane.number, None)
        self.lanes.remove(lane)
        with yielding.aside():
            lane.close()
        log.info("model_unloaded", model=lane.name, version=lane.version, lane=lane.number)
        if lane.name in self._held and not self._is_leaving(lane.name):
            self._held.discard(lane.name)
            self.decide()

    def on_lane_failed(self, lane: Lane) -> None:
        """Its model cannot be loaded, not again if it was served: other files may lie where it came from."""
        if lane.was_ready and self._config.model_control_mode != POLL:
            with contextlib.suppress(RepositoryError):
                self.look_at(lane.name)
        self.decide()

    def on_bell(self) -> None:
        """A state in shared memory may have changed."""
        now_ns = time.monotonic_ns()
        for lane in self.lanes:
            was_ready = lane.was_ready
            self._executors.note_ready(lane, now_ns)
            if lane.was_ready and not was_ready and not lane.is_initial:
                log.info("model_ready", model=lane.name, version=lane.version, lane=lane.number)
        self.decide()


def _united(rows: list[list[object]], before: list[list[object]]) -> list[list[object]]:
    """Rows of others(), and those of versions that are not among them any more."""
    versions = {tuple(row[:2]) for row in rows}
    return rows + [row for row in before if tuple(row[:2]) not in versions]
