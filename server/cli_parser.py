"""The argument parser all subcommands share: sysexits codes and "did you mean" instead of argparse's own ways."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

from server.errors import HeadraceError


class CommandError(HeadraceError):
    """A command ends with one line on stderr and this exit code."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Parser(argparse.ArgumentParser):
    """Exits with 64 on a usage error, names the nearest option for an unknown one, and takes no abbreviations: a flag
    added later must not change what an old command line means.
    """

    def __init__(self, command: str, description: str, examples: Sequence[str] = ()) -> None:
        super().__init__(
            prog=f"headrace {command}",
            description=description,
            epilog="examples:\n" + "\n".join(f"  {example}" for example in examples) if examples else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The parsed arguments; a usage error ends the program."""
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            self._refuse(unknown[0])
        return options

    def _refuse(self, word: str) -> NoReturn:
        if not word.startswith("-"):
            self.error(f"unexpected argument {word!r}")
        flag = word.partition("=")[0]
        hint = nearest(flag, self._option_string_actions)
        self.error(f"unknown option {flag!r}" + (f": did you mean {hint}?" if hint else ""))

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}\nSee {self.prog} --help\n")
        raise SystemExit(os.EX_USAGE)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one, if any is."""
    # Dear to import, and only needed on the way to an error.
    import difflib

    matches = difflib.get_close_matches(word, list(known), 1, cutoff=0.6)
    return matches[0] if matches else None
