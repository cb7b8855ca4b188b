"""Folding streams into tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec


class StreamAggregate(msgspec.Struct, frozen=True):
    """Folds a stream into a table: `aggregator(key, value, aggregate)`, starting from `initializer()`.

    Emits changes. Records with a null key or value are dropped, as Kafka Streams does.
    """

    store: str
    initializer: Callable[[], Any]
    aggregator: Callable[[Any, Any, Any], Any]


class StreamReduce(msgspec.Struct, frozen=True):
    """Folds a stream into a table: `reducer(aggregate, value)`; the first value is the first aggregate."""

    store: str
    reducer: Callable[[Any, Any], Any]


class StreamCount(msgspec.Struct, frozen=True):
    """Counts records per key; apart from `StreamAggregate` so that the commonest aggregation can be the quickest."""

    store: str
