"""Command lines of other servers: a table of their flags, a parser for their syntax, and the way to `headrace serve`.

A flag is mapped (it becomes a setting of headrace), ignored (taken, and one line says why it has no effect), or
refused (what it asks for cannot be had, and starting without it would be worse than not starting). A flag that is in
no table is an error with the nearest one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from server import config
from server.cli_parser import CommandError, nearest
from server.config import ModelSource
from server.option_values import Value

Kind = Literal["text", "whole", "decimal", "bool", "bare"]

_TRUE = ("true", "on", "1", "yes")
_FALSE = ("false", "off", "0", "no")
_SHOWN_KINDS = {"text": "=TEXT", "whole": "=N", "decimal": "=NUMBER", "bool": "=true|false", "bare": ""}


@dataclass(frozen=True, slots=True)
class Flag:
    """One row. `text` is, by role: what the flag becomes, why it has no effect, why it is refused.

    `setting`: the option of config that takes the value as it is. `agrees`: values that ask for what happens anyway, so
    they are neither reported nor refused.
    """

    name: str
    kind: Kind
    role: Literal["mapped", "ignored", "refused"]
    text: str
    setting: str = ""
    agrees: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        return f"--{self.name}{_SHOWN_KINDS[self.kind]}"


def mapped(name: str, kind: Kind, text: str, setting: str = "") -> Flag:
    return Flag(name, kind, "mapped", text, setting)


def ignored(name: str, kind: Kind, why: str, *agrees: str) -> Flag:
    return Flag(name, kind, "ignored", why, agrees=agrees)


def refused(name: str, kind: Kind, why: str, *agrees: str) -> Flag:
    return Flag(name, kind, "refused", why, agrees=agrees)


@dataclass(slots=True)
class Given:
    """What a command line says: flag -> its values in order, checked for their kind and normalised (true, false)."""

    values: dict[str, list[str]]

    def last(self, name: str, default: str = "") -> str:
        return self.values.get(name, [default])[-1]

    def all(self, name: str) -> list[str]:
        return self.values.get(name, [])

    def is_true(self, name: str, *, default: bool = False) -> bool:
        return self.last(name, "true" if default else "false") == "true"

    def number(self, name: str, default: int) -> int:
        return int(self.last(name, str(default)))


@dataclass(slots=True)
class Settings:
    """What becomes of it: values for config.OPTIONS by name, where the models are, and lines for the user."""

    flags: dict[str, Value] = field(default_factory=dict)
    sources: tuple[ModelSource, ...] = ()
    notices: list[str] = field(default_factory=list)

    def clamp(self, name: str, flag: str, value: int, low: int, high: int) -> None:
        """Sets a whole number as near to `value` as the bounds of its option allow, and says so."""
        self.flags[name] = min(max(value, low), high)
        if self.flags[name] != value:
            self.notices.append(f"{flag} is {self.flags[name]} here, not {value}: the bounds are {low} and {high}")


@dataclass(frozen=True, slots=True)
class Program:
    """A server whose command line is understood. `translate` adds what a row cannot say alone; it may raise UsageError.

    `defaults`: its own, for settings that neither a flag nor a variable HEADRACE_... names.
    """

    name: str
    about: str
    flags: tuple[Flag, ...]
    defaults: Mapping[str, Value]
    translate: Callable[[Given, Settings], None]

    def flag(self, name: str) -> Flag | None:
        wanted = name.replace("_", "-")
        return next((flag for flag in self.flags if flag.name.replace("_", "-") == wanted), None)


class UsageError(CommandError):
    """A command line that cannot be carried out; the text names the flag."""

    def __init__(self, text: str) -> None:
        super().__init__(text, os.EX_USAGE)


def run(program: Program, arguments: Sequence[str]) -> int:
    """Serves as `program` would with these arguments; the exit status."""
    try:
        if any(argument.lstrip("-") in ("help", "h") for argument in arguments if argument.startswith("-")):
            sys.stdout.write(usage(program))
            return os.EX_OK
        settings = translate(program, parse(program, arguments))
    except UsageError as error:
        _stop(program, str(error))
    if settings is None:
        from server import __version__

        sys.stdout.write(f"{program.about}: headrace {__version__}\n")
        return os.EX_OK
    for notice in settings.notices:
        sys.stderr.write(f"{program.name}: {notice}\n")
    from server.supervisor.process import run as supervise

    return supervise(serve_config(program, settings, os.environ))


def _stop(program: Program, text: str) -> NoReturn:
    sys.stderr.write(f"{program.name}: {text}\nSee {program.name} --help\n")
    raise SystemExit(os.EX_USAGE)


def parse(program: Program, arguments: Sequence[str]) -> Given:
    """--flag=value, --flag value, -flag, --flag for a truth; - and _ are the same in a name. Raises UsageError."""
    values: dict[str, list[str]] = {}
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("-") or word in ("-", "--"):
            raise UsageError(f"unexpected argument {word!r}")
        name, has_value, text = word.lstrip("-").partition("=")
        flag = program.flag(name)
        if flag is None:
            near = nearest("--" + name, ["--" + known.name for known in program.flags])
            raise UsageError(f"unknown option {word.partition('=')[0]}" + (f": did you mean {near}?" if near else ""))
        if flag.kind == "bare":
            if has_value and text.lower() not in _TRUE:
                raise UsageError(f"--{flag.name} takes no value, got {text!r}")
            text = "true"
        elif not has_value:
            follows = waiting[0] if waiting else ""
            if flag.kind == "bool":
                text = waiting.pop(0) if follows.lower() in _TRUE + _FALSE else "true"
            elif not waiting or (follows.startswith("--") and program.flag(follows.lstrip("-").partition("=")[0])):
                raise UsageError(f"--{flag.name} expects a value")
            else:
                text = waiting.pop(0)
        values.setdefault(flag.name, []).append(_checked(flag, text))
    return Given(values)


def _checked(flag: Flag, text: str) -> str:
    try:
        if flag.kind == "bool":
            if text.lower() not in _TRUE + _FALSE:
                raise ValueError("expected true or false")
            return "true" if text.lower() in _TRUE else "false"
        if flag.kind == "whole":
            return str(int(text))
        if flag.kind == "decimal":
            float(text)
    except ValueError as error:
        expected = str(error) if flag.kind == "bool" else "expected a number"
        raise UsageError(f"--{flag.name}: {expected}, got {text!r}") from None
    return text


def translate(program: Program, given: Given) -> Settings | None:
    """The settings; None when only the version is asked for. Raises UsageError."""
    if given.is_true("version"):
        return None
    settings = Settings()
    for flag in program.flags:
        texts = given.all(flag.name)
        if not texts:
            continue
        if flag.setting:
            settings.flags[flag.setting] = _value(flag, texts)
        differs = any(text.lower() not in flag.agrees for text in texts)
        if flag.role == "refused" and differs:
            raise UsageError(f"--{flag.name} is refused: {flag.text}")
        if flag.role == "ignored" and differs:
            settings.notices.append(f"--{flag.name} has no effect: {flag.text}")
    program.translate(given, settings)
    return settings


def _value(flag: Flag, texts: Sequence[str]) -> Value:
    option = config.BY_NAME[flag.setting]
    try:
        return option.parse(",".join(texts) if option.is_list else texts[-1])
    except ValueError as error:
        raise UsageError(f"--{flag.name}: {error}") from None


def set_value(settings: Settings, setting: str, flag: str, text: str) -> None:
    """Sets one option from text; its error names the flag that was given. Raises UsageError."""
    try:
        settings.flags[setting] = config.BY_NAME[setting].parse(text)
    except ValueError as error:
        raise UsageError(f"--{flag}: {error}") from None


def serve_config(program: Program, settings: Settings, environ: Mapping[str, str]) -> config.ServeConfig:
    """Flags over variables over the program's defaults over headrace's."""
    unset = {
        name: value for name, value in program.defaults.items() if not environ.get(config.BY_NAME[name].variable, "")
    }
    return config.load(
        {**unset, **settings.flags}, sources=settings.sources, environ=environ, on_terminal=config.is_on_terminal()
    )


def usage(program: Program) -> str:
    lines = [
        f"{program.name}: headrace with the command line of {program.about}.",
        "",
        "headrace's own settings are environment variables, HEADRACE_WORKERS=4; see `headrace serve --help`.",
        "",
    ]
    for role, heading in (
        ("mapped", "Taken over:"),
        ("ignored", "Accepted, without effect:"),
        ("refused", "Refused:"),
    ):
        lines.append(heading)
        lines += [f"  {flag.shown:<52}  {flag.text}" for flag in program.flags if flag.role == role]
        lines.append("")
    return "\n".join(lines)
