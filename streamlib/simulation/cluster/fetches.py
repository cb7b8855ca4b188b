"""Fetch: what a reader gets, and requests that wait for something to read.

A request is answered as soon as its partitions have so much to read as it asks for, or one has an error. Until then it
is held back, at most for its time. Sessions (KIP-227) are not offered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from streamlib.records import TopicPartition
from streamlib.simulation.cluster.basics import Body, Handler, Refused, Reply, Timer, Timers
from streamlib.simulation.cluster.log import PartitionLog
from streamlib.simulation.cluster.topics import Topics

_READ_COMMITTED = 1
_NO_SESSION = 0


class Fetches:
    """Answers for all leaders.

    Args:
        topics: the logs.
        timers: for requests that wait.
    """

    def __init__(self, topics: Topics, timers: Timers) -> None:
        self._topics = topics
        self._timers = timers
        self.handlers: Mapping[str, Handler] = {"Fetch": self._fetch}

    def _fetch(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        fetch = _Fetch(self._topics, broker, request, reply)
        if request.max_wait_ms <= 0 or fetch.has_something():
            fetch.answer()
        else:
            fetch.hold(self._timers, request.max_wait_ms)


class _Asked(NamedTuple):
    partition: TopicPartition
    offset: int
    max_bytes: int


class _Fetch:
    """One request."""

    def __init__(self, topics: Topics, broker: int, request: Any, reply: Reply) -> None:
        self._topics = topics
        self._broker = broker
        self._reply = reply
        self._committed = request.isolation_level == _READ_COMMITTED
        self._min_bytes = request.min_bytes
        self._max_bytes = request.max_bytes
        self._asked = [
            _Asked(TopicPartition(topic.topic, asked.partition), asked.fetch_offset, asked.partition_max_bytes)
            for topic in request.topics
            for asked in topic.partitions
        ]
        self._watched: list[PartitionLog] = []
        self._timer: Timer | None = None

    def has_something(self) -> bool:
        """Whether there is no reason to wait."""
        if not self._asked:
            return True
        sizes = [self._readable_bytes(asked) for asked in self._asked]
        return None in sizes or sum(size or 0 for size in sizes) >= self._min_bytes

    def hold(self, timers: Timers, wait_ms: int) -> None:
        """Answer when there is something, at the latest when the time is over."""
        self._watched = [self._topics.log(asked.partition) for asked in self._asked]
        for log in self._watched:
            log.watch(self._look)
        self._timer = timers.call_later(wait_ms, self.answer)

    def answer(self) -> None:
        """Say what there is now."""
        if self._timer is not None:
            self._timer.cancel()
        for log in self._watched:
            log.unwatch(self._look)
        self._reply({"session_id": _NO_SESSION, "responses": self._responses()})

    def _look(self) -> None:
        if self.has_something():
            self.answer()

    def _readable_bytes(self, asked: _Asked) -> int | None:
        """How much there is to read; None for an error, which is worth saying at once."""
        try:
            log = self._topics.led_log(self._broker, asked.partition)
            if log.has_offset(asked.offset) and asked.offset >= log.readable_end(committed=self._committed):
                return 0
            return len(log.read(asked.offset, asked.max_bytes, committed=self._committed).data)
        except Refused:
            return None

    def _responses(self) -> list[Body]:
        """Topics and partitions in the order asked for: the first that has something may give more than `max_bytes`."""
        topics: dict[str, list[Body]] = {}
        left_bytes, first = self._max_bytes, True
        for asked in self._asked:
            body = self._read(asked, min(asked.max_bytes, left_bytes), first)
            size_bytes = len(body["records"])
            left_bytes, first = max(left_bytes - size_bytes, 0), first and not size_bytes
            topics.setdefault(asked.partition.topic, []).append(body)
        return [{"topic": topic, "partitions": partitions} for topic, partitions in topics.items()]

    def _read(self, asked: _Asked, max_bytes: int, first: bool) -> Body:
        number = asked.partition.partition
        try:
            log = self._topics.led_log(self._broker, asked.partition)
            found = log.read(asked.offset, max_bytes, committed=self._committed, at_least_one=first)
        except Refused as refused:
            return {"partition_index": number, "error_code": refused.code, "high_watermark": -1, "records": b""}
        aborted = [{"producer_id": each.producer_id, "first_offset": each.first_offset} for each in found.aborted]
        return {
            "partition_index": number,
            "high_watermark": found.end_offset,
            "last_stable_offset": found.last_stable_offset,
            "log_start_offset": found.start_offset,
            "aborted_transactions": aborted if self._committed else None,
            "records": found.data,
        }
