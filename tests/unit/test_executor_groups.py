"""Which models share an executor, and how many batches run at the same time then."""

from __future__ import annotations

import pytest

from server.config import ServeConfig
from server.models.model_config import ModelConfig, SessionSettings
from server.models.providers import CUDA, OPENVINO, TENSORRT, Provider
from server.supervisor.executor_groups import all_instances, group_of


def on(*providers: Provider) -> ModelConfig:
    return ModelConfig(session=SessionSettings(providers=providers))


PLAIN = ModelConfig()
SECOND_GPU = (("device_id", "1"),)


@pytest.mark.parametrize(
    ("model", "device", "best", "per_model", "auto", "shared"),
    [
        (PLAIN, "cpu", "cpu", None, None, "cpu"),
        (PLAIN, "auto", "cpu", None, None, "cpu"),
        (PLAIN, "auto", "cuda", None, "gpu0", "gpu0"),
        (PLAIN, "strict", "cuda", None, "gpu0", "gpu0"),
        (PLAIN, "cuda:1", "cpu", None, "gpu1", "gpu1"),
        (PLAIN, "tensorrt", "cpu", None, "gpu0", "gpu0"),
        (PLAIN, "openvino", "cpu", None, None, "openvino:CPU"),
        (PLAIN, "openvino:GPU", "cpu", None, "openvino:GPU", "openvino:GPU"),
        (ModelConfig(on_cpu=True), "cuda", "cuda", None, None, "cpu"),
        (on(Provider(CUDA)), "cpu", "cpu", None, "gpu0", "gpu0"),
        (on(Provider(TENSORRT, SECOND_GPU), Provider(CUDA, SECOND_GPU)), "cpu", "cpu", None, "gpu1", "gpu1"),
        (on(Provider(OPENVINO)), "cuda", "cuda", None, None, "openvino:CPU"),
    ],
)
def test_the_device_whose_executor_a_model_shares(
    model: ModelConfig, device: str, best: str, per_model: str | None, auto: str | None, shared: str | None
) -> None:
    found = [
        group_of(model, ServeConfig(device=device, executors=how), best) for how in ("per-model", "auto", "shared")
    ]
    assert found == [per_model, auto, shared]


def test_per_model_is_what_a_cpu_gets() -> None:
    assert group_of(PLAIN, ServeConfig(), "cpu") is None


def test_batches_that_run_at_the_same_time() -> None:
    """Threads are shared out over these: one executor runs a batch of one of its models on each of its instances."""
    server = ServeConfig(instances=2)
    three, four = ModelConfig(instances=3), ModelConfig(instances=4)
    assert all_instances([(PLAIN, None), (three, None)], server) == 5
    assert all_instances([(PLAIN, "cpu"), (three, "cpu"), (PLAIN, "cpu")], server) == 3
    assert all_instances([(PLAIN, "cpu"), (four, "gpu0"), (three, None)], server) == 9
