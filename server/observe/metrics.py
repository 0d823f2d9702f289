"""Prometheus' view of the counters: text exposition format 0.0.4, and OpenMetrics 1.0 for a scraper that asks for it.

Names follow Prometheus' rules (base units, `_total`, `_info`). Label values come from the repository and from tables
of ours, never from a request, so the number of series is bounded. All series of a model exist, at zero, from the start:
`rate()` over a series that appears with its first error would miss that error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

from server import errors
from server.observe.snapshot import (
    BATCH_SIZE_BOUNDS_ROWS,
    BUCKETS_PER_OCTAVE,
    Block,
    Histogram,
    Snapshot,
    executed_rows,
)
from server.protocol.served import STATES, ServedModel, ServerInfo

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PREFIX = "headrace_"

#: Classic buckets end at 2^k us for these k: 4 us to 4.2 s without a gap, then 16.8 s and 67 s.
_OCTAVES = (*range(2, 23), 24, 26)
_DURATION_BOUNDS = tuple(repr(2**k / 1e6) for k in _OCTAVES)
_DURATION_ENDS = tuple(BUCKETS_PER_OCTAVE * k for k in _OCTAVES)
#: Every power of two up to the largest batch that has a counter of its own bound.
_BATCH_ENDS = tuple(i for i, rows in enumerate(BATCH_SIZE_BOUNDS_ROWS[:-1]) if rows & (rows - 1) == 0)
_BATCH_BOUNDS = tuple(repr(float(BATCH_SIZE_BOUNDS_ROWS[i])) for i in _BATCH_ENDS)

#: Status code by failure reason, as far as a reason tells it.
_CODES = {"REJECTED": "503", "CANCELED": "499", "TIMEOUT": "504", "INVALID": "400", "INTERNAL": "500", "OTHER": "500"}
#: Reasons for which a request that could have been served was not: the label of rejected_total.
_REJECTIONS = {"REJECTED": "queue_full", "TIMEOUT": "deadline"}

#: Of a reason in a label.
MAX_REASON_CHARS = 160

Labels = Sequence[tuple[str, str]]


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept header prefers OpenMetrics over the plain text format (RFC 9110 section 12.5.1)."""
    quality = {"openmetrics": 0.0, "text": 0.0}
    for item in accept.lower().split(","):
        media, *parameters = (part.strip() for part in item.split(";"))
        q = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                q = _quality(value.strip())
        if media == "application/openmetrics-text":
            quality["openmetrics"] = max(quality["openmetrics"], q)
        elif media in ("text/plain", "text/*"):
            quality["text"] = max(quality["text"], q)
    return quality["openmetrics"] > 0 and quality["openmetrics"] >= quality["text"]


