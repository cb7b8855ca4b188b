"""Grouped streams and their aggregations, which are tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from streamlib.dsl.functions import UNSET, Hint, returns, serde_of
from streamlib.dsl.graph import Point, RepartitionOptions, repartitioned, through_the_same_topic
from streamlib.dsl.ktable import KTable
from streamlib.serdes import Serde, Serdes
from streamlib.topology import operators as op
from streamlib.topology.functions import user_function
from streamlib.topology.nodes import StoreSpec

K = TypeVar("K")
V = TypeVar("V")
VA = TypeVar("VA")


class KGroupedStream(Generic[K, V]):
    """A stream whose records are about to be folded by key. Records with a null key or value do not count."""

    def __init__(self, point: Point, name: str | None) -> None:
        self._point = point
        self._name = name
        self._named_repartition: Point | None = None

    def count(self, *, store: str | None = None, name: str | None = None) -> KTable[K, int]:
        """How many records each key has had.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.group_by_key().count().to_stream(), [("a", 5), ("a", 7)])
        [('a', 1), ('a', 2)]
        """
        return self._fold("KSTREAM-AGGREGATE-", op.StreamCount, Serdes.long(), store, name)

    def reduce(
        self, reducer: Callable[[V, V], V], *, store: str | None = None, name: str | None = None
    ) -> KTable[K, V]:
        """Fold each key's values by `reducer(aggregate, value)`; the first value is the first aggregate.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.group_by_key().reduce(max).to_stream(), [("a", 5), ("a", 3), ("a", 7)])
        [('a', 5), ('a', 5), ('a', 7)]
        """
        function = user_function(reducer, "reduce")
        return self._fold(
            "KSTREAM-REDUCE-", lambda named: op.StreamReduce(named, function), self._point.value, store, name
        )

    def aggregate(
        self,
        initializer: Callable[[], VA],
        aggregator: Callable[[K, V, VA], VA | None],
        *,
        value: Hint = UNSET,
        store: str | None = None,
        name: str | None = None,
    ) -> KTable[K, VA]:
        """Fold each key's values by `aggregator(key, value, aggregate)`, beginning with `initializer()`.

        A result of None deletes the row; the next record begins anew.

        Args:
            initializer: makes the first aggregate of a key.
            aggregator: makes the next one.
            value: the aggregate's type; if not given, what the functions are annotated to return.
            store: the store's name; give one, and the state survives changes of the topology around it.
            name: of the node.

        >>> from streamlib.testing import run_stream
        >>> total = lambda key, value, aggregate: aggregate + value
        >>> run_stream(lambda s: s.group_by_key().aggregate(lambda: 0, total).to_stream(), [("a", 5), ("a", 7)])
        [('a', 5), ('a', 12)]
        """
        begin, fold = user_function(initializer, "aggregate"), user_function(aggregator, "aggregate")
        annotated = returns(aggregator)
        serde = serde_of(value, self._point.value, returns(initializer) if annotated is UNSET else annotated)
        return self._fold(
            "KSTREAM-AGGREGATE-", lambda named: op.StreamAggregate(named, begin, fold), serde, store, name
        )

    def _fold(
        self,
        prefix: str,
        operator: Callable[[str], op.Operator],
        value: Serde[Any],
        store: str | None,
        name: str | None,
    ) -> KTable[K, Any]:
        builder = self._point.builder
        store_name = builder.store_name(prefix, store)
        node = builder.name(prefix, name)
        spec = StoreSpec(name=store_name, kind="timestamped_key_value", key=self._point.key, value=value)
        builder.add_store(spec)
        point = self._partitioned(store_name).then(node, operator(store_name), store_name, value=value)
        return KTable._stored(point, store_name)

    def _partitioned(self, store: str) -> Point:
        """Behind a repartition topic if the key may have changed: one for all aggregations if the group has a name,
        else one for each, called after its store."""
        if not self._point.rekeyed:
            return self._point
        if self._named_repartition is not None:
            return through_the_same_topic(self._named_repartition)
        point = repartitioned(self._point, RepartitionOptions(self._name or store))
        if self._name is not None:
            self._named_repartition = point
        return point
