"""Ready aggregations: `aggregate(Sum(of=lambda order: order.amount))` instead of an initializer and an aggregator.

They are used alike on grouped, windowed and session streams. Null values do not count, nor does a None that `of` gives.

    of       what of each value counts, such as `lambda order: order.amount`; all of it if not given
    type     what `of` gives, if the function is not annotated
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar, overload

import msgspec

from streamlib.dsl.functions import UNSET, Hint, returns
from streamlib.dsl.ktable import KTable
from streamlib.errors import TopologyError
from streamlib.serdes import Serde, serde_for
from streamlib.topology.functions import user_function

V = TypeVar("V")
R = TypeVar("R")
V_contra = TypeVar("V_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

NUMBER = int | float
"""A number whose type nobody says; as JSON."""


class Aggregation(msgspec.Struct, Generic[V_contra, R_co], frozen=True, kw_only=True):
    """How values of type `V` become one result of type `R`, by way of a state, which is what the store holds.

    `Sum` and the like make one; make your own, and it can be used like them. The functions give a new state and leave
    the one they are given as it is. A state of None is kept as no row at all.

    Attributes:
        types: `types(value)` -> the types of states and of results for values of this type, None if that is not known.
        initial: makes the state before the first value.
        add: `add(state, value, timestamp)` -> the state with one more value, never None, of this time in ms.
        merge: `merge(one, other)` -> the state of two sessions that become one. The first is the earlier, or has no
            value yet.
        result: what a state comes to; None if states are the results.

    >>> longest = Aggregation(
    ...     types=lambda value: (str, str),
    ...     initial=str,
    ...     add=lambda state, value, timestamp: max(state, str(value), key=len),
    ...     merge=lambda one, other: max(one, other, key=len),
    ... )
    >>> from streamlib.testing import run_stream
    >>> run_stream(lambda s: s.group_by_key().aggregate(longest).to_stream(), [("a", 10), ("a", 7)])
    [('a', '10'), ('a', '10')]
    """

    types: Callable[[Any], tuple[Any, Any]]
    initial: Callable[[], Any]
    add: Callable[[Any, Any, int], Any]
    merge: Callable[[Any, Any], Any]
    result: Callable[[Any], R_co] | None = None


@overload
def Sum() -> Aggregation[R, R]: ...
@overload
def Sum(of: Callable[[V], R | None], *, type: Hint = ...) -> Aggregation[V, R]: ...
def Sum(of: Callable[[Any], Any] | None = None, *, type: Hint = UNSET) -> Aggregation[Any, Any]:
    """The sum of all values. If nobody says of what type they are, it is written as a JSON number.

    >>> from streamlib.testing import run_stream
    >>> run_stream(lambda s: s.group_by_key().aggregate(Sum()).to_stream(), [("a", 5), ("a", 7)])
    [('a', 5), ('a', 12)]
    """
    part = _Part.of(of, type, "Sum")
    return Aggregation(
        types=part.as_state(NUMBER),
        initial=int,
        add=part.adder(lambda state, value, timestamp: state + value),
        merge=operator.add,
    )


@overload
def Min() -> Aggregation[R, R]: ...
@overload
def Min(of: Callable[[V], R | None], *, type: Hint = ...) -> Aggregation[V, R]: ...
def Min(of: Callable[[Any], Any] | None = None, *, type: Hint = UNSET) -> Aggregation[Any, Any]:
    """The smallest of all values. If nobody says of what type they are, they are taken for numbers, as JSON.

    >>> from streamlib.testing import run_stream
    >>> run_stream(lambda s: s.group_by_key().aggregate(Min()).to_stream(), [("a", 5), ("a", 7), ("a", 3)])
    [('a', 5), ('a', 5), ('a', 3)]
    """
    return _best(_Part.of(of, type, "Min"), operator.lt)


@overload
def Max() -> Aggregation[R, R]: ...
@overload
def Max(of: Callable[[V], R | None], *, type: Hint = ...) -> Aggregation[V, R]: ...
def Max(of: Callable[[Any], Any] | None = None, *, type: Hint = UNSET) -> Aggregation[Any, Any]:
    """The largest of all values. If nobody says of what type they are, they are taken for numbers, as JSON.

    >>> from streamlib.testing import run_stream
    >>> run_stream(lambda s: s.group_by_key().aggregate(Max()).to_stream(), [("a", 5), ("a", 3), ("a", 7)])
    [('a', 5), ('a', 5), ('a', 7)]
    """
    return _best(_Part.of(of, type, "Max"), operator.gt)


@overload
def Mean() -> Aggregation[float, float]: ...
@overload
def Mean(of: Callable[[V], float | None]) -> Aggregation[V, float]: ...
def Mean(of: Callable[[Any], float | None] | None = None) -> Aggregation[Any, float]:
    """The arithmetic mean of all values, a float. The store holds their sum and number.

    >>> from streamlib.testing import run_stream
    >>> run_stream(lambda s: s.group_by_key().aggregate(Mean()).to_stream(), [("a", 5), ("a", 8)])
    [('a', 5.0), ('a', 6.5)]
    """

    def merge(one: Total | None, other: Total | None) -> Total | None:
        if one is None or other is None:
            return one or other
        return Total(one.sum + other.sum, one.count + other.count)

    return Aggregation(
        types=lambda value: (Total, float),
        initial=_nothing,
        add=_Part.of(of, float, "Mean").adder(lambda state, value, timestamp: merge(state, Total(value, 1))),
        merge=merge,
        result=lambda total: total.sum / total.count,
    )


@overload
def Earliest() -> Aggregation[R, R]: ...
@overload
def Earliest(of: Callable[[V], R | None], *, type: Hint = ...) -> Aggregation[V, R]: ...
def Earliest(of: Callable[[Any], Any] | None = None, *, type: Hint = UNSET) -> Aggregation[Any, Any]:
    """The value with the lowest timestamp, whenever it came; of several the one that came first.

    >>> from streamlib.testing import run_stream
    >>> run_stream(
    ...     lambda s: s.group_by_key().aggregate(Earliest()).to_stream(), [("a", 5, 20), ("a", 3, 30), ("a", 7, 10)]
    ... )
    [('a', 5), ('a', 5), ('a', 7)]
    """
    return _best_time(_Part.of(of, type, "Earliest"), operator.lt)


@overload
def Latest() -> Aggregation[R, R]: ...
@overload
def Latest(of: Callable[[V], R | None], *, type: Hint = ...) -> Aggregation[V, R]: ...
def Latest(of: Callable[[Any], Any] | None = None, *, type: Hint = UNSET) -> Aggregation[Any, Any]:
    """The value with the highest timestamp, whenever it came; of several the one that came last.

    >>> from streamlib.testing import run_stream
    >>> run_stream(
    ...     lambda s: s.group_by_key().aggregate(Latest()).to_stream(), [("a", 5, 20), ("a", 3, 10), ("a", 7, 20)]
    ... )
    [('a', 5), ('a', 5), ('a', 7)]
    """
    return _best_time(_Part.of(of, type, "Latest"), operator.ge)


@overload
def Collect() -> Aggregation[R, list[R]]: ...
@overload
def Collect(of: Callable[[V], R | None], *, type: Hint = ...) -> Aggregation[V, list[R]]: ...
def Collect(of: Callable[[Any], Any] | None = None, *, type: Hint = UNSET) -> Aggregation[Any, Any]:
    """A list of all values as they came. It grows without an end, so use it in windows or sessions.

    >>> from streamlib.testing import run_stream
    >>> run_stream(lambda s: s.group_by_key().aggregate(Collect()).to_stream(), [("a", 5), ("a", 3)])
    [('a', [5]), ('a', [5, 3])]
    """
    part = _Part.of(of, type, "Collect")

    def types(value: Any) -> tuple[Any, Any]:
        many = _of(list, part.type_in(value))
        return many, many

    return Aggregation(
        types=types,
        initial=list,
        add=part.adder(lambda state, value, timestamp: [*state, value]),
        merge=operator.add,
    )


class Total(msgspec.Struct, array_like=True, frozen=True):
    """What a mean is made of."""

    sum: int | float
    count: int


class At(msgspec.Struct, Generic[R], array_like=True, frozen=True):
    """A value and its time."""

    value: R
    timestamp: int


def _best(part: _Part, better: Callable[[Any, Any], bool]) -> Aggregation[Any, Any]:
    """Keeps the best of all parts."""
    merge = _choice(better)
    return Aggregation(
        types=part.as_state(NUMBER),
        initial=_nothing,
        add=part.adder(lambda state, value, timestamp: merge(state, value)),
        merge=merge,
    )


def _best_time(part: _Part, better: Callable[[Any, Any], bool]) -> Aggregation[Any, Any]:
    """Keeps the part with the best timestamp."""
    merge = _choice(lambda one, other: better(one.timestamp, other.timestamp))

    def types(value: Any) -> tuple[Any, Any]:
        found = part.type_in(value)
        return _of(At, found), found

    return Aggregation(
        types=types,
        initial=_nothing,
        add=part.adder(lambda state, value, timestamp: merge(state, At(value, timestamp))),
        merge=merge,
        result=lambda state: state.value,
    )


def _choice(better: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    """f(one, other) -> the second if it is better, `better(other, one)`; None is no value."""

    def choose(one: Any, other: Any) -> Any:
        if one is None or other is None:
            return one if other is None else other
        return other if better(other, one) else one

    return choose


class _Part(NamedTuple):
    """What of each value counts; None for all of it. `hint` is its type, as far as somebody says so."""

    find: Callable[[Any], Any] | None
    hint: Hint
    aggregation: str

    @classmethod
    def of(cls, find: Callable[[Any], Any] | None, hint: Hint, aggregation: str) -> _Part:
        if find is None:
            return cls(None, hint, aggregation)
        annotated = returns(user_function(find, f"{aggregation}(of=)"))
        return cls(find, annotated if hint is UNSET else hint, aggregation)

    def adder(self, add: Callable[[Any, Any, int], Any]) -> Callable[[Any, Any, int], Any]:
        """The same function for whole values. A part that is None does not count."""
        find = self.find
        if find is None:
            return add

        def add_part(state: Any, value: Any, timestamp: int) -> Any:
            part = find(value)
            return state if part is None else add(state, part, timestamp)

        return add_part

    def type_in(self, value: Any, unknown: Hint = UNSET) -> Any:
        """The type of parts of values of this type; `unknown` if nobody says it.

        Raises:
            TopologyError: nobody says it, and it cannot be left open.
        """
        if self.hint is not UNSET:
            return self.hint
        if self.find is None and value is not None:
            return value
        if unknown is not UNSET:
            return unknown
        raise TopologyError(
            f"aggregate({self.aggregation}(...)): it is not known of what type the results are: say it, as in "
            f"{self.aggregation}(of=..., type=str), or annotate the function"
        )

    def as_state(self, unknown: Hint) -> Callable[[Any], tuple[Any, Any]]:
        """The types of an aggregation whose states and results are of the parts' type."""

        def types(value: Any) -> tuple[Any, Any]:
            found = self.type_in(value, unknown)
            return found, found

        return types


