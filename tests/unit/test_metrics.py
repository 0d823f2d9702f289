"""metrics.py: both exposition formats, held to a strict reader, and their numbers to the counters."""

from __future__ import annotations

import random
import re
import shutil
import subprocess

import pytest

from server.observe import metrics
from server.observe.snapshot import Process, Snapshot, merge
from server.protocol.served import STATES, ServedModel, ServerInfo, TensorInfo
from tests.support import counters, exposition

DIGITS = counters.digits()
MODELS = (DIGITS, counters.vad(), counters.digits("2", state="LOADING"))
DURATIONS_NS = [500, 4_000, 4_001, 1_024_000, 10**9, 10**10, 10**12]
SIZES_ROWS = [1, 1, 2, 3, 4, 5, 128, 129, 300, 70_000]


def snapshot() -> Snapshot:
    return Snapshot(
        merge(
            [
                counters.worker_block(DIGITS, DURATIONS_NS[:3], (5, 1, 2, 3, 4, 6)),
                counters.worker_block(DIGITS, DURATIONS_NS[3:]),
                counters.executor_block(DIGITS, SIZES_ROWS)._replace(
                    given_elements=30, run_elements=48, cap_rows=8, split_count=2, unfit_count=1
                ),
            ]
        ),
        processes=[
            Process("supervisor", 0, 0.25, 10_000_000, 20_000_000, 1.7e9, 12, 1024, 1),
            Process("worker", 0, 1.5, 30_000_000, 60_000_000, 1.7e9, 40, 1024, 2),
            Process("worker", 1, 2.5, 30_000_000, 60_000_000, 1.7e9, 40, 1024, 2),
        ],
        connection_count=64,
        accepted_count=1000,
        restarts={("worker", "signal"): 2, ("executor", "exit"): 1},
    )


def page(openmetrics: bool = False, models: tuple[ServedModel, ...] = MODELS, of: Snapshot | None = None) -> bytes:
    return metrics.exposition(ServerInfo("headrace", "0.1.0"), models, of or snapshot(), openmetrics=openmetrics)


def value(name: str, **labels: str) -> float:
    return exposition.values(exposition.parse(page()))[name, frozenset(labels.items())]


PROPOSED = {
    "headrace_build_info": "gauge",
    "headrace_requests_total": "counter",
    "headrace_request_failures_total": "counter",
    "headrace_rejected_total": "counter",
    "headrace_request_duration_seconds": "histogram",
    "headrace_stage_duration_seconds": "histogram",
    "headrace_stage_seconds_total": "counter",
    "headrace_inflight_requests": "gauge",
    "headrace_queue_depth": "gauge",
    "headrace_predicted_wait_seconds": "gauge",
    "headrace_overloaded": "gauge",
    "headrace_inferences_total": "counter",
    "headrace_late_executions_total": "counter",
    "headrace_outlived_executions_total": "counter",
    "headrace_executions_total": "counter",
    "headrace_batch_size": "histogram",
    "headrace_batch_cost_seconds": "gauge",
    "headrace_input_elements_total": "counter",
    "headrace_batch_cap_rows": "gauge",
    "headrace_memory_splits_total": "counter",
    "headrace_memory_refusals_total": "counter",
    "headrace_executor_busy_seconds_total": "counter",
    "headrace_model_state": "gauge",
    "headrace_model_instances": "gauge",
    "headrace_model_device_instances": "gauge",
    "headrace_model_nodes": "gauge",
    "headrace_model_fallback": "gauge",
    "headrace_model_refused": "gauge",
    "headrace_worker_restarts_total": "counter",
    "headrace_connections": "gauge",
    "headrace_connections_accepted_total": "counter",
    "process_cpu_seconds_total": "counter",
    "process_resident_memory_bytes": "gauge",
    "process_virtual_memory_bytes": "gauge",
    "process_start_time_seconds": "gauge",
    "process_open_fds": "gauge",
    "process_max_fds": "gauge",
    "process_threads": "gauge",
}


def test_families_and_their_types() -> None:
    families = exposition.parse(page())
    assert {name: family.kind for name, family in families.items()} == PROPOSED


def test_openmetrics_has_the_same_samples() -> None:
    plain, open_page = exposition.parse(page()), exposition.parse(page(openmetrics=True), openmetrics=True)
    assert exposition.values(plain) == exposition.values(open_page)
    assert {family.kind for name, family in open_page.items() if name == "headrace_build"} == {"info"}
    assert "headrace_requests" in open_page


