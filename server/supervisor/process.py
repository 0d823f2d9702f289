"""The supervisor: owns listeners, arenas and children. It starts, watches, restarts and drains; it never touches
traffic.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Sequence

from server import __version__, log
from server._fast.layout import Control
from server.alike import there_is
from server.channel import Channel, Document
from server.config import ModelSource, ServeConfig
from server.demo import files as demo_files
from server.errors import ConfigurationError
from server.models.repository import ModelVersion, RepositoryError
from server.models.settling import SETTLE_NS
from server.models.sources import Repository
from server.option_values import ALL_MODELS, AUTO, CPU, EXPLICIT, FASTEST, NONE, POLL, devices_of
from server.supervisor import announce, trial
from server.supervisor.answers import Answer, answer_document
from server.supervisor.children import Child
from server.supervisor.executors import GRACE_NS, Executors
from server.supervisor.lanes import MODEL_FAILED, MODEL_READY, Lane, executor_plan, plan_values
from server.supervisor.lifecycle import Lifecycle
from server.supervisor.listeners import bound, open_all_listeners
from server.supervisor.loop import Loop
from server.supervisor.placer import Placer
from server.supervisor.regions import Regions
from server.supervisor.settings import Settings
from server.supervisor.shared_executor import SharedExecutor
from server.supervisor.watchdog import Watchdog
from server.supervisor.workers import Workers

EXIT_OK = 0
EXIT_BAD_MODEL = 65
EXIT_NO_DEVICE = 69
EXIT_NO_MODEL = 66
EXIT_INTERNAL = 70
EXIT_OS_ERROR = 71
EXIT_TEMPORARY = 75

#: Deaths of one child in a row, each early, after which the server gives up on its own crash loop.
MAX_EARLY_WORKER_DEATHS = 10
#: How long a worker may hold its connections after a second signal.
FAST_GRACE_NS = 1_000_000_000


def run(config: ServeConfig) -> int:
    """Serves until SIGTERM or SIGINT; the exit status (sysexits)."""
    started_ns = time.monotonic_ns()
    # Before any child can import onnxruntime, whose wheels carry a telemetry client.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    log.setup(role="supervisor", log_format=config.log_format, level=config.log_level)
    # Connections are descriptors: the soft limit of a shell is for programs that use select().
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sources = config.sources or (ModelSource(config.path or demo_files.MODEL),)
    # With the other modes models may come later.
    repository = Repository(sources, may_be_empty=config.model_control_mode != NONE)
    try:
        found = repository.scan()
    except RepositoryError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if not found:
        log.warning("repository_empty", "models are waited for", paths=[str(source.path) for source in sources])
    status = _look_at(config, found)
    if status != EXIT_OK:
        return status
    for device in devices_of(config.device):
        why = "" if device in (AUTO, FASTEST, CPU) else trial.device_problem(device)
        if why:
            print(f"error: --device {device} cannot be used: {why}", file=sys.stderr)
            return EXIT_NO_DEVICE
    try:
        supervisor = Supervisor(config, repository, found, started_ns)
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_OS_ERROR
    except OSError as error:
        print(
            f"error: cannot set up shared memory and descriptors: {error}; see `ulimit -n` and free memory",
            file=sys.stderr,
        )
        return EXIT_OS_ERROR
    if not supervisor.models.lanes:
        # What the files promise is no use where there is no memory for any of them.
        status = _look_at(config, supervisor.models.found, found)
        if status != EXIT_OK:
            return status
    return supervisor.serve()


def _look_at(config: ServeConfig, found: Sequence[ModelVersion], said: Sequence[ModelVersion] = ()) -> int:
    """Says what was asked for and cannot be served, beyond what was said; the exit status if that is everything."""
    is_every = config.model_control_mode != EXPLICIT or ALL_MODELS in config.load_model
    for version in found:
        if version.error is not None and version not in said and (is_every or version.name in config.load_model):
            log.error("model_refused", model=version.name, version=version.version, reason=version.error)
    if config.model_control_mode == EXPLICIT:
        known = {version.name for version in found}
        missing = set(config.load_model) - known - {ALL_MODELS}
        for name in sorted(missing):
            text = f"error: --load-model {name}: there is no such model in the repository{there_is(name, known)}"
            print(text, file=sys.stderr)
        return EXIT_NO_MODEL if missing else EXIT_OK
    if found and not any(version.error is None for version in found):
        print(f"error: none of the {len(found)} models found can be served", file=sys.stderr)
        for version in found:
            # Version 0 stands for a model without any.
            print(
                f"  {version.name}{f' {version.version}' if version.version else ''}: {version.error}", file=sys.stderr
            )
        return EXIT_BAD_MODEL
    return EXIT_OK


class Supervisor:
    """All state of the parent process. One thread; everything happens in serve()'s loop."""

    def __init__(
        self,
        config: ServeConfig,
        repository: Repository,
        found: list[ModelVersion],
        started_ns: int,
    ) -> None:
        self.config = config
        self.started_ns = started_ns
        #: One listener per worker and port, by what the port is for.
        self.listeners = open_all_listeners(config)
        self.control = Control.create(config.workers, started_ns)
        self.worker_bells = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(config.workers)]
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        #: End-of-file when the supervisor has gone (workers watch), and when all workers have too (executors watch).
        self.supervisor_line = os.pipe2(os.O_CLOEXEC)
        self.workers_line = os.pipe2(os.O_CLOEXEC)
        self.loop = Loop()
        self.workers = Workers(self.loop, self.control, self)
        self.executors = Executors(self.loop, self.control, self)
        self.models = Lifecycle(config, repository, found, self.workers, self.executors)
        self.regions = Regions(self.workers, allowed=config.allow_client_shm)
        self.settings = Settings(self.workers, self.control, config.log_level)
        self.watchdog = Watchdog(config, self.loop, self.control, self.workers, self.executors, self.models)
        self.placer = Placer(config, self.loop, self.models, lambda: self.stage == "serving")
        self.announced = False
        self.stage = "serving"
        self.exit_status = EXIT_OK

    def serve(self) -> int:
        """Starts the children and reacts until the last has gone; the exit status."""
        self.loop.watch_signals((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), self._on_signal)
        self.loop.watch(self.bell, self._on_bell)
        for lane in self.models.lanes:
            self.executors.start(lane)
        for index in range(self.config.workers):
            self.workers.start(index)
        if self.config.model_control_mode == POLL:
            self._poll_later()
        self.watchdog.start()
        if self.config.device == FASTEST:
            self.placer.start()
        self.loop.run()
        return self.exit_status

    def _on_bell(self) -> None:
        os.eventfd_read(self.bell)
        now_ns = time.monotonic_ns()
        for index, child in self.workers.items():
            if child.ready_ns == 0 and self.control.page(index)["ready"]:
                child.ready_ns = now_ns
                if self.announced:
                    log.info("worker_ready", pid_worker=child.pid, worker=index)
        if self.stage in ("serving", "draining"):
            self.models.on_bell()
        self._announce()

    def _poll_later(self, after_ns: int = 0) -> None:
        def poll() -> None:
            if self.stage == "serving":
                self._poll_later(SETTLE_NS if self.models.poll() else 0)

        period_ns = int(self.config.repository_poll_secs * 1e9)
        self.loop.after(min(after_ns, period_ns) or period_ns, poll)

    def _announce(self) -> None:
        """Prints the banner, once, as soon as every model and every worker is ready or known to have failed."""
        if self.announced or self.stage != "serving":
            return
        lanes = self.models.served()
        if any(lane.arena.model_state not in (MODEL_READY, MODEL_FAILED) for lane in lanes):
            return
        if not all(self.control.page(index)["ready"] for index in range(self.config.workers)):
            return
        self.announced = True
        ports = bound(self.listeners)
        if lanes and all(lane.arena.model_state == MODEL_FAILED for lane in lanes):
            for lane in lanes:
                print(f"error: {lane.name} {lane.version} cannot be loaded: {lane.arena.model_reason}", file=sys.stderr)
            self.exit_status = EXIT_BAD_MODEL
            self._stop_workers()
            return
        wanted = [version for version in self.models.found if self.models.is_chosen(version.name)]
        announce.ready(self.config, lanes, wanted, ports, self.started_ns)
        log.info("ready", version=__version__, models=len(lanes), ports=ports, host=self.config.host)

    # -- what workers and executors need

    def worker_main(self, index: int, channel: Channel) -> int:
        from server.worker.process import WorkerPlan
        from server.worker.process import main as worker_main

        return worker_main(
            WorkerPlan(
                slot=index,
                config=self.config,
                control=self.control,
                lanes=[(lane.document(), lane.arena, lane.instance_bells) for lane in self.models.served()],
                others=self.models.others(),
                labels=self.models.labels(),
                regions=[(region.document(), region.fd) for region in self.regions.all()],
                tracing=self.settings.trace_document(),
                channel=channel,
                listeners={name: listeners[index] for name, listeners in self.listeners.items()},
                bell=self.worker_bells[index],
                supervisor_bell=self.bell,
                supervisor_line=self.supervisor_line[0],
            )
        )

    def shed_for_worker(self, index: int) -> None:
        self._shed()
        self.executors.shed()
        for listeners in self.listeners.values():
            for position, listener in enumerate(listeners):
                if position != index:
                    listener.close()
        os.close(self.workers_line[0])
        for lane in self.models.lanes:
            if lane.is_retired:
                lane.close()

    def may_start_worker(self) -> bool:
        return self.stage == "serving"

    def executor_main(self, lane: Lane, is_trial: bool) -> int:
        from server.executor.process import main as executor_main

        return executor_main(
            executor_plan(
                lane,
                control=self.control,
                worker_bells=self.worker_bells,
                supervisor_bell=self.bell,
                lifeline=self.workers_line[0],
                is_trial=is_trial,
            )
        )

    def shared_executor_main(self, executor: SharedExecutor, lanes: list[Lane], channel: Channel) -> int:
        from server._fast.layout import Arena
        from server.executor.shared_process import SharedPlan
        from server.executor.shared_process import main as shared_main

        # Mapped anew: those of the lanes' objects live as long as this process.
        held = [(lane.number, plan_values(lane), Arena(os.dup(lane.arena.fd))) for lane in lanes]
        for lane in self.models.lanes:
            lane.close()
        return shared_main(
            SharedPlan(
                lanes=held,
                control=self.control,
                bells=executor.bells,
                worker_bells=self.worker_bells,
                supervisor_bell=self.bell,
                lifeline=self.workers_line[0],
                channel=channel,
                has_accelerator=executor.group != CPU,
            )
        )

    def shed_for_executor(self, lane: Lane | None) -> None:
        self._shed()
        self.workers.shed()
        self.regions.shed()
        self._close_listeners()
        os.close(self.workers_line[1])
        if lane is None:
            return
        # Else the memory of a model that is unloaded later would live as long as this process.
        for other in self.models.lanes:
            if other is not lane:
                other.close()

    def may_start_executor(self) -> bool:
        # While the workers finish, too: what they hold may need it.
        return self.stage in ("serving", "draining", "stopping")

    def _close_listeners(self) -> None:
        for listeners in self.listeners.values():
            for listener in listeners:
                listener.close()

    def _shed(self) -> None:
        """In a child: closes what only the supervisor needs, its ends of the lifelines above all."""
        self.loop.shed()
        os.close(self.supervisor_line[1])

    def ring_everybody(self) -> None:
        """After a death: the dead may have taken a sleeper's flag without ringing its bell."""
        for lane in self.models.lanes:
            lane.ring_instances()
        for bell in self.worker_bells:
            os.eventfd_write(bell, 1)

    def on_worker_death(self, index: int, child: Child, status: int, restart_in_ns: int) -> bool:
        connection_count = self.control.page(index)["connections_open"]
        self.control.set_ready(index, 0, False)
        self.control.clear_bell(index)
        reaped = sum(lane.ring.reap_owner(index) for lane in self.models.lanes)
        self.ring_everybody()
        self.models.on_worker_death(index)
        if self.stage == "stopping":
            if status != 0:
                log.error("worker_died_stopping", pid_dead=child.pid, status=status)
                self.exit_status = EXIT_TEMPORARY
            if not self.workers:
                self._stop_executors()
            return False
        log.error(
            "worker_died",
            pid_dead=child.pid,
            worker=index,
            status=status,
            rows_reaped=reaped,
            connections_lost=connection_count,
            restart_in_ms=restart_in_ns // 10**6,
            **({"stack": child.stack} if child.stack else {}),
        )
        if child.is_aborted:
            self.control.count_stuck(True)
        else:
            self.control.count_restart(True)
        if not self.announced and self.workers.death_count(index) >= MAX_EARLY_WORKER_DEATHS:
            print(f"error: worker {index} cannot start: see the log above", file=sys.stderr)
            self.exit_status = EXIT_INTERNAL
            self._stop_workers()
            return False
        return True

    def on_message(self, index: int, document: Document) -> None:
        if document["kind"] == "drained":
            self.models.on_drained(index, document["lane"])
        elif document["kind"] == "ask":
            subject, _, call = document["call"].partition(" ")
            answering = self.workers.answering(index)

            def done(answer: Answer) -> None:
                answering(answer_document(document["ask"], answer))

            if subject == "region":
                self.regions.ask(call, document, done)
            elif subject == "setting":
                self.settings.ask(call, document, done)
            else:
                self.models.requests.ask(call, document, done)

    def on_lane_failed(self, lane: Lane) -> None:
        self._announce()
        if self.stage in ("serving", "draining"):
            self.models.on_lane_failed(lane)

    def on_lane_over(self, lane: Lane) -> None:
        if self.stage in ("stopping executors", "ended"):
            self._end_if_alone()
        else:
            self.models.on_lane_over(lane)

    def on_shared_gone(self) -> None:
        if self.stage == "stopping executors":
            self._end_if_alone()

    # -- the end

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            if self.stage == "serving":
                log.info("reloading", signal="SIGHUP")
                self.models.refresh(frozenset(version.name for version in self.models.found))
        elif self.stage == "serving":
            self.stage = "draining"
            self.control.draining = True
            log.info("draining", signal=signal.Signals(number).name, delay_s=self.config.drain_delay_s)
            self.loop.after(int(self.config.drain_delay_s * 1e9), self._stop_workers)
        elif self.stage == "draining":
            self._stop_workers()
        elif self.stage == "stopping":
            log.info("stopping_faster")
            self.control.stopping = 2
            self.ring_everybody()
            self.loop.after(FAST_GRACE_NS, self._kill_workers)

    def _stop_workers(self) -> None:
        """Tells the workers to finish what they hold; nothing new is accepted from here on."""
        if self.stage not in ("serving", "draining"):
            return
        self.stage = "stopping"
        self.control.draining = True
        self.control.stopping = 1
        self._close_listeners()
        self.models.requests.end()
        self.ring_everybody()
        self.loop.after(int(self.config.drain_timeout_s * 1e9), self._kill_workers)
        if not self.workers:
            self._stop_executors()

    def _kill_workers(self) -> None:
        if self.stage != "stopping":
            return
        for index, child in self.workers.items():
            open_count = self.control.page(index)["connections_open"]
            log.error("drain_timed_out", worker=index, connections_dropped=open_count)
            self.exit_status = EXIT_TEMPORARY
            child.kill(signal.SIGKILL)

    def _stop_executors(self) -> None:
        self.stage = "stopping executors"
        for lane in list(self.models.lanes):
            self.executors.end(lane)
        self.loop.after(GRACE_NS, self.executors.kill_all)
        self._end_if_alone()

    def _end_if_alone(self) -> None:
        if not len(self.executors):
            self.stage = "ended"
            log.info("stopped", status=self.exit_status)
            self.loop.stop()
