"""MODULE:NAME -> a topology.

MODULE is a dotted name (`shop.revenue`) or a file (`shop/revenue.py`), looked for from the current folder first.
NAME is a Topology, a StreamsBuilder, or a function without arguments that returns one of them; `topology` if left out.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import PurePath
from types import ModuleType
from typing import Any

import msgspec

from streamlib.cli.errors import UsageError
from streamlib.config import StreamsConfig
from streamlib.dsl.builder import StreamsBuilder
from streamlib.engine.tracing import Tracing
from streamlib.errors import StreamsError, TopologyError
from streamlib.topology.topology import Topology

DEFAULT_NAME = "topology"


class Target(msgspec.Struct, frozen=True):
    """What MODULE:NAME stands for. `config` is the module's own, in whatever form it gives it; `tracing`, too."""

    module: str
    name: str
    topology: Topology
    config: StreamsConfig | Mapping[str, Any] | None
    tracing: Tracing | None = None


def load_target(text: str) -> Target:
    """Import the module and find the topology.

    Raises:
        UsageError: no such module or name; the message lists what there is.
        TopologyError: the module or the function failed; the cause is chained.
    """
    module_name, name = split_target(text)
    look_in_current_folder()
    module = _import(module_name)
    value = _find(module, name)
    return Target(
        module_name, name, _as_topology(value, f"{module_name}:{name}"), _module_config(module), _module_tracing(module)
    )


def split_target(text: str) -> tuple[str, str]:
    """`a/b.py:c` or `a.b:c` -> (`a.b`, `c`).

    >>> split_target("examples/word_count.py")
    ('examples.word_count', 'topology')
    """
    module, _, name = text.partition(":")
    if module.endswith(".py") or "/" in module or os.sep in module:
        module = ".".join(part for part in PurePath(module.removesuffix(".py")).parts if part != ".")
    if not module or not all(part.isidentifier() for part in module.split(".")):
        raise UsageError(f"{text!r} names no module: write MODULE:NAME, for example shop.revenue:topology")
    return module, name or DEFAULT_NAME


def candidates(module: ModuleType) -> list[str]:
    """The names in a module that can be run, topologies before functions."""
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    values = [name for name, value in public.items() if isinstance(value, Topology | StreamsBuilder)]
    return values + [name for name, value in public.items() if _makes_topology(value, module)]


def look_in_current_folder() -> None:
    """Import modules from there first."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except StreamsError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise _no_module(name) from None
        raise TopologyError(f"cannot import {name!r}: {_summary(error)}") from error
    except Exception as error:
        raise TopologyError(f"cannot import {name!r}: {_summary(error)}") from error


def _no_module(name: str) -> UsageError:
    return UsageError(
        f"no module named {name!r} in {os.getcwd()} or among the installed packages: "
        "run from the folder that holds it, or write its file name"
    )


def _find(module: ModuleType, name: str) -> object:
    value = getattr(module, name, None)
    if value is not None:
        return value
    names = candidates(module)
    if not names:
        hint = "it has no topology: assign the result of StreamsBuilder.build() to a name"
    else:
        close = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {close[0]!r}? it has {', '.join(names)}" if close else f"it has {', '.join(names)}"
    raise UsageError(f"module {module.__name__!r} has no {name!r}; {hint}")


def _as_topology(value: object, what: str) -> Topology:
    if isinstance(value, Topology):
        return value
    if isinstance(value, StreamsBuilder):
        return value.build()
    if not callable(value):
        raise UsageError(f"{what} is a {type(value).__name__}, not a Topology, a StreamsBuilder or a function")
    made = _call(value, what)
    if isinstance(made, Topology | StreamsBuilder):
        return _as_topology(made, what)
    raise UsageError(f"{what}() returned a {type(made).__name__}, not a Topology or a StreamsBuilder")


def _call(function: Any, what: str) -> object:
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise UsageError(f"{what} cannot be called without arguments ({error})") from None
    except ValueError:
        pass  # a callable that does not tell its arguments
    try:
        return function()
    except StreamsError:
        raise
    except Exception as error:
        raise TopologyError(f"{what}() failed: {_summary(error)}") from error


def _summary(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _makes_topology(value: object, module: ModuleType) -> bool:
    if not inspect.isfunction(value) or value.__module__ != module.__name__:
        return False
    returned = value.__annotations__.get("return")
    return returned in (Topology, StreamsBuilder, "Topology", "StreamsBuilder")


def _module_config(module: ModuleType) -> StreamsConfig | Mapping[str, Any] | None:
    config = getattr(module, "config", None)
    return config if isinstance(config, StreamsConfig | Mapping) else None


def _module_tracing(module: ModuleType) -> Tracing | None:
    tracing: Tracing | None = getattr(module, "tracing", None)
    return tracing if hasattr(tracing, "of_task") else None