class ReadyFold(NamedTuple):
    """An aggregation made ready for a stream: functions as the operators call them, and how states are kept.

    Attributes:
        initializer: makes the first state.
        aggregator: `aggregator(key, value, state, timestamp)` makes the next one.
        merger: `merger(key, one, other)` makes one of two.
        state: how states are written.
        result: what a state comes to, and how that is written; None if it is the result.
    """

    initializer: Callable[[], Any]
    aggregator: Callable[[Any, Any, Any, int], Any]
    merger: Callable[[Any, Any, Any], Any]
    state: Serde[Any]
    result: tuple[Callable[[Any], Any], Serde[Any]] | None

    @classmethod
    def of(cls, aggregation: object, value: Serde[Any]) -> ReadyFold:
        """What an aggregation makes of values that are written like this.

        Raises:
            TopologyError: it is none, or it is not known of what type its results are.
        """
        if not isinstance(aggregation, Aggregation):
            raise TopologyError(
                "aggregate needs an initializer and an aggregator (and a merger for sessions), or an aggregation such "
                f"as Sum(), not {aggregation!r} alone"
            )
        add, merge = aggregation.add, aggregation.merge

        def aggregator(key: object, value: Any, state: Any, timestamp: int) -> Any:
            return state if value is None else add(state, value, timestamp)

        def merger(key: object, one: Any, other: Any) -> Any:
            return merge(one, other)

        state, result = map(serde_for, aggregation.types(value.type))
        finish = None if aggregation.result is None else (aggregation.result, result)
        return cls(aggregation.initial, aggregator, merger, state, finish)

    def finished(self, table: KTable[Any, Any]) -> KTable[Any, Any]:
        """The table of results, given that of states."""
        if self.result is None:
            return table
        function, serde = self.result
        return table.map_values(function, value=serde)


def _of(generic: Any, argument: Any) -> Any:
    """`generic[argument]`, of which nothing is known before it runs."""
    return generic[argument]


def _nothing() -> None:
    """There is no state before the first value."""
