"""On which device each instance runs, by configuration and by --device."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from server import option_values
from server.config import ServeConfig
from server.models.config_document import text_of
from server.models.instance_places import is_spread, places_of, too_many
from server.models.lane_settings import settings_of
from server.models.memory_policy import expected_bytes
from server.models.model_config import NO_CONFIG, parse_text
from server.models.providers import CUDA, OPENVINO, TENSORRT, Place, Provider
from server.models.repository import ModelVersion, scan
from server.models.thread_share import computing, instances_of
from server.supervisor.executor_groups import all_instances, group_of


def cuda(gpu: int, *options: tuple[str, str]) -> Provider:
    return Provider(CUDA, (("device_id", str(gpu)), *options))


def on_gpu(gpu: int) -> Place:
    return Place(f"cuda:{gpu}", (cuda(gpu),))


ON_CPU = Place("cpu")
OPENVINO_GROUP = 'optimization { execution_accelerators { cpu_execution_accelerator { name: "openvino" } } } '
TENSORRT_GROUP = 'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } } } '


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("instance_group { gpus: [ 0, 1 ] }", [on_gpu(0), on_gpu(1)]),
        ("instance_group { kind: KIND_GPU gpus: [ 1, 0 ] count: 2 }", [on_gpu(1)] * 2 + [on_gpu(0)] * 2),
        ("instance_group [ { kind: KIND_GPU }, { kind: KIND_CPU count: 2 } ]", [on_gpu(0), ON_CPU, ON_CPU]),
        # Those of one device stand side by side.
        (
            "instance_group [ { gpus: [ 0 ] }, { kind: KIND_CPU }, { gpus: [ 0, 2 ] } ]",
            [on_gpu(0)] * 2 + [ON_CPU, on_gpu(2)],
        ),
        # Accelerators belong to the devices that they are for.
        (
            OPENVINO_GROUP + "instance_group [ { kind: KIND_GPU }, { kind: KIND_CPU } ]",
            [on_gpu(0), Place("cpu", (Provider(OPENVINO),))],
        ),
        (
            TENSORRT_GROUP + "instance_group { gpus: [ 0, 1 ] }",
            [Place(f"cuda:{gpu}", (Provider(TENSORRT, (("device_id", str(gpu)),)),)) for gpu in (0, 1)],
        ),
        (
            'parameters { key: "gpu_mem_limit" value: { string_value: "9" } } instance_group { gpus: [ 0, 1 ] }',
            [Place(f"cuda:{gpu}", (cuda(gpu, ("gpu_mem_limit", "9")),)) for gpu in (0, 1)],
        ),
    ],
)
def test_groups_of_several_devices(text: str, expected: list[Place]) -> None:
    config = parse_text(text, "m").config
    for device in ("auto", "cpu", "openvino,cpu"):
        assert list(places_of(config, ServeConfig(device=device))) == expected
    assert is_spread(config, ServeConfig()) and not config.on_cpu and config.instances == len(expected)


@pytest.mark.parametrize(
    ("text", "device", "expected"),
    [
        ("", "auto", [Place("auto")] * 2),
        ("", "cuda:0,cuda:1", [Place("cuda:0")] * 2 + [Place("cuda:1")] * 2),
        ("instance_group { count: 1 }", "openvino,cpu", [Place("openvino"), ON_CPU]),
        ("instance_group { kind: KIND_CPU count: 3 }", "openvino,cpu", [ON_CPU] * 3),
        ("instance_group { gpus: [ 1 ] }", "openvino,cpu", [Place("openvino,cpu", (cuda(1),))]),
        (OPENVINO_GROUP, "cuda:0,cpu", [Place("cuda:0,cpu", (Provider(OPENVINO),))] * 2),
    ],
)
def test_a_list_of_devices_is_for_models_without_one(text: str, device: str, expected: list[Place]) -> None:
    config = parse_text(text, "m").config
    server = ServeConfig(device=device, instances=2)
    assert list(places_of(config, server)) == expected
    assert instances_of(config, server) == len(expected)
    assert is_spread(config, server) == (len(set(expected)) > 1)


@pytest.mark.parametrize(
    "text", ["cuda:0,cuda:1", "openvino,cpu", "cpu", "auto", "tensorrt:0,cuda:0", "openvino:GPU.1,openvino:CPU"]
)
def test_lists_of_devices(text: str) -> None:
    assert option_values.device(text) == text
    assert option_values.device(text.replace(",", " , ")) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cpu,auto", "expected auto, strict, fastest, cpu, cuda, cuda:N"),
        ("fastest,cpu", "or several of the devices between commas"),
        ("cpu,", "expected auto"),
        ("cpu,gpu", "got 'cpu,gpu'"),
        ("cpu,cpu", "each device once"),
        ("cuda,cuda:0", "each device once"),
        ("openvino:CPU,openvino", "each device once"),
        (",".join(f"cuda:{index}" for index in range(9)), "at most 8 devices, got 9"),
    ],
)
def test_what_is_no_list_of_devices(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="expected") as refused:
        option_values.device(text)
    assert said in str(refused.value)


def test_labels() -> None:
    places = [ON_CPU, Place("auto"), Place("openvino"), Place("cuda"), Place("cuda,cpu", (cuda(2),))]
    assert [place.label for place in places] == ["cpu", "auto", "openvino:CPU", "cuda:0", "cuda:2"]
    assert [place.is_processor for place in places] == [True, False, True, False, False]


def test_processors_are_shared_by_those_who_compute_on_them() -> None:
    assert computing([Place("cuda:0")] * 3) == computing([ON_CPU] * 3) == 3
    assert computing([Place("cuda:0"), Place("cuda:1")]) == 1
    assert computing([Place("openvino"), ON_CPU, Place("cuda")]) == 2


def test_a_process_of_its_own() -> None:
    config = parse_text("instance_group { gpus: [ 0, 1 ] }", "m").config
    for executors in ("auto", "shared", "per-model"):
        assert group_of(config, ServeConfig(executors=executors), "cuda") is None
        assert group_of(NO_CONFIG, ServeConfig(executors=executors, device="openvino,cpu"), "cpu") is None
    assert all_instances([(config, None), (NO_CONFIG, "gpu0")], ServeConfig(instances=3)) == 5


def test_more_than_there_may_be() -> None:
    server = ServeConfig(device="openvino,cpu", instances=16)
    assert too_many(NO_CONFIG, server) == ""
    assert too_many(parse_text("instance_group { count: 17 }", "m").config, server) == (
        "expected at most 32 instances together, found 17 on each of 2 devices: lower instance_group.count, or name "
        "fewer devices (--device)"
    )


def served() -> ModelVersion:
    (version,) = scan(Path("server/demo/digits/1/model.onnx"))
    return version


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("instance_group [ { gpus: [ 0, 3 ] count: 2 }, { kind: KIND_CPU } ]", "auto"),
        (OPENVINO_GROUP + "instance_group [ { gpus: [ 1 ] }, { kind: KIND_CPU } ]", "auto"),
        ("instance_group { kind: KIND_CPU count: 2 }", "openvino,cpu"),
        ("instance_group { count: 2 }", "openvino,cpu"),
    ],
)
def test_explained_and_read_again_it_is_the_same(text: str, device: str) -> None:
    server = ServeConfig(device=device)
    version = dataclasses.replace(served(), config=parse_text(text, "model").config)
    settings = settings_of(version, server)
    said = text_of(version, settings)
    again = dataclasses.replace(version, config=parse_text(said, "model").config)
    assert settings_of(again, server).places == settings.places
    assert text_of(again, settings) == said


def test_each_device_has_the_weights() -> None:
    version = dataclasses.replace(served(), weights_bytes=100 << 20)
    one, two = (expected_bytes(version, settings_of(version, ServeConfig(device=text))) for text in ("cpu", "cpu,cuda"))
    assert 110 << 20 < two - one < 130 << 20
