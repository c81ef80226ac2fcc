"""Command-line flags from a frozen dataclass: its fields, with its docstring as their help."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import re
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, NoReturn, TypeVar, Union

from medseg.core.errors import OptionError, suggestion

Options = TypeVar("Options")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionError(f"{message}\n{self.format_usage().strip()}")


def parse_options(
    options: type[Options], arguments: Sequence[str], verb: str, summary: str
) -> Options:
    """Parse the arguments of one verb.

    Args:
        options: A dataclass whose docstring documents each field under `Attributes:`.
        arguments: What followed the verb on the command line.
        verb: The verb, for the usage line.
        summary: What the verb does, for the help.

    Raises:
        OptionError: If an argument is unknown, missing or of the wrong kind.
        SystemExit: With status 0 after `--help`.
    """
    parser = build_parser(options, verb, summary)
    flags = [f"--{field.name}" for field in dataclasses.fields(options)]  # type: ignore[arg-type]
    known = {"--help", *flags, *(flag.replace("--", "--no-", 1) for flag in flags)}
    for word in (argument.split("=")[0] for argument in arguments):
        # Before argparse, which would only say that the flag meant is missing.
        if word.startswith("--") and word not in known:
            parser.error(f"no such flag: {word}.{suggestion(word, flags)}")
    values = vars(parser.parse_args(arguments))
    return options(**{k: _flat(v) if isinstance(v, list) else v for k, v in values.items()})


def _flat(items: Sequence[Any]) -> tuple[Any, ...]:
    """Return the values of a flag, those of one word with commas one by one."""
    return tuple(v for item in items for v in (item if isinstance(item, tuple) else (item,)))


def _choices(names: Sequence[str], word: str) -> tuple[str, ...]:
    """Return the choices in one word; some separate several by commas."""
    for name in word.split(","):
        if name not in names:
            listed = ", ".join(map(repr, names))
            raise argparse.ArgumentTypeError(f"invalid choice: {name!r} (choose from {listed})")
    return tuple(word.split(","))


def build_parser(options: type[Any], verb: str, summary: str) -> argparse.ArgumentParser:
    """Return the parser of one verb."""
    parser = _Parser(
        prog=f"medseg {verb}",
        description=summary,
        allow_abbrev=False,
    )
    hints = typing.get_type_hints(options)
    texts = field_docs(options)
    for field in dataclasses.fields(options):
        parser.add_argument(f"--{field.name}", **_argument(field, hints[field.name], texts))
    return parser


def field_docs(options: type[Any]) -> dict[str, str]:
    """Return the text of each field under `Attributes:` in the docstring of a dataclass."""
    section = re.split(r"^\s*Attributes:\s*$", options.__doc__ or "", flags=re.MULTILINE)[-1]
    texts: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if match := re.match(r"\s{4,8}(\w+): (.*)", line):
            name, texts[match[1]] = match[1], match[2]
        elif name and line.strip():
            texts[name] += f" {line.strip()}"
    return texts


def _argument(field: dataclasses.Field[Any], hint: Any, texts: dict[str, str]) -> dict[str, Any]:
    """Return the keywords of `add_argument` for one field."""
    required = field.default is dataclasses.MISSING
    text = texts[field.name]
    if not required and field.default not in (None, ()):
        text += f" (default: {_shown(field.default)})"
    # No default here: the dataclass has it, and a flag of several values would add to it.
    keywords: dict[str, Any] = {
        "help": text.replace("%", "%%"),
        "required": required,
        "default": argparse.SUPPRESS,
    }
    kind = _without_none(hint)
    if kind is bool:
        return {**keywords, "action": argparse.BooleanOptionalAction}
    if typing.get_origin(kind) is tuple:
        kind = typing.get_args(kind)[0]
        keywords |= {"nargs": "+", "action": "extend"}
        if typing.get_origin(kind) is Literal:
            names = typing.get_args(kind)
            several = functools.partial(_choices, names)
            return {**keywords, "type": several, "metavar": f"{{{','.join(names)}}}"}
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        return {**keywords, "choices": choices, "type": type(choices[0])}
    return {**keywords, "type": kind, "metavar": field.name.upper()}


def _shown(default: Any) -> str:
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (Union, types.UnionType):
        return next(arg for arg in typing.get_args(hint) if arg is not type(None))
    return hint
