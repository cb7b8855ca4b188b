"""Writes the reference of the commands from the commands themselves, when the documentation is built."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from importlib import import_module
from typing import Any

import typer
from typer.models import ArgumentInfo, OptionInfo

from streamlib.cli.main import COMMANDS

MARK = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page."""
    return markdown.replace(MARK, reference(COMMANDS)) if MARK in markdown else markdown


def reference(commands: Mapping[str, str]) -> str:
    """A section for each command; `commands` are names and places, MODULE:NAME."""
    return "\n\n".join(section(f"streamlib {name}", function) for name, function in functions(commands))


def functions(commands: Mapping[str, str]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Those of commands with commands of their own, too."""
    for name, place in commands.items():
        module, _, attribute = place.partition(":")
        found = getattr(import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            yield name, found
            continue
        for inner in found.registered_commands:
            assert inner.callback is not None
            yield f"{name} {inner.name or inner.callback.__name__}", inner.callback


def section(name: str, function: Callable[..., Any]) -> str:
    """What it does, how it is called, and a row for each option."""
    usage, rows = [name], list[str]()
    has_options = False
    hints = typing.get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        type_, info = typing.get_args(hints[parameter.name])[:2]
        if isinstance(info, ArgumentInfo):
            text = info.metavar or parameter.name.upper()
            usage.append(text if parameter.default is parameter.empty else f"[{text.strip('[]')}]")
            rows.append(row([text.strip("[]")], "", info))
        elif isinstance(info, OptionInfo) and not info.hidden:
            has_options = True
            rows.append(row(written(parameter, type_, info), default(parameter), info))
    table = ["| | default | |", "| --- | --- | --- |", *rows] if rows else []
    call = " ".join([*usage, *(["[OPTIONS]"] if has_options else [])])
    return "\n".join([f"## {name}", "", f"    {call}", "", *paragraphs(inspect.getdoc(function) or ""), *table])


def paragraphs(text: str) -> list[str]:
    """Examples are code."""
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        flat = " ".join(paragraph.split())
        example = flat.removeprefix("Example: ")
        found += [f"    {example}" if example != flat else flat, ""]
    return found


def written(parameter: inspect.Parameter, type_: Any, info: OptionInfo) -> list[str]:
    """Its names, each with what it takes."""
    own = parameter.name.strip("_").replace("_", "-")
    # In `Annotated` the first of the names stands where a default would.
    said = [each for each in (info.default, *(info.param_decls or ())) if str(each).startswith("-")]
    names = said or [f"--{own}"]
    (plain, *_) = [each for each in typing.get_args(type_) if each is not types.NoneType] or [type_]
    if plain is bool:
        return names if said else [f"--{own}", f"--no-{own}"]
    takes = info.metavar or values(plain)
    return [f"{name} {takes}" for name in names]


def values(type_: Any) -> str:
    if isinstance(type_, type) and issubclass(type_, Enum):
        return "|".join(str(each.value) for each in type_)
    return {int: "N", float: "NUMBER"}.get(type_, "TEXT")


def default(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is parameter.empty or value is None or value is False:
        return ""
    return "on" if value is True else f"`{value.value if isinstance(value, Enum) else value}`"


def row(names: list[str], value: str, info: ArgumentInfo | OptionInfo) -> str:
    cells = [", ".join(f"`{name}`" for name in names), value, info.help or ""]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
