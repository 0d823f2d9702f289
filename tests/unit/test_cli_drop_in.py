"""Command lines of other servers: each row of the tables, their syntax, and the page that lists them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from server import cli, cli_tensorflow_model_server, cli_tritonserver, config
from server.cli_drop_in import Flag, Program, Settings, UsageError, parse, serve_config, translate
from server.config import ModelSource, ServeConfig, VersionPolicy
from server.option_values import OFF, SAME
from tools import drop_in

TRITON = cli_tritonserver.PROGRAM
TFS = cli_tensorflow_model_server.PROGRAM
#: What each command line needs besides the flag that is tested.
NEEDED = {"tritonserver": ["--model-repository=/m"], "tensorflow_model_server": ["--model_base_path=/m"]}
ROWS = [(program, flag) for program in (TRITON, TFS) for flag in program.flags]
IDS = [f"{program.name}-{flag.name}" for program, flag in ROWS]
#: A value that no row agrees with, and that every option a row sets takes.
SAMPLES = {"text": "odd", "whole": "77", "decimal": "1.5", "bare": ""}
SPECIAL = {
    "http-address": "::1",
    "grpc-address": "::1",
    "metrics-address": "::1",
    "model-control-mode": "explicit",
    "id": "name",
}

CHANNEL_ARGUMENTS = "--grpc_channel_arguments=" + ",".join(
    (
        "grpc.max_connection_age_ms=2000",
        " grpc.max_connection_age_grace_ms=10",
        "grpc.max_concurrent_streams=9",
        "grpc.max_receive_message_length=1000",
        "grpc.http2.min_ping_interval_without_data_ms=3000",
    )
)


def settings(program: Program, *arguments: str, bare: bool = False) -> Settings:
    found = translate(program, parse(program, [*([] if bare else NEEDED[program.name]), *arguments]))
    assert found is not None
    return found


def configured(program: Program, *arguments: str, **environ: str) -> ServeConfig:
    return serve_config(program, settings(program, *arguments), environ)


def sample(flag: Flag) -> str:
    if flag.kind == "bool":
        return "--" + flag.name + ("=false" if flag.agrees == ("true",) else "=true")
    value = SPECIAL.get(flag.name, SAMPLES[flag.kind])
    return f"--{flag.name}={value}" if value else f"--{flag.name}"


@pytest.mark.parametrize(("program", "flag"), ROWS, ids=IDS)
def test_each_row(program: Program, flag: Flag) -> None:
    named = f"--{flag.name} "
    if flag.role == "refused":
        with pytest.raises(UsageError, match=f"--{flag.name} is refused: {flag.text[:20]}"):
            settings(program, sample(flag))
        for value in filter(None, flag.agrees):
            assert not settings(program, f"--{flag.name}={value}").notices
    elif flag.role == "ignored":
        before = settings(program)
        after = settings(program, sample(flag))
        assert [line for line in after.notices if line.startswith(named)] == [f"{named}has no effect: {flag.text}"]
        assert (after.flags, after.sources) == (before.flags, before.sources)
        for value in filter(None, flag.agrees):
            assert not settings(program, f"--{flag.name}={value.upper()}").notices
    elif flag.setting:
        found = settings(program, sample(flag)).flags[flag.setting]
        assert found != config.BY_NAME[flag.setting].default
        assert found in (True, 77, 77.0, ("odd",), SPECIAL.get(flag.name))


def test_every_mapped_row_is_a_setting_or_has_a_test_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    for _, flag in ROWS:
        if flag.role == "mapped" and not flag.setting:
            assert text.count(f"--{flag.name}") > 0, flag.name


@pytest.mark.parametrize(("program", "flag"), ROWS, ids=IDS)
def test_rows_are_well_formed(program: Program, flag: Flag) -> None:
    assert [other.name for other in program.flags].count(flag.name) == 1
    assert flag.text and not flag.text.endswith(".") and flag.text.isascii()
    assert not (flag.setting and flag.role != "mapped") and not (flag.agrees and flag.role == "mapped")
    assert flag.setting in ("", *config.BY_NAME)


def test_no_headrace_option_of_a_known_flag_is_mapped_twice() -> None:
    for program in (TRITON, TFS):
        targets = [flag.setting for flag in program.flags if flag.setting]
        assert len(targets) == len(set(targets))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--http-port=9000"],
        ["--http-port", "9000"],
        ["-http-port=9000"],
        ["--http_port=9000"],
        ["--http-port=1", "--http-port=9000"],
        ["--http-port=9000", "--allow-http"],
        ["--http-port=9000", "--allow-http", "TRUE"],
        ["--allow-http", "--http-port=9000"],
        ["--allow-http=1", "--http-port=9000"],
    ],
)
def test_syntax(arguments: list[str]) -> None:
    assert settings(TRITON, *arguments).flags == {"http_port": 9000}


@pytest.mark.parametrize(
    ("program", "arguments", "text"),
    [
        (TRITON, ["--modl-repository=x"], "unknown option --modl-repository: did you mean --model-repository?"),
        (TFS, ["--rest-api-prt", "1"], "unknown option --rest-api-prt: did you mean --rest_api_port?"),
        (TRITON, ["--zzzzqqqq"], "unknown option --zzzzqqqq$"),
        (TRITON, ["models"], "unexpected argument 'models'"),
        (TRITON, ["--"], "unexpected argument '--'"),
        (TRITON, ["--http-port"], "--http-port expects a value"),
        (TRITON, ["--http-port", "--allow-http"], "--http-port expects a value"),
        (TRITON, ["--http-port=http"], "--http-port: expected a number, got 'http'"),
        (TRITON, ["--http-port=70000"], "--http-port: expected a whole number from 0 to 65535"),
        (TRITON, ["--http-port=-1"], "--http-port: expected a whole number"),
        (TRITON, ["--allow-http=maybe"], "--allow-http: expected true or false, got 'maybe'"),
        (TRITON, ["--disable-auto-complete-config=false"], "--disable-auto-complete-config takes no value"),
        (TRITON, ["--metrics-interval-ms=x"], "--metrics-interval-ms: expected a number"),
        (TRITON, ["--log-format=json"], "--log-format: expected default or ISO8601"),
        (TRITON, ["--log-verbose=loud"], "--log-verbose: expected a number, true or false"),
        (TRITON, ["--backend-config=onnxruntime"], r"--backend-config: expected \[BACKEND,\]SETTING=VALUE"),
        (TRITON, ["--backend-config=default-max-batch-size=x"], "default-max-batch-size: expected a whole number"),
        (TRITON, ["--model-repository=s3://bucket/x"], "--model-repository: expected a directory of this host"),
        (TFS, ["--model_base_path=gs://bucket/x"], "--model_base_path: expected a path of this host"),
        (TFS, ["--port=0"], "--port: expected a port or --grpc_socket_path"),
        (TFS, ["--batching_parameters_file=x"], "--batching_parameters_file: expected --enable_batching beside it"),
        (TFS, ["--grpc_socket_path=/" + "x" * 120], "--grpc_socket_path: expected the path of a socket"),
        (
            TFS,
            ["--grpc_channel_arguments=grpc.max_connection_age_ms=x"],
            "age_ms: expected a whole number",
        ),
    ],
)
def test_usage_errors(program: Program, arguments: list[str], text: str) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        settings(program, *arguments)
    assert caught.value.exit_code == 64


@pytest.mark.parametrize(
    ("program", "text"),
    [
        (TRITON, "expected --model-repository PATH"),
        (TFS, "expected --model_base_path PATH or --model_config_file FILE"),
    ],
)
def test_models_are_needed(program: Program, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        settings(program, bare=True)


def test_defaults_of_tritonserver() -> None:
    found = configured(TRITON)
    assert (found.host, found.grpc_host, found.metrics_host) == ("0.0.0.0", "0.0.0.0", "0.0.0.0")
    assert (found.http_port, found.grpc_port, found.metrics_port) == (8000, 8001, 8002)
    assert (found.server_name, found.sources) == ("triton", (ModelSource(Path("/m")),))
    assert settings(TRITON).notices == []


def test_defaults_of_tensorflow_model_server() -> None:
    found = configured(TFS)
    assert (found.host, found.http_port, found.grpc_port, found.metrics_port) == ("0.0.0.0", OFF, 8500, SAME)
    assert (found.sources, found.kserve_v1_status) == ((ModelSource(Path("/m"), "default"),), False)
    assert (found.model_control_mode, found.repository_poll_secs) == ("poll", 1)
    assert settings(TFS).notices == []


def test_flags_over_variables_over_the_programs_defaults() -> None:
    assert configured(TRITON, HEADRACE_HOST="127.0.0.1").host == "127.0.0.1"
    assert configured(TRITON, "--http-address=::1", HEADRACE_HOST="127.0.0.1").host == "::1"
    found = configured(TRITON, HEADRACE_WORKERS="7", HEADRACE_SERVER_NAME="mine", HEADRACE_GRPC_PORT="")
    assert (found.workers, found.server_name, found.grpc_port) == (7, "mine", 8001)


@pytest.mark.parametrize(
    ("program", "arguments", "expected"),
    [
        (TRITON, ["--allow-http=false", "--http-port=9000"], {"http_port": OFF, "grpc_port": 8001}),
        (TRITON, ["--allow-grpc=0"], {"http_port": 8000, "grpc_port": OFF}),
        (TRITON, ["--allow-metrics=off"], {"metrics_port": OFF}),
        (TRITON, ["--allow-http=true", "--allow-grpc=true"], {"http_port": 8000, "grpc_port": 8001}),
        (TRITON, ["--http-address=127.0.0.1"], {"host": "127.0.0.1", "grpc_host": "127.0.0.1"}),
        (TRITON, ["--exit-timeout-secs=5"], {"drain_timeout_s": 5.0}),
        (TRITON, ["--log-verbose=1"], {"log_level": "debug"}),
        (TRITON, ["--log-verbose=true", "--log-info=false"], {"log_level": "debug"}),
        (TRITON, ["--log-verbose=0"], {"log_level": "info"}),
        (TRITON, ["--log-info=false"], {"log_level": "warning"}),
        (TRITON, ["--log-info=false", "--log-warning=false"], {"log_level": "error"}),
        (TRITON, ["--log-format=ISO8601"], {"log_format": "text"}),
        (TRITON, ["--grpc-max-connection-age=60000"], {"max_connection_age_s": 60.0}),
        (TRITON, ["--grpc-max-connection-age=5"], {"max_connection_age_s": 1.0}),
        (TRITON, ["--grpc-max-connection-age=0"], {"max_connection_age_s": 0.0}),
        (TRITON, ["--grpc-max-connection-age-grace=2500"], {"max_connection_age_grace_s": 2.5}),
        (TRITON, ["--grpc-http2-min-recv-ping-interval-without-data=500"], {"min_ping_interval_s": 0.5}),
        (TRITON, ["--backend-config=onnxruntime,default-max-batch-size=8"], {"max_batch_size": 8}),
        (TRITON, ["--backend-config=default-max-batch-size=0"], {"max_batch_size": 1}),
        (TRITON, ["--http-max-input-size=1000000"], {"max_body_bytes": 1000000}),
        (
            TRITON,
            ["--model-control-mode=explicit", "--load-model=a", "--load-model=b"],
            {"model_control_mode": "explicit", "load_model": ("a", "b")},
        ),
        (
            TRITON,
            ["--model-control-mode=poll", "--repository-poll-secs=3"],
            {"model_control_mode": "poll", "repository_poll_secs": 3},
        ),
        (
            TRITON,
            ["--model-repository=/n", "--model-store=/s"],
            {"sources": (ModelSource(Path("/m")), ModelSource(Path("/n")), ModelSource(Path("/s")))},
        ),
        (TFS, ["--port=9000", "--rest_api_port=8080"], {"grpc_port": 9000, "http_port": 8080}),
        (TFS, ["--port=0", "--grpc_socket_path=/run/s"], {"grpc_port": OFF, "http_port": OFF, "uds": ("/run/s",)}),
        (TFS, ["--rest_api_enable_cors_support"], {"cors": ("*",)}),
        (TFS, ["--model_name=mnist"], {"sources": (ModelSource(Path("/m"), "mnist"),)}),
        (TFS, ["--file_system_poll_wait_seconds=0"], {"model_control_mode": "none"}),
        (TFS, ["--file_system_poll_wait_seconds=9"], {"model_control_mode": "poll", "repository_poll_secs": 9}),
        (TFS, ["--tensorflow_intra_op_parallelism=3"], {"intra_op_threads": 3}),
        (TFS, ["--tensorflow_session_parallelism=3"], {"intra_op_threads": 3}),
        (TFS, ["--enable_serialization_as_tensor_content"], {"enable_serialization_as_tensor_content": True}),
        (
            TFS,
            [CHANNEL_ARGUMENTS],
            {
                "max_connection_age_s": 2.0,
                "max_connection_age_grace_s": 1.0,
                "max_concurrent_streams": 9,
                "max_body_bytes": 1000,
                "min_ping_interval_s": 3.0,
            },
        ),
    ],
)
def test_what_becomes_of_flags(program: Program, arguments: list[str], expected: dict[str, object]) -> None:
    found = configured(program, *arguments)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("program", "arguments", "notice"),
    [
        (TRITON, ["--backend-config=tensorflow,version=2"], "there is no backend tensorflow"),
        (TRITON, ["--backend-config=onnxruntime,threads=2"], "ONNX Runtime is built in"),
        (TRITON, ["--backend-config=default-max-batch-size=5000"], "is 4095 here, not 5000: the bounds are 1 and 4095"),
        (TFS, ["--grpc_channel_arguments=grpc.so_reuseport=1"], "grpc.so_reuseport in --grpc_channel_arguments"),
        (TFS, ["--rest_api_port=8500"], "--rest_api_port: 8500 is that of --port too; it speaks both"),
        (TFS, ["--file_system_poll_wait_seconds=100000"], "--file_system_poll_wait_seconds is 86400 here"),
    ],
)
def test_what_is_said(program: Program, arguments: list[str], notice: str) -> None:
    (line,) = settings(program, *arguments).notices
    assert notice in line


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_of_models(tmp_path: Path) -> None:
    text = """
        model_config_list {
          config {
            name: "mnist" base_path: "/models/mnist" model_platform: "tensorflow"
            model_version_policy { specific { versions: 1 versions: 3 } }
            version_labels { key: "stable" value: 1 }
          }
          config: { name: 'b', base_path: '/b', model_version_policy: { all: {} } }
          config { name: "c" base_path: "/c" model_version_policy { latest { num_versions: 2 } } }
          config { name: "d" base_path: "/d" model_version_policy { latest {} } }
        }"""
    path = write(tmp_path / "models.config", text)
    found = settings(TFS, f"--model_config_file={path}", "--model_name=x", bare=True)
    assert found.sources == (
        ModelSource(Path("/models/mnist"), "mnist", VersionPolicy("specific", versions=(1, 3)), (("stable", 1),)),
        ModelSource(Path("/b"), "b", VersionPolicy("all")),
        ModelSource(Path("/c"), "c", VersionPolicy("latest", count=2)),
        ModelSource(Path("/d"), "d"),
    )
    assert found.notices == ["--model_name has no effect: --model_config_file names the models"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model_config_list { confg {} }", "expected the text of a ModelServerConfig; 1:21 .* no field named .confg"),
        ("", "expected a model_config_list with models in it, found none"),
        ("model_config_list { config { name: 'a' } }", "expected a name and a base_path, model 1 has not both"),
        (
            "model_config_list { config { name: 'a' base_path: '/a' } config { name: 'a' base_path: '/b' } }",
            "expected one model of each name, 'a' is there twice",
        ),
        ("model_config_list { config { name: 'a' base_path: 's3://a' } }", "expected a path of this host"),
        (
            "model_config_list { config { name: 'a' base_path: '/a' model_version_policy { specific {} } } }",
            "expected versions in specific of 'a'",
        ),
    ],
)
def test_files_of_models_that_are_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / "models.config", text)
    with pytest.raises(UsageError, match=f"--model_config_file: .*{said}"):
        settings(TFS, f"--model_config_file={path}", bare=True)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--model_config_file: cannot read .*: No such file"):
        settings(TFS, f"--model_config_file={tmp_path / 'none'}", bare=True)


def test_a_file_of_batching_parameters(tmp_path: Path) -> None:
    text = """
        max_batch_size { value: 128 }  batch_timeout_micros { value: 500 }
        max_enqueued_batches { value: 10 }  num_batch_threads { value: 100 }
        allowed_batch_sizes: 64  allowed_batch_sizes: 128  pad_variable_length_inputs: true"""
    path = write(tmp_path / "batching", text)
    found = settings(TFS, "--enable_batching", f"--batching_parameters_file={path}")
    names = ("max_batch_size", "max_queue_delay_us", "queue_rows", "instances")
    assert [found.flags[name] for name in names] == [128, 500, 1280, 32]
    assert [line.split(" ")[0] for line in found.notices] == [
        "num_batch_threads",
        "allowed_batch_sizes",
        "pad_variable_length_inputs",
    ]


def test_batches_that_are_split(tmp_path: Path) -> None:
    sizes = "max_batch_size { value: 5000 } max_execution_batch_size { value: 32 }"
    path = write(tmp_path / "batching", sizes + " enable_large_batch_splitting { value: true }")
    found = settings(TFS, "--enable_batching=true", f"--batching_parameters_file={path}")
    assert found.flags["max_batch_size"] == 32 and found.notices == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_batch_size { value: 0 }", "expected a max_batch_size of at least 1, got 0"),
        ("max_batch_size: 5", "expected the text of a BatchingParameters"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4", "expected rising allowed_batch_sizes"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [8, 4, 8]", "expected rising allowed_batch_sizes"),
    ],
)
def test_batching_parameters_that_are_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / "batching", text)
    with pytest.raises(UsageError, match=f"--batching_parameters_file: .*{said}"):
        settings(TFS, "--enable_batching", f"--batching_parameters_file={path}")


@pytest.mark.parametrize("program", [TRITON, TFS], ids=lambda program: program.name)
def test_help_and_version(capsys: pytest.CaptureFixture[str], program: Program) -> None:
    for arguments in (["--help"], ["-h"]):
        assert cli.main(["serve", "--as", program.name, *arguments]) == 0
        out = capsys.readouterr().out
        assert all(f"  {flag.shown} " in out and flag.text in out for flag in program.flags)
    assert cli.main(["serve", f"--as={program.name}", "--version"]) == 0
    assert capsys.readouterr().out.startswith(f"{program.about}: headrace ")


def test_as_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--workers", "1", "--as", "tritonserver"]) == 64
    assert "--as comes first, and what follows it is that program's command line" in capsys.readouterr().err
    assert cli.main(["serve", "--help"]) == 0
    assert "--as PROGRAM" in capsys.readouterr().out


def test_the_command_lines_of_kserves_runtimes() -> None:
    line = "--model-store=/mnt/models --grpc-port=9000 --http-port=8080 --allow-grpc=true --allow-http=true"
    found = settings(TRITON, *line.split(), bare=True)
    ports = (found.flags["http_port"], found.flags["grpc_port"])
    assert (ports, found.sources, found.notices) == ((8080, 9000), (ModelSource(Path("/mnt/models")),), [])
    line = (
        "--model_name=m --port=9000 --rest_api_port=8080 --model_base_path=/mnt/models --rest_api_timeout_in_ms=60000"
    )
    found = settings(TFS, *line.split(), bare=True)
    ports = (found.flags["http_port"], found.flags["grpc_port"])
    assert (ports, found.sources) == ((8080, 9000), (ModelSource(Path("/mnt/models"), "m"),))


@pytest.mark.parametrize("arguments", [["--as"], ["--as=x"], ["--as", "triton", "--model-store=x"]])
def test_programs_that_are_not_known(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert cli.main(["serve", *arguments]) == 64
    assert "--as: expected tritonserver or tensorflow_model_server, got" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("called", "prefix"),
    list(itertools.product(cli.DROP_INS, ["", "/opt/x/bin/", "./"])),
    ids=lambda part: part or "bare",
)
def test_the_name_it_is_called_by(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, called: str, prefix: str
) -> None:
    monkeypatch.setattr("sys.argv", [prefix + called, "--zzzzqqqq"])
    assert cli.main() == 64
    assert capsys.readouterr().err == f"{called}: unknown option --zzzzqqqq\nSee {called} --help\n"


def test_the_page_is_that_of_the_tables() -> None:
    assert drop_in.PAGE.read_text(encoding="utf-8") == drop_in.page(), "run `python tools/drop_in.py`"
