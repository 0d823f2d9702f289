"""The arithmetic of perf/: ratios, intervals, verdicts, and the parsing of what other programs print."""

from __future__ import annotations

import struct

import pytest

from perf import clients, comparison, profile, report, stats, syscalls, wire
from server.protocol import messages


def test_pair_ratios_keep_the_order_of_the_pairs() -> None:
    assert stats.pair_ratios([2.0, 9.0], [4.0, 3.0]) == [0.5, 3.0]


def test_pair_ratios_refuse_an_unpaired_segment() -> None:
    with pytest.raises(ValueError, match="2 and 1"):
        stats.pair_ratios([1.0, 2.0], [1.0])


def test_linear_drift_cancels_in_an_abba_block() -> None:
    a1, b1, b2, a2 = (10.0 + step for step in range(4))  # A and B are equal, the machine slows down evenly
    ratios = stats.pair_ratios([a1, a2], [b1, b2])
    assert sum(ratios) / 2 == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("values", [[3.0], [3.0, 5.0]])
def test_interval_of_few_values_is_their_range(values: list[float]) -> None:
    assert stats.median_interval(values) == (min(values), max(values))


def test_interval_holds_the_median_and_is_repeatable() -> None:
    values = [0.50, 0.52, 0.49, 0.51, 0.53, 0.48, 0.55, 0.50]
    low, high = stats.median_interval(values)
    assert min(values) <= low <= 0.505 <= high <= max(values)
    assert stats.median_interval(values) == (low, high)


def test_interval_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        stats.median_interval([])


def test_efficiency_has_both_terms() -> None:
    # 8 µs of socket work and a 16 µs run shared by 8 rows: a floor of 10 µs
    assert stats.efficiency(8.0, 16.0, 8.0, 20.0) == pytest.approx(0.5)


@pytest.mark.parametrize(("batch", "measured"), [(0.0, 20.0), (8.0, 0.0)])
def test_efficiency_refuses_impossible_figures(batch: float, measured: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        stats.efficiency(8.0, 16.0, batch, measured)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.85, stats.STRETCH),
        (0.80, stats.STRETCH),
        (0.79, stats.MUST),
        (0.60, stats.MUST),
        (0.599, stats.MISSED),
    ],
)
def test_verdict_where_more_is_better(value: float, expected: str) -> None:
    assert stats.verdict(value, 0.60, 0.80, higher_is_better=True) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(20.0, stats.STRETCH), (25.0, stats.STRETCH), (60.0, stats.MUST), (60.1, stats.MISSED)]
)
def test_verdict_where_less_is_better(value: float, expected: str) -> None:
    assert stats.verdict(value, 60, 25, higher_is_better=False) == expected


def test_verdict_without_a_target_is_silent() -> None:
    assert stats.verdict(1.0, None, None, higher_is_better=True) == stats.NO_TARGET


@pytest.mark.parametrize(("at", "expected"), [(8, 6.0), (8.5, 6.5), (9, 7.0), (1, 6.0), (64, 7.0)])
def test_interpolation_is_linear_inside_and_flat_outside(at: float, expected: float) -> None:
    assert stats.interpolate({8: 6.0, 9: 7.0}, at) == pytest.approx(expected)


def test_per_request_us() -> None:
    assert stats.per_request_us(2_000_000, 100) == pytest.approx(20.0)
    with pytest.raises(ValueError, match="no request"):
        stats.per_request_us(1, 0)


def test_steal_is_a_share_of_all_time_and_guest_time_is_not_counted_twice() -> None:
    before = [100, 0, 50, 800, 10, 0, 5, 5, 30, 0]
    after = [150, 0, 70, 825, 10, 0, 5, 10, 60, 0]  # 100 ticks later, 5 of them stolen; 30 guest ticks are user ticks
    assert stats.steal_fraction(before, after) == pytest.approx(0.05)
    assert stats.steal_fraction(before, before) == 0.0


def test_pairs_with_steal_are_dropped_unless_all_have_it() -> None:
    assert stats.keep_quiet_pairs([(0.0, 0.0), (0.02, 0.0), (0.0, 0.011), (0.01, 0.01)]) == [0, 3]
    assert stats.keep_quiet_pairs([(0.5, 0.0), (0.0, 0.5)]) == [0, 1]


PERF_OUTPUT = """\
# started on Sun Nov 22 19:02:11 2026

1200,,raw_syscalls:sys_enter,2001000000,100.00,,
400,,syscalls:sys_enter_read,2001000000,100.00,,
<not counted>,,syscalls:sys_enter_poll,0,0.00,,
"""


