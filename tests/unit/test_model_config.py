"""server/models/model_config.py: what a config.pbtxt says, and by which name and line the rest is refused."""

from __future__ import annotations

from typing import Any

import pytest

from server.config import VersionPolicy
from server.models.config_fields import BY_PATH, FIELDS
from server.models.config_text import line_of, lines_of
from server.models.model_config import (
    DEFAULT_SESSION,
    NO_CONFIG,
    ModelConfigError,
    TensorConfig,
    WarmUp,
    WarmUpInput,
    parse_document,
    parse_text,
)
from server.models.providers import Provider
from server.models.queue_policy import QueuePolicy, Queues
from server.protocol import messages
from tools import model_config_page

WARM_UP = 'inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 4 ] %s } }'

ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ('name: "m" backend: "onnxruntime" platform: "onnxruntime_onnx" default_model_filename: "model.onnx"', {}),
    ("max_batch_size: 0", {"max_batch_size": 0}),
    ("max_batch_size: 7", {"max_batch_size": 7}),
    (
        'input [ { name: "x", data_type: TYPE_STRING, dims: [ -1, 3 ] } ]',
        {"inputs": (TensorConfig("x", "BYTES", (-1, 3)),)},
    ),
    (
        'input { name: "x" format: FORMAT_NHWC dims: 8 dims: 8 dims: 3 reshape { shape: [ 192 ] } }',
        {"inputs": (TensorConfig("x", None, (8, 8, 3), (192,), "FORMAT_NHWC"),)},
    ),
    (
        'output { name: "y" label_filename: "labels.txt" }',
        {"outputs": (TensorConfig("y", label_file="labels.txt"),)},
    ),
    ("version_policy: { all { } }", {"version_policy": VersionPolicy("all")}),
    ("version_policy { latest { num_versions: 2 } }", {"version_policy": VersionPolicy(count=2)}),
    (
        "version_policy { specific { versions: [ 3, 1 ] } }",
        {"version_policy": VersionPolicy("specific", versions=(3, 1))},
    ),
    ("instance_group [ { count: 2 kind: KIND_CPU }, { } ]", {"instances": 3, "on_cpu": True}),
    (
        "dynamic_batching { preferred_batch_size: [ 8, 4 ] max_queue_delay_microseconds: 100 }",
        {"preferred_batch_sizes": (8, 4), "max_queue_delay_us": 100},
    ),
    ("dynamic_batching { preserve_ordering: true }", {"preserve_ordering": True, "max_queue_delay_us": 0}),
    (
        (
            "dynamic_batching { default_queue_policy { default_timeout_microseconds: 9 max_queue_size: 5 "
            "allow_timeout_override: true } }"
        ),
        {
            "max_queue_delay_us": 0,
            "queues": Queues(QueuePolicy(5, 9, allow_override=True)),
        },
    ),
    (
        (
            "dynamic_batching { priority_levels: 3 default_priority_level: 2 priority_queue_policy { key: 3 value { "
            "timeout_action: DELAY default_timeout_microseconds: 7 } } }"
        ),
        {
            "max_queue_delay_us": 0,
            "queues": Queues(level_count=3, default_level=2, own=((3, QueuePolicy(None, 7, delays=True)),)),
        },
    ),
    (
        f"model_warmup {{ name: 'w' batch_size: 2 {WARM_UP % 'random_data: true'} count: 3 }}",
        {"warm_ups": (WarmUp("w", 2, 3, (WarmUpInput("x", "FP32", (4,), True),)),)},
    ),
    (
        f"model_warmup {{ {WARM_UP % 'zero_data: true'} }}",
        {"warm_ups": (WarmUp("", 1, 1, (WarmUpInput("x", "FP32", (4,), False),)),)},
    ),
    ("response_cache { enable: false } model_transaction_policy { decoupled: false }", {}),
    ("optimization { input_pinned_memory { enable: false } }", {}),
]


@pytest.mark.parametrize(("text", "expected"), ACCEPTED, ids=[text[:40] for text, _ in ACCEPTED])
def test_what_it_says(text: str, expected: dict[str, Any]) -> None:
    found = parse_text(text, "m").config
    different = {key: getattr(found, key) for key in found.__slots__ if getattr(found, key) != getattr(NO_CONFIG, key)}
    assert different == expected


