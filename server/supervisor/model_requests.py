"""Requests of clients for models to be loaded, unloaded, looked at again or taken from elsewhere: who may ask for what,
and when they are answered. What follows for the models is server.supervisor.lifecycle's.
"""

from __future__ import annotations

import functools
from typing import Protocol

from server import log
from server.alike import there_is
from server.channel import Document
from server.config import ModelSource, ServeConfig
from server.models.repository import ModelVersion, RepositoryError
from server.models.sources import Repository
from server.option_values import EXPLICIT
from server.protocol.tfs_config import from_rows
from server.supervisor.answers import INTERNAL, INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE, UNIMPLEMENTED, Answer, Done
from server.supervisor.lanes import MODEL_FAILED, MODEL_LOADING, Lane
from server.supervisor.workers import Workers

_ENDING = Answer(UNAVAILABLE, "the server is shutting down: no model is loaded or unloaded any more")


class Models(Protocol):
    """What is needed of server.supervisor.lifecycle."""

    found: list[ModelVersion]
    lanes: list[Lane]

    def served(self) -> list[Lane]: ...
    def is_chosen(self, name: str) -> bool: ...
    def is_held(self, name: str) -> bool: ...
    def give_config(self, name: str, config: Document | None) -> None: ...
    def look_at(self, name: str) -> set[str]: ...
    def refresh(self, retry: frozenset[str] = ...) -> str: ...
    def choose(self, name: str) -> None: ...
    def leave(self, name: str) -> None: ...


class ModelRequests:
    """Those that came and are not answered yet."""

    def __init__(self, config: ServeConfig, repository: Repository, workers: Workers, models: Models) -> None:
        self._config = config
        self._repository = repository
        self._first_sources = repository.sources
        self._workers = workers
        self._models = models
        #: What each waits for: a model's name, or "" for all.
        self._waiting: list[tuple[str, Done]] = []
        self._is_ending = False

    def ask(self, call: str, arguments: Document, done: Done) -> None:
        """`load`, `unload`, `reload` or `configure`; done(Answer) follows when every worker acts accordingly."""
        name = arguments["name"]
        if self._is_ending:
            done(_ENDING)
        elif call == "configure":
            self._configure(from_rows(arguments["sources"]), done)
        elif call == "reload":
            self._reload(done)
        elif self._config.model_control_mode != EXPLICIT:
            done(
                Answer(
                    UNAVAILABLE,
                    "explicit model load / unload is not allowed if polling is enabled; this server runs with "
                    f"--model-control-mode {self._config.model_control_mode}; start the server with "
                    "--model-control-mode explicit",
                )
            )
        elif call == "load":
            self._load(name, arguments.get("config"), done)
        else:
            self._unload(name, done)

    def is_about(self, name: str) -> bool:
        """Whether somebody waits for the model."""
        return any(waited in ("", name) for waited, _ in self._waiting)

    def settle(self) -> None:
        """Answers those who wait for models that are decided."""
        for name, done in list(self._waiting):
            lanes = [lane for lane in self._models.served() if name in ("", lane.name)]
            if not self._models.is_held(name) and not any(lane.arena.model_state == MODEL_LOADING for lane in lanes):
                self._waiting.remove((name, done))
                done(self._verdict(name))

    def end(self) -> None:
        """The server ends: nobody waits for models any more."""
        self._is_ending = True
        waiting, self._waiting = self._waiting, []
        for _, done in waiting:
            done(_ENDING)

    def _reload(self, done: Done) -> None:
        if self._models.refresh(frozenset(version.name for version in self._models.found)):
            done(Answer(INTERNAL, "the repository cannot be read, the log says why"))
            return
        self._wait_for("", done)
        self.settle()

    def _configure(self, sources: tuple[ModelSource, ...], done: Done) -> None:
        """Other sources take the place of those there are. Only places beside those that the operator named."""
        if any(source.name is None for source in self._repository.sources):
            done(Answer(UNIMPLEMENTED, "this server was not started with named models: see --model_config_file"))
            return
        allowed = {source.path.parent.resolve() for source in self._first_sources}
        for source in sources:
            if source.path.parent.resolve() not in allowed:
                done(
                    Answer(
                        INVALID_ARGUMENT,
                        f"base_path of {source.name!r}: expected a directory beside those that the server was started "
                        "with",
                    )
                )
                return
        before, self._repository.sources = self._repository.sources, sources
        reason = self._models.refresh()
        if reason:
            self._repository.sources = before
            self._models.refresh()
            done(Answer(INVALID_ARGUMENT, f"the models cannot be read: {reason}"))
            return
        self._wait_for("", done)
        self.settle()

    def _load(self, name: str, config: Document | None, done: Done) -> None:
        self._models.give_config(name, config)
        try:
            known = self._models.look_at(name)
        except RepositoryError as error:
            log.error("repository_unreadable", reason=str(error))
            # Where the repository lies is not the clients' to know.
            text = f"failed to load '{name}', failed to poll from model repository: it cannot be read, the log says why"
            done(Answer(INTERNAL, text))
            return
        if name not in known:
            others = there_is(name, known)
            done(Answer(INTERNAL, f"failed to load '{name}', failed to poll from model repository" + others))
            return
        self._wait_for(name, done)
        self._models.choose(name)

    def _unload(self, name: str, done: Done) -> None:
        known = {version.name for version in self._models.found} | {lane.name for lane in self._models.lanes}
        if name not in known:
            text = f"failed to unload '{name}', no such model in the repository"
            done(Answer(NOT_FOUND, text + there_is(name, known)))
            return
        self._models.leave(name)
        self._confirm(done, Answer())

    def _wait_for(self, name: str, done: Done) -> None:
        self._waiting.append((name, functools.partial(self._confirm, done)))

    def _confirm(self, done: Done, answer: Answer) -> None:
        """Every worker acts on messages in their order: when it has seen this one, it has seen those before it."""
        self._workers.tell({"kind": "confirm"}, then=functools.partial(done, answer))

    def _verdict(self, name: str) -> Answer:
        if not name:
            return Answer()
        if not self._models.is_chosen(name):
            return Answer(INVALID_ARGUMENT, f"load failed for model '{name}': it was unloaded meanwhile")
        reasons = []
        for version in self._models.found:
            if version.name != name:
                continue
            lanes = [
                lane
                for lane in self._models.served()
                if (lane.name, lane.version, lane.found.files) == (name, version.version, version.files)
            ]
            if version.error is not None:
                reasons.append(f"version {version.version}: {version.error.replace(f'{version.path.parent}/', '')}")
            elif lanes and lanes[-1].arena.model_state == MODEL_FAILED:
                reasons.append(f"version {version.version}: {lanes[-1].arena.model_reason}")
        if reasons:
            return Answer(INVALID_ARGUMENT, f"load failed for model '{name}': {'; '.join(reasons)}")
        return Answer()
