"""Joins of a table with another by keys that are taken from its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from streamlib.dsl.functions import Hint, returns, serde_of
from streamlib.dsl.graph import check_same_builder
from streamlib.dsl.ktable import KTable
from streamlib.dsl.materialized import Materialized, StoreOption
from streamlib.errors import TopologyError
from streamlib.foreign_keys import RESPONSES, SUBSCRIPTIONS, Response, Subscription, combined_keys
from streamlib.partitioning import partition_for
from streamlib.serdes import Serde, Serdes
from streamlib.topology import operators as op
from streamlib.topology.functions import user_function
from streamlib.topology.nodes import Partitioner, ProcessorNode, RepartitionTopic, SinkNode, SourceNode, StoreSpec

_REGISTRATION = "KTABLE-FK-JOIN-SUBSCRIPTION-REGISTRATION-"
_PROCESSOR = "KTABLE-FK-JOIN-SUBSCRIPTION-PROCESSOR-"
_RESPONSE = "KTABLE-FK-JOIN-SUBSCRIPTION-RESPONSE-"
_RESOLVER = "KTABLE-FK-JOIN-SUBSCRIPTION-RESPONSE-RESOLVER-PROCESSOR-"


class ForeignKeyOptions(msgspec.Struct, frozen=True):
    """What the user said about a join by foreign key. `step` is the method; `left`: each left row has a result."""

    step: str
    left: bool
    joiner: Callable[[Any, Any], Any]
    foreign_key: Callable[..., Any]
    with_key: bool
    partitioner: Partitioner | None
    result: Hint
    store: StoreOption
    name: str | None


def join_by_foreign_key(left: KTable[Any, Any], right: object, options: ForeignKeyOptions) -> KTable[Any, Any]:
    """Adds a way from the left table to the right one's tasks, and one back (`KTableImpl.doJoinOnForeignKey`).

    Raises:
        TopologyError: the right side is no table, or comes from another builder; an option is of no use.
    """
    if not isinstance(right, KTable):
        raise TopologyError(f"{options.step} of tables needs a table on the right, not {right!r}: to_table() makes one")
    check_same_builder(left._point, right._point, options.step)
    right._send_old_values(force=True)
    left._send_old_values(force=True)
    join = _Join(left, right, options)
    subscriptions = join.add_subscriptions()
    join.add_responses(*join.add_right_side(subscriptions))
    return join.add_result()


class _Join:
    """A join in the making. Names are drawn in Kafka Streams' order, which is that of the methods."""

    def __init__(self, left: KTable[Any, Any], right: KTable[Any, Any], options: ForeignKeyOptions) -> None:
        self._left, self._right, self._options = left, right, options
        self._builder = left._point.builder
        self._table, self._other = _joined_table(left), _joined_table(right)
        self._last = left._point.node
        self._sources = left._point.sources

    def add_subscriptions(self) -> str:
        """From the left table to the tasks of the right one; returns where they arrive."""
        options = self._options
        topic = self._topic(_REGISTRATION, "subscription-registration")
        operator = op.ForeignKeySubscribe(
            self._table,
            self._other,
            user_function(options.foreign_key, f"foreign_key= of {options.step}"),
            options.with_key,
            options.left,
        )
        node = self._processor(_REGISTRATION, "subscription-registration-processor", operator, self._last)
        partitioner = options.partitioner
        if partitioner is not None:
            partitioner = user_function(partitioner, f"other_partitioner= of {options.step}")
            partitioner = _by_foreign_key(partitioner, self._other.key)
        self._sink("subscription-registration-sink", topic, SUBSCRIPTIONS, partitioner, node)
        self._builder.copartition(self._right._point.sources | {topic})
        return self._source("subscription-registration-source", topic, SUBSCRIPTIONS)

    def add_right_side(self, subscriptions: str) -> tuple[str, str]:
        """Where subscriptions are kept, and answered now and later; returns the two nodes that answer."""
        store = self._name("KTABLE-FK-JOIN-SUBSCRIPTION-STATE-STORE-", "subscription-store")
        keys = combined_keys(self._other.key, self._table.key)
        self._builder.add_store(StoreSpec(name=store, kind="timestamped_key_value", key=keys, value=SUBSCRIPTIONS))
        kept = self._processor(_PROCESSOR, "subscription-receive", op.ForeignKeyKeep(store), subscriptions, store)
        respond, notify = op.ForeignKeyRespond(self._other), op.ForeignKeyNotify(self._other, store)
        rows = self._right._lookup_stores()
        return (
            self._processor(_PROCESSOR, "subscription-join-foreign", respond, kept, *rows),
            self._processor(_PROCESSOR, "foreign-join-subscription", notify, self._right._point.node, store),
        )

    def add_responses(self, *nodes: str) -> None:
        """Back to the tasks of the left table, to its rows."""
        topic = self._topic(_RESPONSE, "subscription-response")
        self._sink("subscription-response-sink", topic, RESPONSES, _to_its_row, *nodes)
        source = self._source("subscription-response-source", topic, RESPONSES)
        self._sources |= {topic}
        self._builder.copartition(self._sources)
        operator = op.ForeignKeyResolve(self._table, self._other, self._options.joiner, self._options.left)
        rows = self._left._lookup_stores()
        self._last = self._processor(_RESOLVER, "subscription-response-resolver", operator, source, *rows)

    def add_result(self) -> KTable[Any, Any]:
        """The joined table; like a source table it is stored if it has a name, or if something looks rows up."""
        options, point = self._options, self._left._point
        node = self._processor("KTABLE-FK-JOIN-OUTPUT-", "result", op.TableSource(), self._last)
        materialized = Materialized.of(options.store)
        store = self._builder.store_name("KTABLE-FK-JOIN-OUTPUT-", materialized.name)
        value = serde_of(options.result, point.value, returns(options.joiner))
        result: KTable[Any, Any] = KTable._source(
            msgspec.structs.replace(point, node=node, value=value, sources=self._sources),
            materialized.table_spec(store, point.key, value),
        )
        if materialized.name is not None:
            result._lookup_stores()
        return result

    def _name(self, prefix: str, suffix: str) -> str:
        given = self._options.name
        return self._builder.name(prefix, None if given is None else f"{given}-{suffix}")

    def _topic(self, prefix: str, suffix: str) -> str:
        topic = f"{self._name(prefix, suffix)}-topic"
        self._builder.add_repartition_topic(RepartitionTopic(name=topic))
        return topic

    def _processor(self, prefix: str, suffix: str, operator: op.Operator, parent: str, *stores: str) -> str:
        name = self._name(prefix, suffix)
        self._builder.add(ProcessorNode(name=name, operator=operator, parents=(parent,), stores=stores))
        return name

    def _sink(self, suffix: str, topic: str, value: Serde[Any], partitioner: Partitioner | None, *parents: str) -> None:
        name = self._name("KTABLE-SINK-", suffix)
        node = SinkNode(
            name=name, topic=topic, key=Serdes.bytes(), value=value, parents=parents, partitioner=partitioner
        )
        self._builder.add(node)

    def _source(self, suffix: str, topic: str, value: Serde[Any]) -> str:
        name = self._name("KTABLE-SOURCE-", suffix)
        self._builder.add(SourceNode(name=name, topics=(topic,), key=Serdes.bytes(), value=value))
        return name


def _joined_table(table: KTable[Any, Any]) -> op.JoinedTable:
    return op.JoinedTable(table._point.node, table._point.key, table._point.value)


def _by_foreign_key(partitioner: Partitioner, key: Serde[Any]) -> Partitioner:
    """The user's partitioner, asked about foreign keys. Where there is none, any partition will do."""

    def choose(topic: str, raw_key: bytes | None, subscription: Subscription, count: int) -> int:
        if raw_key is None:
            return partition_for(subscription.primary_key, count)
        return partitioner(topic, key.decode(raw_key), None, count)

    return choose


def _to_its_row(topic: str, key: bytes, response: Response, count: int) -> int:
    """The partition that the left row came from, however it came to be there. Subscriptions that Kafka Streams wrote
    before 3.4 do not tell it."""
    return partition_for(key, count) if response.partition is None else response.partition