SESSIONS: list[tuple[str, str, Any]] = [
    ('parameters { key: "execution_mode" value: { string_value: "1" } }', "is_parallel", True),
    ('parameters { key: "enable_mem_arena" value: { string_value: "0" } }', "mem_arena", False),
    ('parameters { key: "enable_mem_pattern" value: { string_value: "1" } }', "mem_pattern", True),
    ("optimization { graph { level: -1 } }", "graph_level", -1),
    (
        'optimization { execution_accelerators { cpu_execution_accelerator: [ { name: "openvino" } ] } }',
        "providers",
        (Provider("OpenVINOExecutionProvider"),),
    ),
    (
        (
            'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } '
            'gpu_execution_accelerator { name: "cuda" } } }'
        ),
        "providers",
        (Provider("TensorrtExecutionProvider"), Provider("CUDAExecutionProvider")),
    ),
    (
        (
            'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" '
            'parameters { key: "precision_mode" value: "FP16" } } } } instance_group { kind: KIND_GPU gpus: [ 1 ] }'
        ),
        "providers",
        (Provider("TensorrtExecutionProvider", (("device_id", "1"), ("trt_fp16_enable", "1"))),),
    ),
    (
        'instance_group { kind: KIND_GPU } parameters { key: "gpu_mem_limit" value: { string_value: "1000" } }',
        "providers",
        (Provider("CUDAExecutionProvider", (("device_id", "0"), ("gpu_mem_limit", "1000"))),),
    ),
]


@pytest.mark.parametrize(("text", "key", "value"), SESSIONS, ids=[key for _, key, _ in SESSIONS])
def test_what_onnx_runtime_is_told(text: str, key: str, value: object) -> None:
    session = parse_text(text, "m").config.session
    assert getattr(session, key) == value != getattr(DEFAULT_SESSION, key)


def test_threads() -> None:
    text = "".join(
        f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}'
        for key, value in {"intra_op_thread_count": 3, "inter_op_thread_count": 2, "execution_mode": 1}.items()
    )
    config = parse_text(text, "m").config
    assert (config.intra_op_threads, config.session.inter_op_threads) == (3, 2)


