"""The command line's entry: finds the subcommand, runs it, turns errors into one line on stderr and an exit code.

Nothing is imported before the subcommand is known, so `headrace version` costs an interpreter and little more. Exit
codes are those of sysexits.h (os.EX_*): 64 usage, 65 bad input, 66 not found, 69 unreachable, 75 try again, 78
configuration.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

#: Subcommand -> one line for the overview.
SUBCOMMANDS = {
    "serve": "serve a model file, a directory or a repository; without PATH the demo model",
    "infer": "ask a running server once and print the answer as a table",
    "ps": "print the models of a running server: state, requests, memory",
    "load": "have a running server load a model, or its changed files",
    "unload": "have a running server unload a model",
    "inspect": "print what an ONNX file takes, gives, and whether it batches; loads nothing",
    "explain": "print how a model would be served, and why, as a config.pbtxt",
    "example": "print a client for a model: curl or python",
    "version": "print the version; -v everything about the build",
}

#: Other servers whose command lines are understood, under their names or with `serve --as`.
DROP_INS = ("tritonserver", "tensorflow_model_server")

OVERVIEW = """\
headrace serves ONNX models over HTTP (KServe V2), batching requests in shared memory.

  headrace serve                              serve the built-in demo model
  headrace infer digits --random              ask it, from another terminal
  headrace serve model.onnx                   serve your model; nothing to configure

Also:
  headrace ps                                 what a running server serves
  headrace inspect model.onnx                 what a model takes and gives, and whether it batches
  headrace explain repository/NAME            how it would be served, as a config.pbtxt
  headrace example digits --lang python       a client to start from
  headrace COMMAND --help                     all options
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `headrace ARGUMENTS...` and returns the exit code."""
    called_as = os.path.basename(sys.argv[0]) if argv is None else ""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a question mark, not a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        if called_as in DROP_INS:
            arguments = ["serve", "--as", called_as, *arguments]
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else os.EX_SOFTWARE
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) has enough. What is still buffered would fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return os.EX_OK
    except Exception as error:
        return _failed(error)


def _dispatch(arguments: list[str]) -> int:
    first = arguments[0] if arguments else ""
    if first in ("", "-h", "--help", "help"):
        if first == "help" and len(arguments) > 1:
            return _dispatch([arguments[1], "--help"])
        sys.stdout.write(OVERVIEW if first == "" else _full_help())
        return os.EX_OK
    if first in ("--version", "-V"):
        return _command("version")(arguments[1:])
    if first in SUBCOMMANDS:
        return _command(first)(arguments[1:])
    return _unknown(first)


def _command(name: str) -> Callable[[list[str]], int]:
    """The subcommand's function. Plain import statements: the executable's build finds them."""
    if name == "serve":
        from server.cli_serve import run
    elif name == "infer":
        from server.cli_infer import run
    elif name == "ps":
        from server.cli_ps import run
    elif name == "load":
        from server.cli_models import load as run
    elif name == "unload":
        from server.cli_models import unload as run
    elif name == "inspect":
        from server.cli_inspect import run
    elif name == "explain":
        from server.cli_explain import run
    elif name == "example":
        from server.cli_example import run
    else:
        from server.cli_version import run
    return run


def _full_help() -> str:
    lines = [f"  {name:<8}  {text}" for name, text in SUBCOMMANDS.items()]
    return OVERVIEW + "\nCommands:\n" + "\n".join(lines) + "\n"


def _unknown(word: str) -> int:
    from server.cli_parser import nearest

    kind = "option" if word.startswith("-") else "command"
    hint = nearest(word, [*SUBCOMMANDS, "--help", "--version"])
    if kind == "command" and (word.endswith(".onnx") or os.sep in word):
        hint = f"serve {word}"
    advice = f"did you mean {hint}?" if hint else f"expected one of {', '.join(SUBCOMMANDS)}"
    sys.stderr.write(f"headrace: unknown {kind} {word!r}: {advice}\n")
    return os.EX_USAGE


def _failed(error: Exception) -> int:
    """An expected error is one line; anything else is a bug and shows where it is."""
    from server.errors import ConfigurationError, HeadraceError
    from server.log import escape

    if isinstance(error, HeadraceError):
        sys.stderr.write(f"headrace: {escape(str(error))}\n")
        code = getattr(error, "exit_code", os.EX_CONFIG if isinstance(error, ConfigurationError) else os.EX_SOFTWARE)
        return int(code)
    import traceback

    traceback.print_exc()
    sys.stderr.write("headrace: this is a bug in headrace; please report it with the lines above\n")
    return os.EX_SOFTWARE
