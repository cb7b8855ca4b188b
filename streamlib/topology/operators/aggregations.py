"""Folding streams into tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec


class StreamAggregate(msgspec.Struct, frozen=True):
    """Folds a stream into a table: `aggregator(key, value, aggregate)`, starting from `initializer()`.

    Emits changes. Records with a null key or value are dropped, as Kafka Streams does.

    `timed`: the aggregator wants to know the record's time, too: `aggregator(key, value, aggregate, timestamp)`.
    """

    store: str
    initializer: Callable[[], Any]
    aggregator: Callable[..., Any]
    timed: bool = False


class StreamReduce(msgspec.Struct, frozen=True):
    """Folds a stream into a table: `reducer(aggregate, value)`; the first value is the first aggregate."""

    store: str
    reducer: Callable[[Any, Any], Any]


class CogroupMerge(msgspec.Struct, frozen=True):
    """Brings the changes together that several aggregations make in one store, as one table."""

    store: str


class StreamCount(msgspec.Struct, frozen=True):
    """Counts records per key; apart from `StreamAggregate` so that the commonest aggregation can be the quickest."""

    store: str