REFUSED = [
    ('name: "other"', 1, "name"),
    ('\nbackend: "python"', 2, "backend"),
    ('platform: "tensorflow_graphdef"', 1, "platform"),
    ('runtime: "x.so"', 1, "runtime"),
    ('default_model_filename: "m.onnx"', 1, "default_model_filename"),
    ("max_batch_size: -1", 1, "max_batch_size"),
    ("max_batch_size: 5000", 1, "max_batch_size"),
    ("# comment { \nmax_batch_siez: 1", 2, "max_batch_siez"),
    ("max_batch_size: many", 1, "many"),
    ('input [ {\n name: "x" }, {\n name: "x" } ]', 2, "input[1]"),
    ('input {\n name: "x"\n dims: [ 0 ] }', 3, "input[0].dims"),
    ('input { name: "x" dims: [ 4 ]\n reshape { shape: [ 5 ] } }', 2, "input[0].reshape"),
    ('input { name: "x" dims: [ -1 ]\n reshape { shape: [ -1 ] } }', 2, "input[0].reshape"),
    ('input { name: "x" format: FORMAT_NCHW dims: [ 4 ] }', 1, "input[0].format"),
    ('input { name: "x"\n\n optional: true }', 3, "input[0].optional"),
    ('input [ { name: "x" allow_ragged_batch: true } ]', 1, "input[0].allow_ragged_batch"),
    ('output { name: "y" is_shape_tensor: true }', 1, "output[0].is_shape_tensor"),
    ('output { name: "y" label_filename: "../x" }', 1, "output[0].label_filename"),
    ("version_policy { specific { } }", 1, "version_policy.specific"),
    ("instance_group [ { kind: KIND_CPU },\n {\n kind: KIND_GPU },\n { } ]", 4, "instance_group[2].kind"),
    ("instance_group [ { gpus: [ 0 ] },\n { count: 2 } ]", 2, "instance_group[1].kind"),
    ("instance_group { kind: KIND_CPU gpus: [ 0 ] }", 1, "instance_group[0].gpus"),
    ("instance_group [ { gpus: [ 0, 1, 2, 3, 4, 5, 6, 7 ] }, { kind: KIND_CPU } ]", 1, "instance_group[0].gpus"),
    ("instance_group { kind: KIND_MODEL }", 1, "instance_group[0].kind"),
    ("instance_group { count: 33 }", 1, "instance_group[0].count"),
    ("instance_group { gpus: [ 1, 1 ] }", 1, "instance_group[0].gpus"),
    ("instance_group { gpus: [ 0, 1, 2 ] count: 11 }", 1, "instance_group[0].count"),
    ("instance_group { passive: true }", 1, "instance_group[0].passive"),
    ("dynamic_batching {\n priority_levels: 33 }", 2, "dynamic_batching.priority_levels"),
    ("dynamic_batching { priority_levels: 2 }", 1, "dynamic_batching.default_priority_level"),
    (
        "dynamic_batching { priority_levels: 2\n default_priority_level: 3 }",
        2,
        "dynamic_batching.default_priority_level",
    ),
    ("dynamic_batching { default_priority_level: 1 }", 1, "dynamic_batching.default_priority_level"),
    ("dynamic_batching { priority_queue_policy { key: 1 value { } } }", 1, "dynamic_batching.priority_queue_policy{1}"),
    (
        "dynamic_batching { default_queue_policy {\n timeout_action: 7 } }",
        2,
        "dynamic_batching.default_queue_policy.timeout_action",
    ),
    (
        "dynamic_batching { preserve_ordering: true\n priority_levels: 2 default_priority_level: 1 }",
        2,
        "dynamic_batching.priority_levels",
    ),
    (
        (
            "dynamic_batching { preserve_ordering: true default_queue_policy { timeout_action: DELAY "
            "default_timeout_microseconds: 1 } }"
        ),
        1,
        "dynamic_batching",
    ),
    ("dynamic_batching { max_queue_delay_microseconds: 99999999 }", 1, "dynamic_batching.max_queue_delay"),
    ("max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }", 1, "dynamic_batching.preferred_batch_size"),
    ("\n\nsequence_batching { }", 3, "sequence_batching"),
    ("ensemble_scheduling { }", 1, "ensemble_scheduling"),
    ("batch_input { }", 1, "batch_input"),
    ("optimization { graph { level: 3 } }", 1, "optimization.graph.level"),
    ("optimization { cuda { graphs: true } }", 1, "optimization.cuda"),
    (
        'optimization { execution_accelerators { cpu_execution_accelerator { name: "xla" } } }',
        1,
        "optimization.execution_accelerators.cpu_execution_accelerator[0].name",
    ),
    (
        (
            'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt"\n'
            ' parameters { key: "precision_mode" value: "b" } } } }'
        ),
        2,
        "optimization.execution_accelerators.gpu_execution_accelerator[0].parameters",
    ),
    ('\nparameters { key: "execution_mode" value: { string_value: "2" } }', 2, "parameters{execution_mode}"),
    ('\nparameters { key: "slo_p99_ms" value: { string_value: "20ms" } }', 2, "parameters{slo_p99_ms}"),
    ('parameters { key: "slo_p99_ms" value: { string_value: "0" } }', 1, "parameters{slo_p99_ms}"),
    ('parameters { key: "slo_p99_ms" value: { string_value: "1e3" } }', 1, "parameters{slo_p99_ms}"),
    (f"model_warmup {{ {WARM_UP % ''} }}", 1, "model_warmup[0].inputs{x}"),
    (f"model_warmup {{ {WARM_UP % 'input_data_file: `x`'} }}".replace("`", '"'), 1, "model_warmup[0].inputs{x}.input"),
    (f"model_warmup {{ {WARM_UP % 'zero_data: true'}\n count: 1001 }}", 2, "model_warmup[0].count"),
    ("response_cache {\n enable: true }", 2, "response_cache.enable"),
    ("model_transaction_policy { decoupled: true }", 1, "model_transaction_policy.decoupled"),
    ('metric_tags { key: "a" value: "b" }', 1, "metric_tags"),
]


