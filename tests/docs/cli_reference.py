"""The documentation's reference of the command line; `python -m tests.docs.cli_reference` writes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from enum import Enum
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

import msgspec
import typer
from typer.models import ArgumentInfo, OptionInfo

from streamlib.cli.main import COMMANDS

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "cli.md"
BEGIN, END = "<!-- commands: begin -->\n", "<!-- commands: end -->\n"


class Parameter(msgspec.Struct, frozen=True):
    """An option or an argument. `names` of an argument is how it is shown."""

    names: tuple[str, ...]
    value: str  # what stands behind an option; nothing behind a switch
    text: str


class Command(msgspec.Struct, frozen=True):
    """A command with its whole path, `("broker", "start")`."""

    path: tuple[str, ...]
    text: str
    arguments: tuple[Parameter, ...]
    options: tuple[Parameter, ...]


def commands() -> Iterator[Command]:
    """In the order of `COMMANDS`."""
    for name, place in COMMANDS.items():
        module, _, attribute = place.partition(":")
        found = getattr(import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            yield _command((name,), found)
            continue
        for each in found.registered_commands:
            assert each.callback is not None
            yield _command((name, each.name or each.callback.__name__), each.callback)


def page_with(found: Iterator[Command]) -> str:
    """The page with these commands in it."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    return f"{head}{BEGIN}\n{chr(10).join(map(_section, found))}\n{END}{rest.partition(END)[2]}"


def _command(path: tuple[str, ...], function: Callable[..., Any]) -> Command:
    arguments, options = [], []
    hints = get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        type_, info = get_args(hints[parameter.name])
        if isinstance(info, ArgumentInfo):
            arguments.append(Parameter((info.metavar or parameter.name.upper(),), "", _text(info.help or "", None)))
        elif isinstance(info, OptionInfo) and not info.hidden:
            options.append(_option(parameter.name, type_, info, parameter.default))
    return Command(path, function.__doc__ or "", tuple(arguments), tuple(options))


def _option(name: str, type_: Any, info: OptionInfo, default: Any) -> Parameter:
    first = (info.default,) if isinstance(info.default, str) else ()  # as typer takes it inside of `Annotated`
    declared = tuple(each for each in (*first, *(info.param_decls or ())) if each.startswith("-"))
    plain = f"--{name.replace('_', '-')}"
    if type_ is bool:
        return Parameter(declared or (plain, f"--no-{plain[2:]}"), "", _text(info.help or "", None))
    return Parameter(declared or (plain,), info.metavar or _kind(type_), _text(info.help or "", default))


def _kind(type_: Any) -> str:
    """What a value is, as `--help` says it."""
    plain = next(each for each in get_args(type_) if each is not type(None)) if isinstance(type_, UnionType) else type_
    if issubclass(plain, Enum):
        return "|".join(str(each.value) for each in plain)
    return {str: "TEXT", int: "INTEGER", float: "FLOAT", Path: "PATH"}[plain]


def _text(help_: str, default: Any) -> str:
    told = help_.replace("\\[", "[").replace("|", "\\|")
    return told if default is None else f"{told} Default: `{default}`."


def _section(command: Command) -> str:
    path = " ".join(("streamlib", *command.path))
    usage = " ".join([path, "[OPTIONS]", *(each.names[0] for each in command.arguments)])
    lines = [f"### {path}", "", f"    {usage}", "", *_paragraphs(command.text)]
    rows = [f"| `{each.names[0]}` | {each.text} |" for each in command.arguments]
    for each in command.options:
        names = ", ".join(f"`{name}{' ' if each.value else ''}{each.value}`" for name in each.names)
        rows.append(f"| {names} | {each.text} |")
    if rows:
        lines += ["| | |", "| --- | --- |", *rows, ""]
    return "\n".join(lines)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        flat = " ".join(paragraph.split())
        yield f"    {flat.removeprefix('Example: ')}\n" if flat.startswith("Example: ") else f"{flat}\n"


if __name__ == "__main__":
    PAGE.write_text(page_with(commands()))
