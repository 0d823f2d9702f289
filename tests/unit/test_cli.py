"""The command line: overview, dispatch, usage errors, version, inspect, and what starting it costs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from server import __version__, cli, cli_serve, cli_version
from server.cli_parser import CommandError
from server.config import OPTIONS
from server.demo import files
from server.errors import InternalError
from tests.support import onnx_writer

ROOT = Path(__file__).resolve().parents[2]
DEMO_FILE = str(files.MODEL / "1" / "model.onnx")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_no_arguments_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys)
    assert (code, err) == (0, "")
    assert 8 <= out.count("\n") <= 14
    assert len(re.findall(r"^  headrace (serve|infer)", out, re.MULTILINE)) == 3


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"]])
def test_help_names_every_command(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    for name in cli.SUBCOMMANDS:
        assert f"  {name} " in out


@pytest.mark.parametrize("command", cli.SUBCOMMANDS)
def test_help_of_each_command(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run(capsys, command, "--help")[:2] == run(capsys, "help", command)[:2]
    assert run(capsys, command, "--help")[1].startswith(f"usage: headrace {command}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serv"], "unknown command 'serv': did you mean serve?"),
        (["model.onnx"], "unknown command 'model.onnx': did you mean serve model.onnx?"),
        (["infer", "m", "--rows", "0"], "expected a whole number from 1, got '0'"),
        (["--versoin"], "unknown option '--versoin': did you mean --version?"),
        (["qqq"], "expected one of serve, infer"),
        (["serve", "--wokers", "2"], "unknown option '--wokers': did you mean --workers?"),
        (["serve", "--wokers=2"], "unknown option '--wokers': did you mean --workers?"),
        (["serve", "--work", "2"], "unknown option '--work': did you mean --workers?"),
        (["serve", "a.onnx", "b.onnx"], "unexpected argument 'b.onnx'"),
        (["serve", "--workers", "x"], "--workers: expected a whole number from 1 to 62, got 'x'"),
        (["serve", "--workers"], "expected one argument"),
        (["serve", "--log-format", "xml"], "expected one of auto, text, json, got 'xml'"),
        (["inspect"], "required: MODEL"),
        (["infer", "digits"], "expected --file FILE or --random"),
        (["infer", "digits", "--random", "--file", "x.png"], "not allowed with argument"),
        (["infer", "digits", "--random", "--url", "https://x"], "expected a URL like http://127.0.0.1:8000"),
        (["infer", "digits", "--random", "--rows", "0"], "--rows"),
        (["example", "digits", "--lang", "cobol"], "invalid choice: 'cobol'"),
        (["version", "--vv"], "unknown option '--vv'"),
    ],
)
def test_usage_errors(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (64, "")
    assert said in err
    assert "Traceback" not in err


def test_every_option_of_serve_has_its_flag_and_variable_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "serve", "--help")
    for option in OPTIONS:
        usage = f"{option.flag}, --no-{option.flag[2:]}" if option.is_switch else f"{option.flag} {option.metavar}"
        assert f"  {usage}" in out
        assert f"[{option.variable}]" in out


def test_serve_reads_flags_and_environment() -> None:
    arguments = ["models", "--http-port", "0", "--drain-delay", "2.5", "--max-queue-delay-us=300"]
    found = cli_serve.read(arguments, {"HEADRACE_WORKERS": "3", "HEADRACE_HTTP_PORT": "9999"})
    assert (found.path, found.http_port, found.workers) == (Path("models"), 0, 3)
    assert (found.drain_delay_s, found.max_queue_delay_us) == (2.5, 300)
    assert cli_serve.read([], {}).path is None


def test_serve_reads_switches_and_lists() -> None:
    arguments = ["--uds", "/run/a,b", "--uds=/run/c", "--allow-client-shm", "--no-kserve-v1-status"]
    found = cli_serve.read(arguments, {"HEADRACE_UDS": "/run/d", "HEADRACE_KSERVE_V1_STATUS": "1"})
    assert found.uds == ("/run/a", "b", "/run/c")
    assert (found.allow_client_shm, found.kserve_v1_status) == (True, False)
    assert cli_serve.read([], {"HEADRACE_UDS": "/run/d"}).uds == ("/run/d",)


def test_a_bad_variable_is_a_configuration_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_WORKERS", "many")
    code, _, err = run(capsys, "serve")
    assert code == 78
    assert err == "headrace: HEADRACE_WORKERS: expected a whole number from 1 to 62, got 'many'\n"


def test_a_misspelt_variable_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    cli_serve.read([], {"HEADRACE_WORKER": "2"})
    assert "HEADRACE_WORKER is not a setting; did you mean HEADRACE_WORKERS?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["version"], ["--version"], ["-V"]])
def test_version(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run(capsys, *arguments) == (0, f"headrace {__version__}\n", "")


def test_version_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--version", "-v")
    assert code == 0
    for word in ("revision", "variant", "onnxruntime", "uvloop", "Python 3."):
        assert word in out
    code, out, _ = run(capsys, "--version", "-v", "--json")
    assert code == 0
    assert json.loads(out)["version"] == __version__
    assert cli_version.package_version("no-such-package-at-all") is None


def test_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "inspect", DEMO_FILE)
    assert code == 0
    for text in (
        "29.3 kB",
        "IR 8, opset ai.onnx 17",
        "2 Gemm",
        "image  FP32 [batch,64]",
        "label  INT64 [batch]",
        "batching  yes: axis 'batch' is free on every input and output",
    ):
        assert text in out
    assert run(capsys, "inspect", str(files.MODEL / "1")) == (0, out, "")


def test_inspect_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "inspect", "--json", DEMO_FILE)
    document = json.loads(out)
    assert code == 0
    assert document["inputs"] == [{"name": "image", "datatype": "FP32", "shape": ["batch", 64]}]
    assert document["batching"]["batched"] is True
    assert document["opsets"] == {"ai.onnx": 17}
    assert document["served"] is True


def test_inspect_says_why_not(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_writer.identity("FP32", [3] * 9))
    code, out, _ = run(capsys, "inspect", str(path))
    assert code == 0
    assert "no: served one request at a time: input 'x' has a fixed first axis in [3,3,3," in out
    assert "served    no: input 'x' has 9 dimensions; at most 8 are served" in out


def test_inspect_names_cannot_drive_a_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    graph = onnx_writer.Graph("g")
    graph.input("x\x1b[2J", "FP32", [-1])
    graph.node("Re\x07lu", ["x\x1b[2J"], ["y"])
    graph.output("y", "FP32", [-1])
    path = tmp_path / "m.onnx"
    path.write_bytes(graph.model())
    _, out, _ = run(capsys, "inspect", str(path))
    assert "\x1b" not in out and "\x07" not in out
    assert "x\\x1b[2J" in out


@pytest.mark.parametrize(("content", "code"), [(b"", 65), (b"hello", 65), (None, 66)])
def test_inspect_of_no_model(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes | None, code: int
) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    found, out, err = run(capsys, "inspect", str(path))
    assert (found, out) == (code, "")
    assert str(path) in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CommandError("it is\nso", 75), 75, "headrace: it is\\nso\n"),
        (InternalError("ours"), 70, "headrace: ours\n"),
        (RuntimeError("boom"), 70, "this is a bug in headrace"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_how_commands_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def fail(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr("server.cli_version.run", fail)
    found, _, err = run(capsys, "version")
    assert found == code
    assert said in err


def test_output_into_a_closed_pipe() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "server", "--help"], cwd=ROOT, stdout=write_end, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_terminal_that_knows_ascii_only(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_writer.identity("FP32", [-1]).replace(b"onnx_writer", "größe 1.0".encode()))
    done = subprocess.run(
        [sys.executable, "-m", "server", "inspect", str(path)],
        cwd=ROOT,
        env={"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"made by gr??e 1.0" in done.stdout


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("server.cli", {"argparse", "dataclasses", "pathlib", "json", "server.config"}),
        ("server.cli_serve", {"http.client", "difflib", "server.models.onnx_file", "server.supervisor.banner"}),
        ("server.cli_infer", {"server.config", "server.models.onnx_file"}),
        ("server.cli_version", {"importlib.metadata", "server.config"}),
    ],
)
def test_nothing_is_imported_before_it_is_needed(module: str, forbidden: set[str]) -> None:
    script = f"import {module}, sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-S", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & (forbidden | {"numpy", "onnxruntime", "uvloop", "asyncio", "server.supervisor.process"})


@pytest.mark.slow
@pytest.mark.parametrize(("module", "limit_ms"), [("server.cli", 30), ("server.cli_serve", 60)])
def test_import_time(module: str, limit_ms: int) -> None:
    """Processor time, and the best of a few: the machine may be busy, the modules are the same."""
    script = f"import time; begin = time.process_time_ns(); import {module}; print(time.process_time_ns() - begin)"
    command = [sys.executable, "-c", script]
    runs = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True) for _ in range(5)]
    assert min(int(done.stdout) for done in runs) < limit_ms * 1_000_000
