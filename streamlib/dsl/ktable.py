"""Tables: the latest value of each key, and the changes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Literal, Self, TypeVar, overload

from streamlib.dsl.functions import UNSET, Hint, returns, serde_of
from streamlib.dsl.graph import Point
from streamlib.dsl.kstream import KStream
from streamlib.topology import operators as op
from streamlib.topology.functions import user_function
from streamlib.topology.nodes import StoreSpec

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
VR = TypeVar("VR")


class KTable(Generic[K, V]):
    """A table with keys of type `K` and rows of type `V`; a None value deletes a row.

    A table is kept in a store only if it has to be: if it is aggregated, joined with, or given a `store=`.
    """

    def __init__(self, point: Point, store: str | None, *, kept: bool, parent: KTable[Any, Any] | None = None) -> None:
        self._point = point
        self._store = store
        self._kept = kept
        self._parent = parent

    @classmethod
    def _source(cls, point: Point, store: str) -> Self:
        """A table straight from a topic or stream; kept under this name once something needs it."""
        return cls(point, store, kept=False)

    @classmethod
    def _stored(cls, point: Point, store: str) -> Self:
        """A table whose node writes the store itself."""
        return cls(point, store, kept=True)

    def _lookup_stores(self) -> tuple[str, ...]:
        """The stores that looking up a row reads; sees to it that they are kept."""
        if self._store is None:
            assert self._parent is not None, "a table is stored, or derived from another"
            return self._parent._lookup_stores()
        if not self._kept:
            self._kept = True
            self._point.builder.materialize(self._point.node, _spec(self._store, self._point))
        return (self._store,)

    def filter(
        self, predicate: Callable[[K, V], object], *, store: str | None = None, name: str | None = None
    ) -> KTable[K, V]:
        """Keep the rows that `predicate(key, value)` accepts; a row that fails is deleted.

        >>> from streamlib.testing import run_stream
        >>> run_stream(
        ...     lambda s: s.to_table().filter(lambda key, value: value > 1).to_stream(), [("a", 1), ("a", 2)]
        ... )
        [('a', None), ('a', 2)]
        """
        function = user_function(predicate, "filter")
        operator = op.TableFilter(self._point.node, function, False, store)
        return self._derived("KTABLE-FILTER-", operator, store, name)

    def filter_not(
        self, predicate: Callable[[K, V], object], *, store: str | None = None, name: str | None = None
    ) -> KTable[K, V]:
        """Keep the rows that `predicate(key, value)` refuses.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.to_table().filter_not(lambda key, value: value > 1).to_stream(), [("a", 1)])
        [('a', 1)]
        """
        function = user_function(predicate, "filter_not")
        operator = op.TableFilter(self._point.node, function, True, store)
        return self._derived("KTABLE-FILTER-", operator, store, name)

    @overload
    def map_values(
        self, mapper: Callable[[V], VR], *, value: Hint = ..., store: str | None = ..., name: str | None = ...
    ) -> KTable[K, VR]: ...
    @overload
    def map_values(
        self,
        mapper: Callable[[K, V], VR],
        *,
        with_key: Literal[True],
        value: Hint = ...,
        store: str | None = ...,
        name: str | None = ...,
    ) -> KTable[K, VR]: ...
    def map_values(
        self,
        mapper: Callable[..., Any],
        *,
        with_key: bool = False,
        value: Hint = UNSET,
        store: str | None = None,
        name: str | None = None,
    ) -> KTable[K, Any]:
        """Replace each row by `mapper(value)`, or by `mapper(key, value)` with `with_key=True`; deletes stay deletes.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.to_table().map_values(lambda value: value * 10).to_stream(), [("a", 1)])
        [('a', 10)]
        """
        operator = op.TableMapValues(self._point.node, user_function(mapper, "map_values"), with_key, store)
        serde = serde_of(value, self._point.value, returns(mapper))
        return self._derived("KTABLE-MAPVALUES-", operator, store, name, value=serde)

    @overload
    def to_stream(self, *, name: str | None = ...) -> KStream[K, V]: ...
    @overload
    def to_stream(
        self, selector: Callable[[K, V], K2], *, key: Hint = ..., name: str | None = ...
    ) -> KStream[K2, V]: ...
    def to_stream(
        self, selector: Callable[[K, V], Any] | None = None, *, key: Hint = UNSET, name: str | None = None
    ) -> KStream[Any, V]:
        """The new value of each change as a stream, deletes as None; under `selector(key, value)` if one is given.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.to_table().to_stream(), [("a", 1), ("a", None)])
        [('a', 1), ('a', None)]
        """
        node = self._point.builder.name("KTABLE-TOSTREAM-", name)
        stream: KStream[Any, V] = KStream(self._point.then(node, op.TableToStream()))
        return stream if selector is None else stream.select_key(selector, key=key)

    def _derived(
        self, prefix: str, operator: op.Operator, store: str | None, name: str | None, **changes: Any
    ) -> KTable[K, Any]:
        stores = () if store is None else (store,)
        point = self._point.then(self._point.builder.name(prefix, name), operator, *stores, **changes)
        if store is not None:
            point.builder.add_store(_spec(store, point))
        return KTable(point, store, kept=True, parent=self)


def _spec(name: str, point: Point) -> StoreSpec:
    return StoreSpec(name=name, kind="timestamped_key_value", key=point.key, value=point.value)
