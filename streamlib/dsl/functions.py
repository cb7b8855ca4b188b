"""Which types user functions say they return, and the serdes that follow from them."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, TypeAlias

from streamlib.errors import TopologyError
from streamlib.serdes import Serde, serde_for


class Unset(Enum):
    """Tells "not given" from None, which stands for a key or value that is always null."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET

Hint: TypeAlias = Any
"""A type, a `Serde`, None for always-null, or `UNSET`."""


def serde_of(hint: Hint, upstream: Serde[Any], returned: Any = UNSET) -> Serde[Any]:
    """The serde after a step: as the user says, else as the function's annotation says, else as before.

    Keeping the one from before is safe: encoding is strict about types, and its error names the node.
    """
    if hint is not UNSET:
        return serde_for(hint)
    if returned is UNSET:
        return upstream
    try:
        return serde_for(returned)
    except TopologyError:
        return upstream


def returns(function: Callable[..., Any]) -> Any:
    """What a function is annotated to return, without None; `UNSET` if it does not say."""
    return _plain(_return_hint(function))


def returns_pair(function: Callable[..., Any]) -> tuple[Any, Any]:
    """The key and value types of a function annotated `-> tuple[K, V]`."""
    return _pair(_return_hint(function))


def returns_iterable(function: Callable[..., Any]) -> Any:
    """The element type of a function annotated to return an iterable."""
    return _plain(_element(_return_hint(function)))


def returns_pairs(function: Callable[..., Any]) -> tuple[Any, Any]:
    """The key and value types of a function annotated `-> Iterable[tuple[K, V]]`."""
    return _pair(_element(_return_hint(function)))


def _return_hint(function: Callable[..., Any]) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, type):
        return function  # a class makes what it is
    if not inspect.isroutine(function):
        function = type(function).__call__
    try:
        return typing.get_type_hints(function).get("return", UNSET)
    except (TypeError, NameError, AttributeError):
        return UNSET  # a builtin, or names that are only there for the type checker


def _plain(hint: Any) -> Any:
    """A hint that a serde can be made for: `X | None` is X, a type variable says nothing."""
    if hint is UNSET or hint is Any or hint is type(None) or isinstance(hint, typing.TypeVar):
        return UNSET
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        return _plain(parts[0]) if len(parts) == 1 else hint
    return hint


def _element(hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(origin, type) and issubclass(origin, Iterable) and origin is not dict and arguments:
        return arguments[0]
    return UNSET


def _pair(hint: Any) -> tuple[Any, Any]:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and len(arguments) == 2 and arguments[1] is not Ellipsis:
        return _plain(arguments[0]), _plain(arguments[1])
    return UNSET, UNSET
