"""Records that wait in a buffer: where they came from, and how they go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from streamlib.engine.cursor import Cursor, Earlier
from streamlib.engine.inputs import NodeFn
from streamlib.records import Headers, TopicPartition
from streamlib.state.buffer import Origin

Release: TypeAlias = Callable[[Any, Any, Origin], None]
"""f(key, value, where it came from)."""


def origin_of(cursor: Cursor, timestamp: int, headers: Headers) -> Origin:
    """Where the record in process came from."""
    at = cursor.context(timestamp)
    return Origin(timestamp, at.offset, at.topic, at.partition, headers)


def releasing(forward: NodeFn, cursor: Cursor) -> Release:
    """Forwards what has waited as if it were the record in process, with the time and the headers it came with."""

    def release(key: Any, value: Any, origin: Origin) -> None:
        before = cursor.partition, cursor.record
        cursor.partition, cursor.record = None, None  # a punctuator has caused it
        if origin.topic:
            cursor.partition = TopicPartition(origin.topic, origin.partition)
            cursor.record = Earlier(origin.offset, origin.timestamp, origin.headers)
        try:
            forward(key, value, origin.timestamp, origin.headers)
        finally:
            cursor.partition, cursor.record = before  # an error, too, is located at the record in process

    return release