def _quality(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


def exposition(
    info: ServerInfo, models: Sequence[ServedModel], snapshot: Snapshot, *, openmetrics: bool = False
) -> bytes:
    """All families; `models` are those of the repository, a block without a model there is left out."""
    page = _Page(openmetrics)
    page.family("build_info", "gauge", "What is running; always 1.")
    page.sample("build_info", (("version", info.version),), 1)
    named = [
        (
            model,
            (("model", model.name), ("version", model.version)),
            snapshot.models.get((model.name, model.version)) or Block(model.name, model.version),
        )
        for model in models
    ]
    _requests(page, [(labels, block) for _, labels, block in named])
    _executions(page, [(labels, block) for _, labels, block in named])
    _models(page, named)
    page.family("model_refused", "gauge", "1 for a version whose present files are not served; those before may be.")
    for (name, version), reason in sorted(snapshot.refusals.items()):
        labels = (("model", name), ("version", version), ("reason", reason[:MAX_REASON_CHARS]))
        page.sample("model_refused", labels, 1)
    _processes(page, snapshot)
    return page.finish()


def _requests(page: _Page, named: Sequence[tuple[Labels, Block]]) -> None:
    page.family("requests", "counter", "Inference requests of all protocols that were answered, by HTTP's status code.")
    for labels, block in named:
        codes = {"200": block.success_count}
        for reason, count in zip(errors.FAILURE_REASONS, block.failure_counts, strict=True):
            codes[_CODES[reason]] = codes.get(_CODES[reason], 0) + count
        for code, count in codes.items():
            route = (("method", "infer"), ("code", code))
            page.sample("requests_total", (*labels, *route), count)
    page.family("request_failures", "counter", "Inference requests that failed, by reason.")
    for labels, block in named:
        for reason, count in zip(errors.FAILURE_REASONS, block.failure_counts, strict=True):
            page.sample("request_failures_total", (*labels, ("reason", reason.lower())), count)
    page.family("rejected", "counter", "Inference requests turned away for want of capacity or time.")
    for labels, block in named:
        counts = dict(zip(errors.FAILURE_REASONS, block.failure_counts, strict=True))
        counts["REJECTED"] -= min(block.predicted_count, counts["REJECTED"])
        for reason, label in _REJECTIONS.items():
            page.sample("rejected_total", (*labels, ("reason", label)), counts[reason])
        page.sample("rejected_total", (*labels, ("reason", "predicted_late")), block.predicted_count)
    page.family("request_duration_seconds", "histogram", "Successful requests: complete request to written reply.")
    for labels, block in named:
        page.durations("request_duration_seconds", labels, block.request)
    page.family("stage_duration_seconds", "histogram", "Time of a request in one stage of its way.")
    for labels, block in named:
        page.durations("stage_duration_seconds", (*labels, ("stage", "queue")), block.queue)
        page.durations("stage_duration_seconds", (*labels, ("stage", "execute")), block.execute)
    page.family("stage_seconds", "counter", "Time of all requests in each stage of their way.")
    for labels, block in named:
        stages = (
            ("parse", block.parse_ns),
            ("queue", block.queue.sum_ns),
            ("execute", block.execute.sum_ns),
            ("reply", block.reply_ns),
        )
        for stage, total_ns in stages:
            page.sample("stage_seconds_total", (*labels, ("stage", stage)), total_ns / 1e9)
    page.family("inflight_requests", "gauge", "Inference requests accepted and not yet answered.")
    for labels, block in named:
        page.sample("inflight_requests", labels, block.inflight_count)
    page.family("queue_depth", "gauge", "Rows that wait for an executor.")
    for labels, block in named:
        page.sample("queue_depth", labels, block.queue_depth_rows)
    page.family("predicted_wait_seconds", "gauge", "Time until a request that comes now would be answered.")
    for labels, block in named:
        page.sample("predicted_wait_seconds", labels, block.predicted_wait_ns / 1e9)
    page.family("overloaded", "gauge", "1 while requests wait that will be late, or the queue does not empty.")
    for labels, block in named:
        page.sample("overloaded", labels, int(block.overloaded))


def _executions(page: _Page, named: Sequence[tuple[Labels, Block]]) -> None:
    page.family("inferences", "counter", "Rows answered with a result.")
    for labels, block in named:
        page.sample("inferences_total", labels, block.rows_count)
    page.family("executions", "counter", "Runs of the model.")
    for labels, block in named:
        page.sample("executions_total", labels, block.exec_count)
    page.family("batch_size", "histogram", "Rows in one run of the model.")
    for labels, block in named:
        page.histogram("batch_size", labels, _BATCH_BOUNDS, _BATCH_ENDS, block.batch_sizes, executed_rows(block))
    page.family("batch_cost_seconds", "gauge", "What a run of so many rows takes at present, as learnt from runs.")
    for labels, block in named:
        for rows, mean_ns, upper_ns in block.batch_costs:
            size = (*labels, ("batch", str(rows)))
            page.sample("batch_cost_seconds", (*size, ("estimate", "mean")), mean_ns / 1e9)
            page.sample("batch_cost_seconds", (*size, ("estimate", "upper")), upper_ns / 1e9)
    page.family("input_elements", "counter", "Elements of padded inputs that ran: as they came (given), and all (run).")
    for labels, block in named:
        page.sample("input_elements_total", (*labels, ("kind", "given")), block.given_elements)
        page.sample("input_elements_total", (*labels, ("kind", "run")), block.run_elements)
    page.family("late_executions", "counter", "Rows whose run began after their deadline; 0 unless something is wrong.")
    for labels, block in named:
        page.sample("late_executions_total", labels, block.late_count)
    page.family("outlived_executions", "counter", "Rows whose run ended after their deadline.")
    for labels, block in named:
        page.sample("outlived_executions_total", labels, block.outlived_count)
    page.family("batch_cap_rows", "gauge", "Rows that a run has at most since memory ran out for more; 0: no such cap.")
    for labels, block in named:
        page.sample("batch_cap_rows", labels, block.cap_rows)
    page.family("memory_splits", "counter", "Runs for which memory ran out, and which were run again in parts.")
    for labels, block in named:
        page.sample("memory_splits_total", labels, block.split_count)
    page.family("memory_refusals", "counter", "Rows, or whole requests, for which memory ran out by themselves.")
    for labels, block in named:
        page.sample("memory_refusals_total", labels, block.unfit_count)
    page.family("executor_busy_seconds", "counter", "Time in which an instance of the model ran, all instances.")
    for labels, block in named:
        page.sample("executor_busy_seconds_total", labels, block.busy_ns / 1e9)


def _models(page: _Page, named: Sequence[tuple[ServedModel, Labels, Block]]) -> None:
    page.family("model_state", "gauge", "1 for the state that the model version is in.")
    for model, labels, _ in named:
        current = model.state()
        for state in STATES:
            page.sample("model_state", (*labels, ("state", state)), int(state == current))
    page.family("model_instances", "gauge", "Instances of the model version: threads that run it.")
    for model, labels, _ in named:
        page.sample("model_instances", labels, model.instances)
    page.family("model_device_instances", "gauge", "Instances of the model version on each of its devices.")
    for model, labels, _ in named:
        for one in model.placed().every:
            page.sample("model_device_instances", (*labels, ("device", one.device)), one.instances or model.instances)

    page.family("model_nodes", "gauge", "Nodes of the optimised graph, by the execution provider that runs them.")
    for model, labels, _ in named:
        for placed in model.placed().every:
            for provider, count in sorted(placed.nodes.items()):
                page.sample("model_nodes", (*labels, ("device", placed.device), ("provider", provider)), count)
    page.family("model_fallback", "gauge", "1 if the CPU runs what an accelerator was expected to run.")
    for model, labels, _ in named:
        page.sample("model_fallback", labels, int(any(one.fallback for one in model.placed().every)))


def _processes(page: _Page, snapshot: Snapshot) -> None:
    page.family("worker_restarts", "counter", "Processes started again, by role and cause.")
    for (role, cause), count in sorted(snapshot.restarts.items()):
        page.sample("worker_restarts_total", (("role", role), ("cause", cause)), count)
    page.family("connections", "gauge", "Open connections.")
    page.sample("connections", (), snapshot.connection_count)
    page.family("connections_accepted", "counter", "Connections accepted.")
    page.sample("connections_accepted_total", (), snapshot.accepted_count)
    processes = [((("role", one.role), ("process", str(one.slot))), one) for one in snapshot.processes]
    families = (
        ("cpu_seconds", "counter", "CPU time, user and system.", "cpu_seconds"),
        ("resident_memory_bytes", "gauge", "Resident memory.", "resident_bytes"),
        ("virtual_memory_bytes", "gauge", "Virtual memory.", "virtual_bytes"),
        ("start_time_seconds", "gauge", "Start of the process, seconds since 1970.", "start_time_s"),
        ("open_fds", "gauge", "Open file descriptors.", "open_fds"),
        ("max_fds", "gauge", "Limit of open file descriptors.", "max_fds"),
        ("threads", "gauge", "Threads.", "threads"),
    )
    for name, kind, text, attribute in families:
        page.family(name, kind, text, prefix="process_")
        suffix = "_total" if kind == "counter" else ""
        for labels, one in processes:
            page.sample(name + suffix, labels, getattr(one, attribute), prefix="process_")


class _Page:
    """Collects lines; family() then its samples, one family after the other as both formats demand."""

    def __init__(self, openmetrics: bool) -> None:
        self._openmetrics = openmetrics
        self._lines: list[str] = []

    def family(self, name: str, kind: str, text: str, prefix: str = PREFIX) -> None:
        """`name` without the `_total` of a counter: 0.0.4 declares the sample's name, OpenMetrics the family's."""
        if self._openmetrics:
            if name.endswith("_info"):
                name, kind = name.removesuffix("_info"), "info"
        elif kind == "counter":
            name += "_total"
        self._lines.append(f"# HELP {prefix}{name} {_escape_help(text)}")
        self._lines.append(f"# TYPE {prefix}{name} {kind}")

    def sample(self, name: str, labels: Labels, value: float, prefix: str = PREFIX) -> None:
        self._lines.append(f"{prefix}{name}{_braces(labels)} {value!r}")

    def durations(self, name: str, labels: Labels, histogram: Histogram) -> None:
        total_s = histogram.sum_ns / 1e9
        self.histogram(name, labels, _DURATION_BOUNDS, _DURATION_ENDS, histogram.buckets, total_s)

    def histogram(
        self, name: str, labels: Labels, bounds: Iterable[str], ends: Iterable[int], counts: Sequence[int], total: float
    ) -> None:
        """`counts[0 : end + 1]` is what lies within the bound; () is all zeros."""
        sums = list(accumulate(counts))
        count = sums[-1] if sums else 0
        inner = _inner(labels)
        lead = f"{PREFIX}{name}_bucket{{{inner}{',' if inner else ''}le="
        self._lines += [f'{lead}"{le}"}} {sums[end] if sums else 0}' for le, end in zip(bounds, ends, strict=True)]
        self._lines.append(f'{lead}"+Inf"}} {count}')
        self._lines.append(f"{PREFIX}{name}_sum{_braces(labels)} {total!r}")
        self._lines.append(f"{PREFIX}{name}_count{_braces(labels)} {count}")

    def finish(self) -> bytes:
        if self._openmetrics:
            self._lines.append("# EOF")
        self._lines.append("")
        return "\n".join(self._lines).encode("utf-8", "replace")


def _braces(labels: Labels) -> str:
    return f"{{{_inner(labels)}}}" if labels else ""


def _inner(labels: Labels) -> str:
    return ",".join(f'{name}="{_escape_value(value)}"' for name, value in labels)


def _escape_value(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