@pytest.mark.parametrize("openmetrics", [False, True])
def test_a_server_that_was_never_asked_has_a_valid_page_with_zeros(openmetrics: bool) -> None:
    families = exposition.parse(page(openmetrics, of=Snapshot({})), openmetrics=openmetrics)
    found = exposition.values(families)
    labels = frozenset({"model": "digits", "version": "1", "method": "infer", "code": "503"}.items())
    assert found["headrace_requests_total", labels] == 0
    exposition.parse(page(openmetrics, models=(), of=Snapshot({})), openmetrics=openmetrics)


def test_a_refused_version_has_its_reason() -> None:
    of = Snapshot({}, refusals={("digits", "3"): 'is "truncated"\n' + 200 * "x"})
    values = exposition.values(exposition.parse(page(of=of)))
    found = {labels: value for (name, labels), value in values.items() if name == "headrace_model_refused"}
    reason = ('is "truncated"\n' + 200 * "x")[:160]
    assert found == {frozenset({"model": "digits", "version": "3", "reason": reason}.items()): 1}


def test_counters() -> None:
    one = {"model": "digits", "version": "1"}
    route = {"method": "infer"}
    expected = {"200": 7, "503": 5, "499": 1, "504": 2, "400": 3, "500": 10}
    codes = {code: value("headrace_requests_total", **one, **route, code=code) for code in expected}
    assert codes == expected
    assert value("headrace_request_failures_total", **one, reason="other") == 6
    assert value("headrace_rejected_total", **one, reason="queue_full") == 2
    assert value("headrace_rejected_total", **one, reason="predicted_late") == 3
    assert value("headrace_late_executions_total", **one) == 1
    assert value("headrace_outlived_executions_total", **one) == 9
    assert value("headrace_predicted_wait_seconds", **one) == 0.25
    assert value("headrace_overloaded", **one) == 1
    assert value("headrace_rejected_total", **one, reason="deadline") == 2
    assert value("headrace_inferences_total", **one) == sum(SIZES_ROWS)
    assert value("headrace_executions_total", **one) == len(SIZES_ROWS)
    assert value("headrace_batch_cost_seconds", **one, batch="4", estimate="mean") == 4e-6
    assert value("headrace_batch_cost_seconds", **one, batch="64", estimate="upper") == 80e-6
    assert value("headrace_executor_busy_seconds_total", **one) == pytest.approx(sum(SIZES_ROWS) / 1e6)
    assert value("headrace_stage_seconds_total", **one, stage="parse") == pytest.approx(700e-9)
    assert value("headrace_inflight_requests", **one) == 2
    assert value("headrace_queue_depth", **one) == 4
    assert value("headrace_model_instances", **one) == 2
    assert value("headrace_input_elements_total", **one, kind="given") == 30
    assert value("headrace_input_elements_total", **one, kind="run") == 48
    assert value("headrace_batch_cap_rows", **one) == 8
    assert value("headrace_memory_splits_total", **one) == 2
    assert value("headrace_memory_refusals_total", **one) == 1
    assert value("headrace_worker_restarts_total", role="worker", cause="signal") == 2
    assert value("headrace_connections") == 64
    assert value("process_cpu_seconds_total", role="worker", process="1") == 2.5
    assert value("headrace_build_info", version="0.1.0") == 1


def test_model_state_is_one_of_three() -> None:
    states = {state: value("headrace_model_state", model="digits", version="2", state=state) for state in STATES}
    assert states == {"READY": 0, "LOADING": 1, "UNAVAILABLE": 0}


def buckets(name: str, **labels: str) -> dict[float, float]:
    found = exposition.values(exposition.parse(page()))
    wanted = set(labels.items())
    return {
        float(dict(pairs)["le"]): count
        for (sample, pairs), count in found.items()
        if sample == f"{name}_bucket" and wanted < pairs
    }


def test_duration_buckets_count_exactly_at_their_bounds() -> None:
    found = buckets("headrace_request_duration_seconds", model="digits", version="1")
    assert 20 <= len(found) <= 25
    for le, count in found.items():
        assert count == sum(one <= le * 1e9 for one in DURATIONS_NS), le
    total = value("headrace_request_duration_seconds_sum", model="digits", version="1")
    assert total == pytest.approx(sum(DURATIONS_NS) / 1e9)