def test_perf_output_is_read() -> None:
    assert syscalls.parse_perf(PERF_OUTPUT) == {
        "raw_syscalls:sys_enter": 1200,
        "syscalls:sys_enter_read": 400,
        "syscalls:sys_enter_poll": 0,
    }


STRACE_OUTPUT = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.10    0.010000           1      5000           write
 39.90    0.006000           1      5100       100 read
------ ----------- ----------- --------- --------- ----------------
100.00    0.016000           1     10100       100 total
"""


def test_strace_output_is_read() -> None:
    assert syscalls.parse_strace(STRACE_OUTPUT) == {"write": 5000, "read": 5100}


@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.5, 0.75, 1e-7, 123456.789])
def test_shortest_single_reads_back_to_the_same_bits(value: float) -> None:
    single = struct.unpack("<f", struct.pack("<f", value))[0]
    assert struct.pack("<f", wire.shortest_single(single)) == struct.pack("<f", single)
    assert len(repr(wire.shortest_single(single))) <= len(repr(single))


def test_binary_request_frames_its_json_part() -> None:
    request = wire.infer_binary("m")
    head, _, body = request.raw(8000).partition(b"\r\n\r\n")
    assert f"Inference-Header-Content-Length: {request.json_bytes}".encode() in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert len(body) - request.json_bytes == 64 * 4
    assert body[: request.json_bytes].endswith(b"}]}")


def test_table_names_every_missed_target() -> None:
    cells = [
        report.Cell("P1", 0.7, "10 µs", "7 µs", (0.69, 0.71)),
        report.Cell("P12", 0.9, "0.9 %"),
        report.Cell("P15", None, "-"),
        report.Cell("P2", 0.9, "9 µs", "8 µs", bad_answers=3),
    ]
    text = report.table(cells)
    assert [cell.verdict for cell in cells] == [stats.MUST, stats.MISSED, "not measured", "INVALID"]
    assert text.splitlines()[-3:] == ["MISSED: P12", "INVALID: P2", "not measured: P15"]
    assert report.table(cells[:1]).endswith("every must is reached")
    assert "0.7 [0.69, 0.71]" in text
    assert "≥ 0.6" in text


PROFILE_OUTPUT = """\

    40.00%;headrace-w0;[kernel.kallsyms];[k] tcp_sendmsg   ;-      -
    25.00%;headrace-w0;http1.cpython-311-x86_64-linux-gnu.so;[.] http1_parse_head
    20.00%;headrace-e0;onnxruntime_pybind11_state.cpython-311-x86_64-linux-gnu.so;[.] MlasSgemm(float*, int)
    15.00%;headrace-w0;[kernel.kallsyms];[k] do_syscall_64
"""


def test_profile_shares_become_microseconds_by_part() -> None:
    samples = profile.parse_report(PROFILE_OUTPUT)
    assert samples[0] == profile.Sample(0.4, "headrace-w0", "[kernel.kallsyms]", "tcp_sendmsg")
    assert profile.totals(samples, 10.0) == [
        ("worker", "kernel", pytest.approx(5.5)),
        ("worker", "_fast/http1", pytest.approx(2.5)),
        ("executor", "ONNX Runtime", pytest.approx(2.0)),
    ]


def test_callgrind_total_is_read() -> None:
    assert profile.instructions("events: Ir\nfn=main\n1 2\ntotals: 123456\n") == 123456
    with pytest.raises(ValueError, match="totals"):
        profile.instructions("events: Ir\n")


def test_the_grpc_call_is_what_the_protobuf_library_reads() -> None:
    request = messages.message_class("inference.ModelInferRequest")()
    request.ParseFromString(wire.infer_grpc("mlp").message)
    assert (request.model_name, len(request.inputs)) == ("mlp", 1)
    tensor = request.inputs[0]
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("x", "FP32", [1, wire.INPUT_WIDTH])
    raw = request.raw_input_contents[0]
    assert list(struct.unpack(f"<{wire.INPUT_WIDTH}f", raw)) == pytest.approx(wire.input_row())


def segment(rate: float, not_200: int = 0) -> clients.Segment:
    return clients.Segment(1, 1.0, rate, 4.0, 0.9, 0.5, 0.0, 100.0, 300.0, not_200, 0, 120.0, 310.0, 100.0)


def test_the_comparison_shows_medians_and_bad_answers() -> None:
    rows = [comparison.Row("closed", "gRPC", [segment(1000.0), segment(3000.0), segment(2000.0, not_200=7)])]
    assert rows[0].texts() == ("closed", "gRPC", "2,000", "120", "300", "310", "100", "4.00", "7")
    assert comparison.table(rows).splitlines()[0].startswith("loop")
    assert comparison.record(rows)[0]["rate"] == 2000.0
