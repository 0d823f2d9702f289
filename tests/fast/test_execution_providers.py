"""Which execution providers a session gets: the rule, with stand-ins for ONNX Runtime and its libraries."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from server.executor import providers
from server.executor.backend import LoadError
from server.models.providers import CUDA, OPENVINO, TENSORRT, Provider, of_accelerator, of_device
from server.option_values import MAX_DEVICES, device
from server.protocol.assignment import MAX_BYTES, Assignment, from_text, to_text


def runtime(*there: str, folder: Path = Path("/nowhere")) -> Any:
    """What the rule looks at of the onnxruntime module."""
    return SimpleNamespace(
        __version__="1.32.0",
        __file__=str(folder / "__init__.py"),
        get_available_providers=lambda: [*there, "CPUExecutionProvider"],
        get_ep_devices=list,
    )


def library(folder: Path, name: str, needs: str | None = None) -> Path:
    """A shared library; `needs` is one that it is linked to and that is nowhere."""
    (folder / "capi").mkdir(exist_ok=True)
    made = folder / "capi" / name
    link = []
    if needs is not None:
        stub = folder / "stub" / needs
        stub.parent.mkdir(exist_ok=True)
        subprocess.run(["cc", "-shared", "-x", "c", "/dev/null", "-o", stub, f"-Wl,-soname,{needs}"], check=True)
        link = ["-Wl,--no-as-needed", f"-L{stub.parent}", f"-l:{needs}"]
    subprocess.run(["cc", "-shared", "-x", "c", "/dev/null", "-x", "none", "-o", made, *link], check=True)
    for path in (folder / "stub").glob("*"):
        path.unlink()
    return made


@pytest.mark.parametrize(
    ("missing", "where_from"),
    [
        ("libcudnn.so.9", "cuDNN: pip install onnxruntime-gpu[cuda,cudnn]"),
        ("libcublasLt.so.12", "the CUDA toolkit"),
        ("libcuda.so.1", "the NVIDIA driver"),
        ("libsomething.so.3", "the package that has it"),
    ],
)
def test_a_provider_whose_library_lacks_another_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, where_from: str
) -> None:
    # Of a name that no machine has, and that begins as the real one.
    stem, _, version = missing.rpartition(".")
    name = f"{stem}.{version}7777"
    library(tmp_path, "libonnxruntime_providers_cuda.so", name)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/cuda/lib")
    ort = runtime(CUDA, folder=tmp_path)
    with pytest.raises(LoadError) as refused:
        providers.choose(ort, (), "cuda")
    text = str(refused.value)
    assert text.startswith(f"expected: {name} for cuda:0; found: none in {tmp_path / 'capi'}, /opt/cuda/lib")
    assert f"fix: it is part of {where_from}" in text and "--device cpu" in text


def test_auto_falls_back_and_says_why_and_strict_does_not(tmp_path: Path) -> None:
    library(tmp_path, "libonnxruntime_providers_cuda.so", "libcudnn.so.9999")
    ort = runtime(CUDA, folder=tmp_path)
    choice = providers.choose(ort, (), "auto")
    assert choice.builtin == () and "libcudnn.so.9999" in choice.fallback
    with pytest.raises(LoadError, match=r"^no accelerator works here: .*libcudnn.so.9999"):
        providers.choose(ort, (), "strict")


def test_auto_takes_what_works_and_is_silent_where_nothing_was_to_be_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(providers._OPENED_LATER, CUDA, ())
    library(tmp_path, "libonnxruntime_providers_cuda.so")
    choice = providers.choose(runtime(CUDA, folder=tmp_path), (), "auto")
    assert choice.builtin == ((CUDA, {"arena_extend_strategy": "kSameAsRequested", "device_id": "0"}),)
    assert [provider.device for provider in choice.wanted] == ["cuda:0"]
    assert providers.choose(runtime(), (), "auto", signs=()) == providers.Choice()
    with_gpu = providers.choose(runtime(), (), "auto", signs=(tmp_path,))
    assert "pip install onnxruntime-gpu" in with_gpu.fallback, "a GPU is here that nothing can use"


def test_a_library_that_is_opened_later_is_missed_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN is not among those that the CUDA provider's library is linked to."""
    library(tmp_path, "libonnxruntime_providers_cuda.so")
    monkeypatch.setitem(providers._OPENED_LATER, CUDA, ("libcudnn.so.97777",))
    assert "expected: libcudnn.so.97777 for cuda:0; " in providers.problem(
        runtime(CUDA, folder=tmp_path), of_device("cuda")[0]
    )