@pytest.mark.parametrize(("text", "line", "name"), REFUSED, ids=[name for _, _, name in REFUSED])
def test_what_it_may_not_say(text: str, line: int, name: str) -> None:
    with pytest.raises(ModelConfigError) as refused:
        parse_text(text, "m")
    assert str(refused.value).startswith(f"config.pbtxt line {line}: ")
    assert name in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_batch_size: x", "line 1: max_batch_size: expected a whole number, got x"),
        ('name: "m"\nmax_batch_size: "4"', 'line 2: max_batch_size: expected a whole number, got "4"'),
        (
            "max_batch_size: 99999999999",
            "max_batch_size: expected a number that the field has room for, got 99999999999",
        ),
        ('input { name: "a"\n data_type: FP32 }', "line 2: input.data_type: expected TYPE_FP32, got FP32"),
        (
            "input { }\ninput { data_type: FLOAT }",
            "line 2: input[1].data_type: expected one of TYPE_INVALID, TYPE_BOOL,",
        ),
        ("input [ { dims: [ 1 ] }, { dims: [ 1, a ] } ]", "input[1].dims: expected a whole number, got a"),
        ("instance_group [{ kind: CPU }]", "instance_group.kind: expected KIND_CPU, got CPU"),
        ("dynamic_batching {\n # soon\n\n max_queue_delay_microseconds: 1.5 }", "line 4: dynamic_batching.max_queue"),
        ("name: m", 'name: expected a text in quotes, such as "text", got m'),
        ('parameters { key: "a" value: "b" }', "parameters.value: expected a message in braces"),
        ('\n{"name": "m"}', "expected protobuf text, such as `max_batch_size: 8`; got JSON"),
        ('name: "m', "line 1: String missing ending quote"),
    ],
)
def test_what_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(ModelConfigError) as refused:
        parse_text(text, "m")
    assert said in str(refused.value)


def test_a_document_is_read_like_a_file() -> None:
    document = {
        "max_batch_size": 4,
        "dynamic_batching": {"max_queue_delay_microseconds": 3},
        "input": [{"name": "x", "dims": ["2"]}],
        "parameters": {"batching_reason": {"string_value": "from an answer of this server"}},
        "batch_input": [],
    }
    config = parse_document(document, "m").config
    assert (config.max_batch_size, config.max_queue_delay_us, config.inputs[0].dims) == (4, 3, (2,))
    for wrong, name in (
        ({"max_batch": 1}, "max_batch"),
        ({"response_cache": {"enable": True}}, "response_cache.enable"),
    ):
        with pytest.raises(ModelConfigError, match=name):
            parse_document(wrong, "m")


def test_the_table_has_every_field() -> None:
    """Of each message that is taken in part there is a row for each member."""

    def check(descriptor: Any, path: str) -> None:
        for field in descriptor.fields:
            own = path + field.name
            assert own in BY_PATH, f"{own}: expected a row in server/models/config_fields.py"
            inner = field.message_type
            if inner is not None and inner.GetOptions().map_entry:
                inner = inner.fields_by_name["value"].message_type
            if inner is not None and BY_PATH[own].taken:
                check(inner, own + ".")

    check(messages.message_class("inference.ModelConfig").DESCRIPTOR, "")
    assert len(BY_PATH) == len(FIELDS)


def test_the_page_has_the_table() -> None:
    page = model_config_page.PAGE.read_text(encoding="utf-8")
    assert model_config_page.filled(page) == page, "run python tools/model_config_page.py"


def test_lines() -> None:
    lines = lines_of('a: 1 # {\nb {\n  c: "}"\n  d: [ 1,\n 2 ]\n}\nb < c: 2 >\nm [ { key: "k" }\n, { key: \'l\' } ]\n')
    assert [line_of(lines, path) for path in ("a", "b[0].c", "b[0].d", "b[1].c", "m{k}", "m{l}.x")] == [
        1,
        3,
        4,
        7,
        8,
        9,
    ]
    assert line_of(lines, "nothing") is None
