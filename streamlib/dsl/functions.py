"""Which types user functions say they return, and the serdes that follow from them."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable
from enum import Enum
from typing import Any, Final, TypeAlias

from streamlib.errors import TopologyError
from streamlib.serdes import Serde, serde_for, without_null


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
    """A hint that a serde can be made for: `X | None` is X; a type variable, for one, says nothing."""
    hint = without_null(hint)
    says_nothing = hint in (Any, object, type(None), typing.NoReturn, typing.Never) or isinstance(hint, typing.TypeVar)
    return UNSET if says_nothing else hint


def _element(hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if not isinstance(origin, type) or not issubclass(origin, Iterable | AsyncIterable):
        return UNSET
    if origin is tuple and arguments[-1:] == (Ellipsis,):
        arguments = arguments[:1]
    return arguments[0] if len(arguments) == 1 or origin in (Generator, AsyncGenerator) else UNSET


def _pair(hint: Any) -> tuple[Any, Any]:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and len(arguments) == 2 and arguments[1] is not Ellipsis:
        return _plain(arguments[0]), _plain(arguments[1])
    return UNSET, UNSET