def test_libraries_in_nvidias_packages_are_loaded_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are where no search path leads to: ONNX Runtime knows, and says on stdout what it does not find."""
    library(tmp_path, "libonnxruntime_providers_cuda.so")
    hidden = library(tmp_path, "libhidden_in_a_package.so.9")
    subprocess.run(
        ["cc", "-shared", "-x", "c", "/dev/null", "-o", hidden, "-Wl,-soname,libhidden_in_a_package.so.9"], check=True
    )
    monkeypatch.setitem(providers._OPENED_LATER, CUDA, ("libhidden_in_a_package.so.9",))
    ort = runtime(CUDA, folder=tmp_path)
    cuda = of_device("cuda")[0]
    assert "libhidden_in_a_package.so.9" in providers.problem(ort, cuda)

    def preload() -> None:
        print("Failed to load libcufft.so.11")

    ort.preload_dlls = preload
    assert ", NVIDIA's packages, the system's libraries; fix: " in providers.problem(ort, cuda)

    def preload_all() -> None:
        preload()
        ctypes.CDLL(str(hidden))

    ort.preload_dlls = preload_all
    assert providers.problem(ort, cuda) == ""
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"INFERENCE_NUM_THREADS": "3", "INFERENCE_PRECISION_HINT": "f32"}),
        ({"num_of_threads": "5"}, {"INFERENCE_NUM_THREADS": "5", "INFERENCE_PRECISION_HINT": "f32"}),
        ({"precision": "FP16"}, {"INFERENCE_NUM_THREADS": "3", "INFERENCE_PRECISION_HINT": "f16"}),
        ({"precision": "ACCURACY"}, {"INFERENCE_NUM_THREADS": "3"}),
        (
            {"load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "bf16", "NUM_STREAMS": "2"}}'},
            {"INFERENCE_NUM_THREADS": "3", "INFERENCE_PRECISION_HINT": "bf16", "NUM_STREAMS": "2"},
        ),
    ],
)
def test_openvino_is_told_of_threads_and_precision(given: dict[str, str], expected: dict[str, str]) -> None:
    options = providers.openvino_options(given, "CPU", 3)
    assert json.loads(options["load_config"])["CPU"] == expected
    assert "num_of_threads" not in options, "the plug-in warns of it"
    assert options.get("precision") == given.get("precision")


@pytest.mark.parametrize(
    ("given", "device_type"),
    [
        ({}, "GPU.1"),
        ({"precision": "FP16"}, "NPU"),
        ({"load_config": "/etc/openvino.json"}, "CPU"),
        ({"load_config": "[]"}, "CPU"),
    ],
)
def test_what_openvino_is_told_otherwise_stays(given: dict[str, str], device_type: str) -> None:
    assert providers.openvino_options(given, device_type, 3) == given


def test_both_kinds_of_openvino_are_told() -> None:
    wanted = of_device("openvino")
    made = providers.with_threads(
        providers.Choice(builtin=((OPENVINO, {"device_type": "CPU"}), (CUDA, {"device_id": "0"})), wanted=wanted), 2
    )
    assert (
        made.builtin[0][1]["device_type"] == "CPU"
        and '"INFERENCE_NUM_THREADS": "2"' in made.builtin[0][1]["load_config"]
    )
    assert made.builtin[1] == (CUDA, {"device_id": "0"})
    plugin = providers.with_threads(providers.Choice(plugins=((["device"], {}),), wanted=wanted), 2)
    assert plugin.plugins[0][0] == ["device"] and '"INFERENCE_NUM_THREADS": "2"' in plugin.plugins[0][1]["load_config"]


def test_a_configured_provider_goes_before_the_servers_device() -> None:
    configured = (of_accelerator("openvino", {"precision": "FP32"}),)
    ort = runtime(OPENVINO, CUDA)
    assert providers.choose(ort, configured, "cuda").builtin == ((OPENVINO, {"precision": "FP32"}),)


def test_what_is_not_in_the_build_is_named() -> None:
    with pytest.raises(LoadError) as refused:
        providers.choose(runtime("AzureExecutionProvider"), (), "tensorrt:1")
    assert str(refused.value) == (
        f"expected: {TENSORRT} for tensorrt:1; found: ONNX Runtime 1.32.0 with AzureExecutionProvider, "
        "CPUExecutionProvider; fix: pip install onnxruntime-gpu, or --device cpu "
        "(KIND_CPU where config.pbtxt names the device)"
    )


@pytest.mark.parametrize(
    ("device", "provider", "package"),
    [
        ("strict", f"{CUDA} for cuda:0", "onnxruntime-gpu"),
        ("tensorrt", f"{TENSORRT} for tensorrt:0", "onnxruntime-gpu"),
        ("openvino", f"{OPENVINO} for openvino:CPU", "onnxruntime-openvino"),
    ],
)
def test_an_executable_without_the_provider_does_not_send_to_pip(
    monkeypatch: pytest.MonkeyPatch, device: str, provider: str, package: str
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(providers, "_has_plugin", lambda: False)
    with pytest.raises(LoadError) as refused:
        providers.choose(runtime(), of_device(device), device)
    assert str(refused.value).removeprefix("no accelerator works here: ") == (
        f"expected: {provider}; found: this executable, which carries ONNX Runtime 1.32.0 with CPUExecutionProvider; "
        f"fix: run headrace from a Python environment with {package}, or build the executable in one, or "
        "--device cpu (KIND_CPU where config.pbtxt names the device)"
    )


def test_in_the_executable_too_the_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyInstaller's CDLL raises an error of its own from the linker's."""
    made = library(tmp_path, "libonnxruntime_providers_cuda.so", "libcublasLt.so.7777")
    real = ctypes.CDLL

    def wrapped(name: str, **others: int) -> ctypes.CDLL:
        try:
            return real(name, **others)
        except OSError as error:
            raise OSError(f"Failed to load dynlib/dll {name!r}") from error

    monkeypatch.setattr(ctypes, "CDLL", wrapped)
    assert providers.missing_library(made) == "libcublasLt.so.7777"


