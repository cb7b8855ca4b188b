"""Which user functions are accepted; decided once, when the topology is built."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from streamlib.errors import TopologyError
from streamlib.topology.functions import processor_supplier, user_function


async def slow(value: Any) -> Any:
    return value


async def slow_values(value: Any) -> AsyncIterator[Any]:
    yield value


class SlowCall:
    async def __call__(self, value: Any) -> Any:
        return value

    async def method(self, value: Any) -> Any:
        return value


class QuickCall:
    def __call__(self, value: Any) -> Any:
        return value


class SlowProcessor:
    async def process(self, record: Any) -> None: ...


@pytest.mark.parametrize(
    "function",
    [slow, slow_values, functools.partial(slow, 1), SlowCall(), functools.partial(SlowCall()), SlowCall().method],
    ids=str,
)
def test_async_functions_are_refused_where_nothing_awaits_them(function: Callable[..., Any]) -> None:
    with pytest.raises(TopologyError, match=r"reduce was given the async function .*, and cannot await it: only map, "):
        user_function(function, "reduce")


@pytest.mark.parametrize(
    "function", [len, str.upper, "x".join, QuickCall(), QuickCall, functools.partial(max, 1)], ids=str
)
def test_plain_callables_are_taken_as_they_are(function: Callable[..., Any]) -> None:
    assert user_function(function, "map_values") is function


@pytest.mark.parametrize("function", [None, 5, "len", b""])
def test_what_cannot_be_called_is_refused(function: Any) -> None:
    with pytest.raises(TopologyError, match="filter needs a function, not "):
        user_function(function, "filter")


def test_a_processor_with_an_async_process_is_refused() -> None:
    with pytest.raises(TopologyError, match=r"async function SlowProcessor\.process"):
        processor_supplier(SlowProcessor, "process")
    with pytest.raises(TopologyError, match="not a processor"):
        processor_supplier(SlowProcessor(), "process")  # type: ignore[type-var]