def test_duration_buckets_agree_with_counting_by_hand() -> None:
    random.seed(3)
    durations = [int(1000 * 2 ** random.uniform(0, 27)) for _ in range(2000)] + [1000 << k for k in range(27)]
    of = Snapshot(merge([counters.worker_block(DIGITS, durations)]))
    family = exposition.parse(page(of=of))["headrace_request_duration_seconds"]
    for (name, labels), count in family.samples.items():
        if name.endswith("_bucket") and ("version", "1") in labels and ("model", "digits") in labels:
            bound = float(dict(labels)["le"])
            assert count == sum(one <= bound * 1e9 for one in durations)


def test_batch_size_buckets() -> None:
    found = buckets("headrace_batch_size", model="digits", version="1")
    assert list(found)[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    for le, count in found.items():
        assert count == sum(one <= le for one in SIZES_ROWS), le


def test_stage_histograms() -> None:
    queue = buckets("headrace_stage_duration_seconds", model="digits", version="1", stage="queue")
    execute = buckets("headrace_stage_duration_seconds", model="digits", version="1", stage="execute")
    for le, count in queue.items():
        assert count == sum(one // 4 <= le * 1e9 for one in DURATIONS_NS)
    for le, count in execute.items():
        assert count == sum(one // 2 <= le * 1e9 for one in DURATIONS_NS)


def test_hostile_names_stay_inside_their_labels() -> None:
    name = 'a"} 1\nb\\'
    model = ServedModel(name, "1", [TensorInfo("x", "FP32", (-1,))], [], batched=False, max_batch=0)
    for openmetrics in (False, True):
        families = exposition.parse(page(openmetrics, models=(model,)), openmetrics=openmetrics)
        labels = families["headrace_queue_depth"].samples
        assert list(labels) == [("headrace_queue_depth", (("model", name), ("version", "1")))]


PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2"


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=x", False),
        ("text/plain;q=0.9,application/openmetrics-text;q=0.1", False),
        (PROMETHEUS_2, True),
        (PROMETHEUS_3, True),
    ],
)
def test_accept(accept: str, openmetrics: bool) -> None:
    assert metrics.wants_openmetrics(accept) is openmetrics


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is in Debian's package prometheus")
def test_promtool_agrees() -> None:
    checked = subprocess.run(["promtool", "check", "metrics"], input=page(), capture_output=True, timeout=30)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


BROKEN_PAGES = [
    (b"# HELP a x\n# TYPE a gauge\na 1", "line feed"),
    (b"a 1\n", "before HELP"),
    (b"# TYPE a gauge\na 1\n", "TYPE must follow"),
    (b"# HELP a x\n# TYPE a gauge\na 1\na 1\n", "twice"),
    (b'# HELP a x\n# TYPE a gauge\na{b="1",b="2"} 1\n', "label twice"),
    (b'# HELP a x\n# TYPE a gauge\na{b="1",} 1\n', "comma at the end"),
    (b'# HELP a x\n# TYPE a gauge\na{b="\n"} 1\n', "bad label|not a sample"),
    (b"# HELP a x\n# TYPE a gauge\na 1,0\n", "not a number"),
    (b"# HELP a x\n# TYPE a gauge\nb 1\n", "another name"),
    (b"# HELP a x\n# TYPE a counter\na 1\n", "_total"),
    (b"# HELP a_total x\n# TYPE a_total counter\na_total -1\n", "not negative"),
    (b"# HELP a x\n# TYPE a gauge\n# HELP b x\n# TYPE b gauge\n# HELP a x\n# TYPE a gauge\n", "not together"),
    (b'# HELP a x\n# TYPE a histogram\na_bucket{le="1"} 1\na_sum 1\na_count 1\n', "Inf"),
    (b'# HELP a x\n# TYPE a histogram\na_bucket{le="1"} 2\na_bucket{le="+Inf"} 1\na_sum 1\na_count 1\n', "cumulative"),
    (b'# HELP a x\n# TYPE a histogram\na_bucket{le="+Inf"} 1\na_sum 1\na_count 2\n', "_count must"),
    (b'# HELP a x\n# TYPE a histogram\na_bucket{le="+Inf"} 1\na_count 1\n', "no _sum"),
]


@pytest.mark.parametrize(("broken", "rule"), BROKEN_PAGES)
def test_the_reader_of_these_tests_is_strict(broken: bytes, rule: str) -> None:
    with pytest.raises(exposition.ExpositionError) as caught:
        exposition.parse(broken)
    assert re.search(rule, str(caught.value))