@pytest.mark.parametrize("missing", ["libcudnn.so.9", "libcublasLt.so.12", "libnvinfer.so.10", "libopenvino.so.2500"])
def test_nor_for_a_library(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    outside = providers._source(missing)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    inside = providers._source(missing)
    assert "pip install" in outside and "pip" not in inside
    assert inside.split(": ")[0] == outside.split(": ")[0] and inside.split(": ")[1] in outside


def test_a_session_that_does_without_is_refused() -> None:
    choice = providers.Choice(wanted=of_device("cuda:2"))
    providers.verify(choice, [CUDA, "CPUExecutionProvider"])
    with pytest.raises(LoadError, match=r"expected: CUDAExecutionProvider for cuda:2; found: a session with CPUEx"):
        providers.verify(choice, ["CPUExecutionProvider"])


def test_the_device_is_who_runs_nodes() -> None:
    choice = providers.Choice(wanted=of_device("tensorrt"))
    assert providers.device_of(choice, {TENSORRT: 1, "CPUExecutionProvider": 3}) == "tensorrt:0"
    assert providers.device_of(choice, {CUDA: 4}) == "cuda:0"
    assert providers.device_of(choice, {"CPUExecutionProvider": 4}) == "cpu"
    assert providers.device_of(choice, {}) == "tensorrt:0", "the build does not say"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cpu", []),
        ("cuda", ["cuda:0"]),
        ("cuda:3", ["cuda:3"]),
        ("tensorrt:1", ["tensorrt:1", "cuda:1"]),
        ("openvino", ["openvino:CPU"]),
        ("openvino:GPU", ["openvino:GPU"]),
    ],
)
def test_devices(text: str, expected: list[str]) -> None:
    assert [provider.device for provider in of_device(device(text))] == expected


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:x", "openvino:TPU", "CPU", "auto:1"])
def test_other_devices_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected auto, strict, fastest, cpu, cuda"):
        device(text)


def test_tensorrt_has_tritons_names() -> None:
    given = {"precision_mode": "fp16", "max_workspace_size_bytes": "1024", "trt_engine_cache_enable": "1"}
    options = {"trt_engine_cache_enable": "1", "trt_fp16_enable": "1", "trt_max_workspace_size": "1024"}
    assert dict(of_accelerator("tensorrt", given).options) == options
    with pytest.raises(ValueError, match="precision_mode: expected FP32, FP16, INT8, got 'FP8'"):
        of_accelerator("tensorrt", {"precision_mode": "FP8"})


def test_an_assignment_fits_whatever_it_says() -> None:
    assert from_text("") == Assignment()
    placed = Assignment("cuda:0", {CUDA: 12, "CPUExecutionProvider": 3}, "why")
    assert from_text(to_text(placed)) == placed
    others = (placed._replace(device="cuda:1", instances=3), Assignment("cpu", {}, "no GPU", 1))
    several = placed._replace(instances=2, others=others)
    assert from_text(to_text(several)) == several
    assert [one.device for one in several.every] == several.devices.split(", ") == ["cuda:0", "cuda:1", "cpu"]
    nodes = {f"Provider{number}" * 3: number for number in range(5)}
    most = [Assignment(f"openvino:GPU.{index}", nodes, "why " * 50, 4) for index in range(MAX_DEVICES)]
    text = to_text(most[0]._replace(others=tuple(most[1:])))
    assert len(text.encode()) <= MAX_BYTES
    assert [(one.device, one.instances) for one in from_text(text).every] == [(one.device, 4) for one in most]
    cells = [(rows, 10**10 - 1) for rows in (1, 32, 16384)]
    chosen = Assignment(
        "openvino:CPU", nodes, "why " * 50, measured=dict.fromkeys(("cpu", "cuda:0", "openvino:CPU"), cells)
    )
    assert len(to_text(chosen).encode()) <= MAX_BYTES and from_text(to_text(chosen)).measured == chosen.measured
    long = Assignment("cpu", {f"Provider{number}" * 5: number for number in range(50)}, "ü" * 1000)
    assert len(to_text(long).encode()) <= MAX_BYTES and from_text(to_text(long)).device == "cpu"


def test_a_provider_is_a_name_and_options() -> None:
    assert Provider(OPENVINO, (("device_type", "NPU"),)).device == "openvino:NPU"
    assert Provider("CPUExecutionProvider").device == "cpu"
