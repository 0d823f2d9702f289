"""pad_ and cut_ parameters: what they mean for a model's tensors, and what is refused, by field and line."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from server.models import repository
from server.models.config_document import text_of
from server.models.config_fit import Fitted
from server.models.lane_settings import settings_of
from server.models.onnx_file import TensorInfo
from server.models.shape_rules import Cut, Pad, Padding, ShapeRuleError, element, padding_of
from tests.support import onnx_writer, triton_repository
from tests.unit.test_config_fit import SERVER

ZERO = bytes(8)
TEXT = [
    TensorInfo("ids", "INT64", ("batch", "tokens")),
    TensorInfo("mask", "INT64", ("batch", "tokens")),
    TensorInfo("image", "FP32", ("batch", 3, "height", None)),
    TensorInfo("loose", "FP32", ("batch", None, 4)),
]
ANSWER = [TensorInfo("states", "FP32", ("batch", "tokens", 8)), TensorInfo("mean", "FP32", ("batch", 8))]


def of(*, outputs: list[TensorInfo] = ANSWER, **parameters: str) -> Padding:
    return padding_of(parameters, TEXT, outputs)


def test_axes_of_one_name_go_together() -> None:
    found = of(pad_ids="axis=1 value=7 multiple=16 max=512")
    assert found.pads == (Pad(0, 1, 0, 16, 512, struct.pack("<q", 7)), Pad(1, 1, 0, 16, 512, ZERO))
    assert found.cuts == (Cut(0, 1, 0),)
    assert found and not of(outputs=ANSWER[1:])


def test_each_input_may_have_its_value() -> None:
    found = of(pad_ids="axis=1 value=7 multiple=16", pad_mask="axis=1 multiple=16 value=-1 alone=padded")
    assert [pad.value for pad in found.pads] == [struct.pack("<q", 7), struct.pack("<q", -1)]
    # One of them may not run as it came, so none does.
    assert [pad.may_be_exact for pad in found.pads] == [False, False]


def test_all_that_wait_may_run_together() -> None:
    assert [pad.always_together for pad in of(pad_ids="axis=1 multiple=16 together=always").pads] == [True, True]
    assert not of(pad_ids="axis=1 multiple=16 together=cheaper").pads[0].always_together


def test_like_joins_axes_of_different_names() -> None:
    found = of(outputs=ANSWER[1:], pad_ids="axis=1 multiple=8 max=64", pad_loose="axis=1 like=ids value=0.5")
    assert found.pads[2] == Pad(3, 1, 0, 8, 64, struct.pack("<f", 0.5))


def test_two_axes_of_an_image() -> None:
    found = of(outputs=ANSWER[1:], pad_image="axis=2 multiple=32 max=960 ; axis=3 multiple=8")
    assert [(pad.axis, pad.group, pad.multiple, pad.max) for pad in found.pads] == [
        (2, 0, 32, 960),
        (3, 1, 8, 2**31 - 1),
    ]


def test_cuts_have_ratios() -> None:
    outputs = [TensorInfo("steps", "FP32", ("batch", "time", 9))]
    found = of(outputs=outputs, pad_image="axis=3 multiple=32", cut_steps="axis=1 like=image:3 ratio=1/8")
    assert found.cuts == (Cut(0, 1, 0, 1, 8),)
    assert [found.cuts[0].length(width) for width in (8, 9, 96, 97)] == [1, 2, 12, 13]
    down = of(outputs=outputs, pad_image="axis=3 multiple=32", cut_steps="axis=1 like=image:3 ratio=1/8 round=down")
    assert [down.cuts[0].length(width) for width in (8, 9, 96, 97)] == [1, 1, 12, 12]
    assert of(outputs=outputs, pad_image="axis=3 multiple=32", cut_steps="none").cuts == ()


@pytest.mark.parametrize(
    ("parameters", "key", "text"),
    [
        ({"pad_x": "axis=1 multiple=2"}, "pad_x", "expected the name of an input: one of pad_ids, pad_mask"),
        ({"pad_ids": ""}, "pad_ids", "expected axis= with a number"),
        ({"pad_ids": "axis=1"}, "pad_ids", "expected multiple= with a number from 1"),
        ({"pad_ids": "axis=1 multiple=0"}, "pad_ids", "expected multiple="),
        ({"pad_ids": "axis=1 multiple=8 max=4"}, "pad_ids", "expected max= of at least multiple=8, got 4"),
        ({"pad_ids": "axis=1 multiple=8 size=4"}, "pad_ids", "got 'size=4'"),
        ({"pad_ids": "axis=1 axis=1 multiple=8"}, "pad_ids", "each once at most, got 'axis=1'"),
        ({"pad_ids": "axis=0 multiple=8"}, "pad_ids", "expected axis= with a number from 1"),
        ({"pad_ids": "axis=2 multiple=8"}, "pad_ids", "behind the batch axis (1), got axis=2"),
        ({"pad_image": "axis=1 multiple=8"}, "pad_image", "[batch,3,height,?] behind the batch axis (2, 3)"),
        ({"pad_ids": "axis=1 multiple=8 value=0.5"}, "pad_ids", "expected value= with a INT64, got '0.5'"),
        ({"pad_ids": "axis=1 multiple=8;axis=1 multiple=8"}, "pad_ids", "axis 1 stands there twice"),
        ({"pad_ids": "axis=1 multiple=8 alone=maybe"}, "pad_ids", "got 'maybe'"),
        ({"pad_ids": "axis=1 multiple=8 together=no"}, "pad_ids", "expected together=cheaper or together=always"),
        ({"pad_ids": "axis=1 like=mask multiple=8"}, "pad_ids", "expected either like="),
        ({"pad_ids": "axis=1 like=ids"}, "pad_ids", "expected another axis"),
        ({"pad_ids": "axis=1 like=nobody"}, "pad_ids", "with one of 'ids', 'mask'"),
        ({"pad_ids": "axis=1 like=loose"}, "pad_ids", "'loose' axis 1 has none"),
        ({"pad_ids": "axis=1 multiple=8", "pad_mask": "axis=1 multiple=4"}, "pad_mask", "expected the same multiple=8"),
        ({"pad_image": "axis=2 multiple=8 value=1; axis=3 multiple=8"}, "pad_image", "expected the same value="),
        ({"pad_image": "axis=2 multiple=8"}, "pad_image", "output 'states' [batch,tokens,8] is free on axis 1"),
        ({"pad_ids": "axis=1 multiple=8", "cut_mean": "axis=1 like=ids"}, "cut_mean", "(it has none), got axis=1"),
        ({"pad_ids": "axis=1 multiple=8", "cut_states": "axis=1 like=loose"}, "cut_states", "none can be taken"),
        ({"pad_ids": "axis=1 multiple=8", "cut_states": "axis=1 like=ids ratio=1/0"}, "cut_states", "ratio=P/Q"),
        ({"pad_ids": "axis=1 multiple=8", "cut_states": "axis=1 like=ids round=off"}, "cut_states", "got 'off'"),
        ({"pad_ids": "axis=1 multiple=8", "cut_states": "axis=1"}, "cut_states", "expected like=INPUT"),
        ({"cut_states": "axis=1 like=ids"}, "cut_states", "nothing is padded"),
    ],
)
def test_what_cannot_be_followed_is_refused(parameters: dict[str, str], key: str, text: str) -> None:
    with pytest.raises(ShapeRuleError) as refused:
        of(**parameters)
    assert refused.value.key == key
    assert text in str(refused.value)


@pytest.mark.parametrize(
    ("datatype", "text", "expected"),
    [
        ("UINT8", "255", b"\xff"),
        ("INT8", "-128", b"\x80"),
        ("BOOL", "1", b"\1"),
        ("FP16", "-inf", b"\x00\xfc"),
        ("BF16", "1.0", b"\x80\x3f"),
        ("FP64", "1e-3", struct.pack("<d", 1e-3)),
        ("UINT8", "256", None),
        ("BOOL", "2", None),
        ("FP16", "1e9", None),
        ("FP32", "one", None),
        ("BYTES", "0", None),
    ],
)
def test_a_value_is_one_of_the_datatype(datatype: str, text: str, expected: bytes | None) -> None:
    if expected is not None:
        assert element("pad_x", text, datatype) == expected
        return
    with pytest.raises(ShapeRuleError):
        element("pad_x", text, datatype)


def configured(root: Path, text: str, dims: list[int]) -> Fitted | str:
    triton_repository.put(root, "m", onnx_writer.identity(dims=dims), text)
    (found,) = repository.scan(root / "m")
    if found.error is not None:
        return found.error
    assert found.fitted is not None
    return found.fitted


PAD_X = 'parameters {\n  key: "pad_x"\n  value { string_value: "axis=1 multiple=4" }\n}\n'


def test_a_refusal_names_field_and_line(tmp_path: Path) -> None:
    found = configured(tmp_path, PAD_X.replace("multiple", "multiples"), [-1, -1])
    assert isinstance(found, str) and found.startswith("config.pbtxt line 1: parameters{pad_x}: expected axis=")


@pytest.mark.parametrize(
    ("dims", "config", "text"),
    [
        ([-1, 4], "", "behind the batch axis (it has none)"),
        ([-1, -1], "max_batch_size: 0\n", "expected a batched model"),
    ],
)
def test_only_rows_of_free_length_are_padded(tmp_path: Path, dims: list[int], config: str, text: str) -> None:
    found = configured(tmp_path, config + PAD_X, dims)
    assert isinstance(found, str) and "parameters{pad_x}" in found and text in found


def test_what_explain_prints_says_the_same(tmp_path: Path) -> None:
    first = configured(tmp_path, PAD_X, [-1, -1])
    (found,) = repository.scan(tmp_path / "m")
    again = configured(tmp_path / "again", text_of(found, settings_of(found, SERVER)), [-1, -1])
    assert isinstance(first, Fitted) and isinstance(again, Fitted)
    assert first.padding == again.padding == Padding((Pad(0, 1, 0, 4, 2**31 - 1, bytes(4)),), (Cut(0, 1, 0),))


def test_the_verdict_says_what_is_padded(tmp_path: Path) -> None:
    """`explain`, the banner and /config show it."""
    folder = tmp_path / "seq"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(onnx_writer.variable_mlp())

    def reason() -> str:
        (found,) = repository.scan(folder)
        assert found.error is None and found.batching is not None
        return found.batching.reason

    assert reason().endswith("so only rows of equal shape run together")
    (folder / "config.pbtxt").write_text('parameters { key: "pad_x" value { string_value: "axis=1 multiple=16" } }')
    text = reason()
    assert text.endswith("besides; rows run together that are alike once padded: 'x' on axis 1 to multiples of 16")
