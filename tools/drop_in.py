"""Writes docs/drop-in.md from the tables of flags: `python tools/drop_in.py`; a test compares the page with them."""

from __future__ import annotations

from pathlib import Path

from server import cli_tensorflow_model_server, cli_tritonserver
from server.cli_drop_in import Program

PAGE = Path(__file__).resolve().parent.parent / "docs" / "drop-in.md"

INTRODUCTION = """\
# In place of tritonserver and tensorflow_model_server

Called as `tritonserver` or `tensorflow_model_server`, headrace takes that program's command line, listens where it
would, and answers its clients. The name may be a link:

    ln -s headrace tritonserver
    ./tritonserver --model-repository=/models

or be said:

    headrace serve --as tritonserver --model-repository=/models
    headrace serve --as tensorflow_model_server --rest_api_port=8501 --model_name=mnist --model_base_path=/models/mnist

Models are ONNX files: `NAME/VERSION/model.onnx` in a repository, `VERSION/model.onnx` in a base path.

Flags are written as those programs take them: `--flag=value`, `--flag value`, `-flag=value`; a truth is `true`,
`false`, `1`, `0`, `on` or `off`, and a flag alone is true. `-` and `_` in a name are the same. An unknown flag ends the
start with exit code 64 and the nearest known one. Each flag that is taken and has no effect is named on stderr with the
reason, unless it asks for what happens anyway. headrace's own settings that have no flag there are environment
variables (`HEADRACE_WORKERS=4`, see `headrace serve --help`); a flag wins over them.

Every port speaks HTTP/1.1, HTTP/2 and gRPC, and all protocols, whatever the program would serve there.
"""

_NOTES = {
    "tritonserver": """\
Defaults: HTTP on 8000, gRPC on 8001, metrics on 8002, on all interfaces; the server's name is `triton`.
""",
    "tensorflow_model_server": """\
Defaults: gRPC on 8500, REST off, on all interfaces; the model's name is `default`; base paths are looked at every
second. `GET /metrics` is answered on the same ports. `GET /v1/models/NAME` has TensorFlow Serving's fields only.

`--model_config_file` is a `model_config_list` in protobuf's text format: `name`, `base_path`, `model_version_policy`
(`latest`, `all`, `specific`) and `version_labels` are read. Of `--batching_parameters_file`, `max_batch_size`,
`batch_timeout_micros`, `max_enqueued_batches` (times `max_batch_size` it is `--queue-rows`) and `num_batch_threads`
(`--instances`) are taken over; with `enable_large_batch_splitting`, `max_execution_batch_size` is the batch's size.
`allowed_batch_sizes`, `thread_pool_name` and `pad_variable_length_inputs` have no effect.
""",
}
_HEADINGS = {
    "mapped": ("Taken over", "becomes"),
    "ignored": ("Taken, without effect", "why"),
    "refused": ("Refused", "why"),
}


def page() -> str:
    """The text of docs/drop-in.md."""
    return "\n".join([INTRODUCTION, *map(_section, (cli_tritonserver.PROGRAM, cli_tensorflow_model_server.PROGRAM))])


def _section(program: Program) -> str:
    lines = [f"## {program.name}", "", _NOTES[program.name]]
    for role, (heading, column) in _HEADINGS.items():
        lines += [f"### {heading}", "", f"| flag | {column} |", "|---|---|"]
        for flag in program.flags:
            if flag.role == role:
                agrees = " (nothing is said of " + ", ".join(map(_code, flag.agrees)) + ")" if any(flag.agrees) else ""
                lines.append(f"| {_code(flag.shown)} | {flag.text}{agrees} |".replace("=true|false", "=true\\|false"))
        lines.append("")
    return "\n".join(lines)


def _code(text: str) -> str:
    return f"`{text}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
