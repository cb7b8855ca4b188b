"""Where a topology begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, overload

from streamlib.dsl.functions import Hint
from streamlib.dsl.graph import Point
from streamlib.dsl.kstream import KStream
from streamlib.dsl.ktable import KTable
from streamlib.errors import TopologyError
from streamlib.serdes import Serde, serde_for
from streamlib.topology import operators as op
from streamlib.topology.builder import TopologyBuilder
from streamlib.topology.nodes import OffsetReset, StoreSpec, TimestampExtractor
from streamlib.topology.topology import Topology

K = TypeVar("K")
V = TypeVar("V")


class StreamsBuilder:
    """Begin with `stream` or `table`, add steps, end with `build`.

    >>> builder = StreamsBuilder()
    >>> words = builder.stream("lines", key=str, value=str).flat_map_values(str.split)
    >>> words.group_by(lambda _, word: word, name="by-word").count(store="counts").to_stream().to("word-counts")
    >>> [len(each.nodes) for each in builder.build().subtopologies()]
    [5, 4]
    """

    def __init__(self) -> None:
        self._builder = TopologyBuilder()
        self._streams: dict[frozenset[str], tuple[tuple[Any, ...], Point]] = {}  # by topics: how they are read

    @overload
    def stream(
        self,
        topics: str | Sequence[str],
        *,
        key: type[K] | Serde[K],
        value: type[V] | Serde[V],
        timestamp_extractor: TimestampExtractor | None = ...,
        offset_reset: OffsetReset | None = ...,
        name: str | None = ...,
    ) -> KStream[K, V]: ...
    @overload
    def stream(
        self,
        topics: str | Sequence[str],
        *,
        key: type[K] | Serde[K],
        value: Hint = ...,
        timestamp_extractor: TimestampExtractor | None = ...,
        offset_reset: OffsetReset | None = ...,
        name: str | None = ...,
    ) -> KStream[K, Any]: ...
    @overload
    def stream(
        self,
        topics: str | Sequence[str],
        *,
        key: Hint = ...,
        value: type[V] | Serde[V],
        timestamp_extractor: TimestampExtractor | None = ...,
        offset_reset: OffsetReset | None = ...,
        name: str | None = ...,
    ) -> KStream[Any, V]: ...
    @overload
    def stream(
        self,
        topics: str | Sequence[str],
        *,
        key: Hint = ...,
        value: Hint = ...,
        timestamp_extractor: TimestampExtractor | None = ...,
        offset_reset: OffsetReset | None = ...,
        name: str | None = ...,
    ) -> KStream[Any, Any]: ...
    def stream(
        self,
        topics: str | Sequence[str],
        *,
        key: Hint = bytes,
        value: Hint = bytes,
        timestamp_extractor: TimestampExtractor | None = None,
        offset_reset: OffsetReset | None = None,
        name: str | None = None,
    ) -> KStream[Any, Any]:
        """Read one or several topics as a stream. The same topics read in the same way again are the same stream.

        Args:
            topics: names of topics that exist.
            key: the keys' type; None if they are always null.
            value: the values' type.
            timestamp_extractor: gives a record its time in ms: f(record, partition time); negative drops it.
            offset_reset: where to start without a committed offset, if not as the configuration says.
            name: of the node.

        >>> orders = StreamsBuilder().stream("orders", key=str, value=float)
        """
        node = self._builder.name("KSTREAM-SOURCE-", name)
        names, how = _topic_names(topics), (key, value, timestamp_extractor, offset_reset)
        before, point = self._streams.get(frozenset(names), (None, None))
        if point is None or before != how:
            point = self._source(node, names, *how)
            self._streams[point.sources] = how, point
        return KStream(point)

    @overload
    def table(
        self,
        topic: str,
        *,
        key: type[K] | Serde[K],
        value: type[V] | Serde[V],
        store: str | None = ...,
        timestamp_extractor: TimestampExtractor | None = ...,
        offset_reset: OffsetReset | None = ...,
        name: str | None = ...,
    ) -> KTable[K, V]: ...
    @overload
    def table(
        self,
        topic: str,
        *,
        key: Hint = ...,
        value: Hint = ...,
        store: str | None = ...,
        timestamp_extractor: TimestampExtractor | None = ...,
        offset_reset: OffsetReset | None = ...,
        name: str | None = ...,
    ) -> KTable[Any, Any]: ...
    def table(
        self,
        topic: str,
        *,
        key: Hint = bytes,
        value: Hint = bytes,
        store: str | None = None,
        timestamp_extractor: TimestampExtractor | None = None,
        offset_reset: OffsetReset | None = None,
        name: str | None = None,
    ) -> KTable[Any, Any]:
        """Read a topic as a table: each record is the new value of its key, None deletes it.

        Args:
            topic: a topic that exists.
            key: the keys' type.
            value: the rows' type.
            store: keep the rows under this name. Without one they are kept only if something looks them up.
            timestamp_extractor: gives a record its time in ms.
            offset_reset: where to start without a committed offset, if not as the configuration says.
            name: of the table's node; the one that reads is `<name>-source`.

        >>> users = StreamsBuilder().table("users", key=str, value=str, store="users")
        """
        if not isinstance(topic, str):
            raise TopologyError(f"a table is read from one topic, not {topic!r}")
        store_name = self._builder.store_name(f"{topic}-", store)
        node = self._builder.name("KSTREAM-SOURCE-", None if name is None else f"{name}-source")
        table_node = self._builder.name("KTABLE-SOURCE-", name)
        point = self._source(node, (topic,), key, value, timestamp_extractor, offset_reset)
        table: KTable[Any, Any] = KTable._source(point.then(table_node, op.TableSource()), store_name)
        if store is not None:
            table._lookup_stores()
        return table

    def add_state_store(self, store: StoreSpec) -> None:
        """Add a store for processors to use by name; see `Stores`.

        >>> from streamlib import Stores
        >>> StreamsBuilder().add_state_store(Stores.key_value_store("seen", key=str, value=int))
        """
        self._builder.add_store(store)

    def build(self) -> Topology:
        """The topology as it stands.

        Raises:
            TopologyError: it cannot be one.
        """
        return self._builder.build()

    def _source(
        self,
        node: str,
        topics: tuple[str, ...],
        key: Hint,
        value: Hint,
        timestamp_extractor: TimestampExtractor | None,
        offset_reset: OffsetReset | None,
    ) -> Point:
        self._builder.add_source(
            node, *topics, key=key, value=value, timestamp_extractor=timestamp_extractor, offset_reset=offset_reset
        )
        return Point(self._builder, node, serde_for(key), serde_for(value), frozenset(topics))


def _topic_names(topics: object) -> tuple[Any, ...]:
    if isinstance(topics, str):
        return (topics,)
    if not isinstance(topics, Sequence):
        raise TopologyError(f"stream needs the name of a topic or several, not {topics!r}")
    return tuple(topics)
