"""What is asked of user functions. The one place that decides about `async def`, once, when the topology is built."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar, get_args

from streamlib.errors import TopologyError
from streamlib.topology.nodes import StoreSpec
from streamlib.topology.operators import MOST_CONCURRENT, CallOptions, Ordered
from streamlib.topology.services import Service
from streamlib.windows import duration_ms

F = TypeVar("F", bound=Callable[..., Any])

AskedFor: TypeAlias = tuple[int | None, Ordered | None, timedelta | None, Service | None]
"""What the user said about calls: `concurrency`, `ordered`, `timeout` and `service`; None: nothing."""


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


def call_options(function: F, operator: str, asked: AskedFor, *, many: bool = False) -> CallOptions | None:
    """How an operator awaits the function; None if it is a plain one. `many`: it may be an async generator.

    Raises:
        TopologyError: it cannot be called, options are out of range, or are given for a function that is not awaited.

    >>> async def price(item): ...
    >>> call_options(price, "map_values", (8, None, timedelta(seconds=2), None))
    CallOptions(concurrency=8, ordered='key', timeout_ms=2000, service=None)
    """
    if not callable(function):
        raise TopologyError(f"{operator} needs a function, not {function!r}")
    concurrency, ordered, timeout, service = asked
    if not _is_async(function):
        if any(option is not None for option in asked):
            raise TopologyError(
                f"{operator}: concurrency, ordered, timeout and service are for functions that are awaited, and "
                f"{_name(function)} is not declared with `async def`"
            )
        return None
    if is_async_generator(function) and not many:
        raise TopologyError(f"{operator} needs one result, and {_name(function)} is an async generator: use flat_map")
    if concurrency is not None and not 1 <= concurrency <= MOST_CONCURRENT:
        raise TopologyError(f"{operator}: concurrency is from 1 to {MOST_CONCURRENT}, not {concurrency}")
    if ordered is not None and ordered not in get_args(Ordered):
        raise TopologyError(f"{operator}: ordered is 'key', 'partition' or 'none', not {ordered!r}")
    if service is not None and not isinstance(service, Service):
        raise TopologyError(f"{operator}: service is a Service, not {service!r}")
    default = CallOptions()
    return CallOptions(
        default.concurrency if concurrency is None else concurrency,
        default.ordered if ordered is None else ordered,
        None if timeout is None else duration_ms(timeout, f"{operator}: the timeout", positive=True),
        service,
    )


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


def is_async_generator(function: Callable[..., Any]) -> bool:
    """Whether the function gives its results one by one, each to be awaited."""
    return any(map(inspect.isasyncgenfunction, _called(function)))


def _async_error(function: str, operator: str) -> TopologyError:
    return TopologyError(
        f"{operator} was given the async function {function}, and cannot await it: only map, map_values, flat_map, "
        "flat_map_values, filter, filter_not, foreach and peek of a stream can; call it in one of these, in front"
    )


def _is_async(function: Callable[..., Any]) -> bool:
    return is_async_generator(function) or any(map(inspect.iscoroutinefunction, _called(function)))


def _called(function: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """The function, and what is run when it is called."""
    while isinstance(function, functools.partial):
        function = function.func
    return function, function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004


def _name(function: object) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__qualname__", repr(function))
