"""Regrouped tables and their aggregations, which are tables again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from streamlib.dsl.functions import UNSET, Hint, returns, serde_of
from streamlib.dsl.graph import REPARTITION_SUFFIX, Point, through_the_same_topic
from streamlib.dsl.ktable import KTable
from streamlib.dsl.materialized import Materialized, StoreOption
from streamlib.serdes import Serde, Serdes
from streamlib.topology import operators as op
from streamlib.topology.changes import changes_of
from streamlib.topology.functions import user_function
from streamlib.topology.nodes import RepartitionTopic, SinkNode, SourceNode

K = TypeVar("K")
V = TypeVar("V")
VA = TypeVar("VA")


class KGroupedTable(Generic[K, V]):
    """The rows of a table under new keys, about to be folded by them.

    When a row changes, its old value is taken out of the aggregate of its group before the new one goes in; when it
    moves, out of the old group's and into the new one's. Source: `KGroupedTableImpl`.
    """

    def __init__(self, point: Point, name: str | None) -> None:
        self._point = point
        self._name = name
        self._named_repartition: Point | None = None

    def count(self, *, store: StoreOption = None, name: str | None = None) -> KTable[K, int]:
        """How many rows each group has. A group that has lost all of them stays, with 0.

        >>> from streamlib.testing import run_stream
        >>> def by_value(table):
        ...     return table.group_by(lambda key, value: (value, key), key=int, value=str)
        >>> run_stream(lambda s: by_value(s.to_table()).count().to_stream(), [("a", 1), ("b", 1), ("a", 2)])
        [(1, 1), (1, 2), (1, 1), (2, 1)]
        """
        return self._fold(
            "KTABLE-AGGREGATE-",
            lambda named: op.TableAggregate(named, _zero, _one_more, _one_less),
            Serdes.long(),
            store,
            name,
        )

    def reduce(
        self,
        adder: Callable[[V, V], V | None],
        subtractor: Callable[[V, V], V | None],
        *,
        store: StoreOption = None,
        name: str | None = None,
    ) -> KTable[K, V]:
        """Fold each group's values; the first value is the first aggregate.

        A result of None deletes the group's row; the next addition begins anew.

        Args:
            adder: `adder(aggregate, value)` when a value comes in.
            subtractor: `subtractor(aggregate, value)` when one goes; undoes the adder.
            store: the store's name, or how it is kept.
            name: of the node.

        >>> from operator import add, sub
        >>> from streamlib.testing import run_stream
        >>> run_stream(
        ...     lambda s: s.to_table().group_by(lambda key, value: ("all", value)).reduce(add, sub).to_stream(),
        ...     [("a", 1), ("b", 5), ("a", 2), ("b", None)],
        ... )
        [('all', 1), ('all', 6), ('all', 7), ('all', 2)]
        """
        add, subtract = user_function(adder, "reduce"), user_function(subtractor, "reduce")
        return self._fold(
            "KTABLE-REDUCE-", lambda named: op.TableReduce(named, add, subtract), self._point.value, store, name
        )

    def aggregate(
        self,
        initializer: Callable[[], VA],
        adder: Callable[[K, V, VA], VA | None],
        subtractor: Callable[[K, V, VA], VA | None],
        *,
        value: Hint = UNSET,
        store: StoreOption = None,
        name: str | None = None,
    ) -> KTable[K, VA]:
        """Fold each group's values, beginning with `initializer()`.

        A result of None deletes the group's row; the next addition begins anew.

        Args:
            initializer: makes the first aggregate of a group.
            adder: `adder(key, value, aggregate)` when a value comes in.
            subtractor: `subtractor(key, value, aggregate)` when one goes; undoes the adder.
            value: the aggregate's type; if not given, what the functions are annotated to return.
            store: the store's name, or how it is kept.
            name: of the node.

        >>> from streamlib.testing import run_stream
        >>> add = lambda key, value, aggregate: sorted([*aggregate, value])
        >>> remove = lambda key, value, aggregate: [each for each in aggregate if each != value]
        >>> run_stream(
        ...     lambda s: s.to_table()
        ...     .group_by(lambda key, value: (value, key), key=int, value=str)
        ...     .aggregate(list, add, remove, value=list[str])
        ...     .to_stream(),
        ...     [("b", 1), ("a", 1), ("b", None)],
        ... )
        [(1, ['b']), (1, ['a', 'b']), (1, ['a'])]
        """
        begin = user_function(initializer, "aggregate")
        add, subtract = user_function(adder, "aggregate"), user_function(subtractor, "aggregate")
        annotated = returns(adder)
        serde = serde_of(value, self._point.value, returns(initializer) if annotated is UNSET else annotated)
        return self._fold(
            "KTABLE-AGGREGATE-", lambda named: op.TableAggregate(named, begin, add, subtract), serde, store, name
        )

    def _fold(
        self,
        prefix: str,
        operator: Callable[[str], op.Operator],
        value: Serde[Any],
        store: StoreOption,
        name: str | None,
    ) -> KTable[K, Any]:
        builder, materialized = self._point.builder, Materialized.of(store)
        store_name = builder.store_name("KTABLE-AGGREGATE-", materialized.name)  # a reduction's is called so as well
        behind = self._repartitioned(store_name, name)
        node = builder.name(prefix, name)
        builder.add_store(materialized.table_spec(store_name, self._point.key, value))
        return KTable._stored(behind.then(node, operator(store_name), store_name, value=value), store_name)

    def _repartitioned(self, store: str, name: str | None) -> Point:
        """Behind a topic of changes: one for all aggregations if the group has a name, else one for each, called after
        its store. Nothing in front of it drops null keys: selecting the group has."""
        if self._named_repartition is not None:
            return through_the_same_topic(self._named_repartition, 2)
        builder, point = self._point.builder, self._point
        sink = builder.name("KSTREAM-SINK-", None if name is None else f"{name}-sink")
        source = builder.name("KSTREAM-SOURCE-", None if name is None else f"{name}-source")
        topic, changes = f"{self._name or store}{REPARTITION_SUFFIX}", changes_of(point.value)
        builder.add_repartition_topic(RepartitionTopic(name=topic))
        builder.add(SinkNode(name=sink, topic=topic, key=point.key, value=changes, parents=(point.node,)))
        builder.add(SourceNode(name=source, topics=(topic,), key=point.key, value=changes))
        behind = Point(builder, source, point.key, point.value, frozenset({topic}))
        if self._name is not None:
            self._named_repartition = behind
        return behind


def _zero() -> int:
    return 0


def _one_more(key: object, value: object, count: int) -> int:
    return count + 1


def _one_less(key: object, value: object, count: int) -> int:
    return count - 1
