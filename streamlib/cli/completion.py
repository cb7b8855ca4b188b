"""What a shell offers when Tab is pressed. Nothing is imported or asked for: modules are only read as text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import msgspec

from streamlib.cli.target import DEFAULT_NAME
from streamlib.config import SECRETS, StreamsConfig

_MAKERS = frozenset({"StreamsBuilder", "Topology", "build"})
_RETURNED = frozenset({"StreamsBuilder", "Topology"})
_LARGEST_MODULE = 1 << 20


def complete_target(incomplete: str) -> list[str]:
    """MODULE:NAME for what was typed so far: folders, Python files, and behind the colon what looks like topologies.

    >>> complete_target("no/such/folder/")
    []
    """
    file, colon, name = incomplete.partition(":")
    if colon:
        return [f"{file}:{each}" for each in topologies_in(_file_of(file)) if each.startswith(name)]
    folder, _, start = file.rpartition("/")
    return sorted(_below(Path(folder or "."), f"{folder}/" if folder else "", start))


def complete_setting(incomplete: str) -> list[str]:
    """NAME= for each setting; secrets are not set on a command line.

    >>> complete_setting("commit_int")
    ['commit_interval_ms=']
    """
    names = (field.name for field in msgspec.structs.fields(StreamsConfig))
    return [f"{name}=" for name in names if name.startswith(incomplete) and name not in SECRETS]


def topologies_in(file: Path) -> list[str]:
    """The names in a module that look as if they could be run, the one that is meant if none is said first."""
    try:
        if file.stat().st_size > _LARGEST_MODULE:
            return []
        module = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    found = [name for statement in module.body for name in _names(statement) if not name.startswith("_")]
    return sorted(dict.fromkeys(found), key=lambda name: name != DEFAULT_NAME)


def _below(folder: Path, prefix: str, start: str) -> Iterator[str]:
    try:
        entries = list(folder.iterdir())
    except OSError:
        return
    for each in entries:
        if not each.name.startswith(start) or each.name.startswith((".", "__")):
            continue
        if each.is_dir():
            yield f"{prefix}{each.name}/"
        elif each.suffix == ".py":
            yield f"{prefix}{each.name}"


def _file_of(module: str) -> Path:
    """Where a module is, if it is below the current folder."""
    if module.endswith(".py") or "/" in module:
        return Path(module)
    path = Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _names(statement: ast.stmt) -> Iterator[str]:
    match statement:
        case ast.Assign(targets=targets, value=ast.Call(func=function)) if _last_name(function) in _MAKERS:
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation) if _last_name(annotation) in _RETURNED:
            yield name
        case ast.Assign(targets=[ast.Name(id="topology" as name)]):
            yield name
        case ast.FunctionDef(name=name, returns=returns) if returns is not None and _last_name(returns) in _RETURNED:
            yield name


def _last_name(expression: ast.expr) -> str:
    match expression:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Constant(value=str(name)):
            return name
        case _:
            return ""
