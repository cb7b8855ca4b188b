"""What is asked of user functions. The one place that decides about `async def`, once, when the topology is built."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from streamlib.errors import TopologyError
from streamlib.topology.nodes import StoreSpec

F = TypeVar("F", bound=Callable[..., Any])


def user_function(function: F, operator: str) -> F:
    """The function, if an operator can call it.

    Raises:
        TopologyError: it cannot be called, or has to be awaited.

    >>> user_function(str.upper, "map_values")("a")
    'A'
    """
    if not callable(function):
        raise TopologyError(f"{operator} needs a function, not {function!r}")
    if _is_async(function):
        raise _async_error(_name(function), operator)
    return function


def processor_supplier(supplier: F, operator: str) -> F:
    """The supplier of a user's processors, if it can be called and, where one can see it, `process` can too.

    Raises:
        TopologyError: it cannot be called, or has to be awaited.
    """
    process = getattr(supplier, "process", None) if inspect.isclass(supplier) else None
    if process is not None and _is_async(process):
        raise _async_error(_name(process), operator)
    if hasattr(supplier, "process") and not inspect.isclass(supplier):
        raise TopologyError(
            f"{operator} needs what makes a processor for each task, such as its class, not a processor"
        )
    return user_function(supplier, operator)


def supplied_stores(supplier: object, operator: str) -> tuple[StoreSpec, ...]:
    """The stores that a supplier brings along: its attribute `stores`, or what its function of this name returns.

    Raises:
        TopologyError: they are something else.
    """
    found = getattr(supplier, "stores", ())
    if callable(found):
        try:
            found = found()
        except TypeError as error:
            raise TopologyError(
                f"{operator}: {_name(found)} cannot be called without arguments ({error}): make it a static method"
            ) from error
    stores = tuple(found) if isinstance(found, Iterable) else (found,)
    if not all(isinstance(store, StoreSpec) for store in stores):
        raise TopologyError(
            f"{operator}: the stores of {_name(supplier)} are specs such as Stores.key_value_store(...), not {found!r}"
        )
    return stores


def transformer_supplier(supplier: F, operator: str) -> F:
    """The supplier of a user's transformers of values, if it can be called and, where one can see it, `transform` too.

    Raises:
        TopologyError: it cannot be called, or has to be awaited.
    """
    transform = getattr(supplier, "transform", None)
    if transform is not None:
        if not inspect.isclass(supplier):
            raise TopologyError(
                f"{operator} needs what makes a transformer for each task, such as its class, not a transformer"
            )
        user_function(transform, operator)
    return user_function(supplier, operator)


def _async_error(function: str, operator: str) -> TopologyError:
    return TopologyError(
        f"{operator} was given the async function {function}: async operators are not supported here yet; call a plain "
        "function, and do slow calls before the records reach Kafka or in an application that reads the output"
    )


def _is_async(function: Callable[..., Any]) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    call = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    return any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in (function, call))


def _name(function: object) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__qualname__", repr(function))
