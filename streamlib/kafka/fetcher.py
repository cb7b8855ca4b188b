"""Reads partitions: each on its own, added and removed without a word to the others.

    add ──> asked for in the next request to its leader ──> buffer ──> take
                     ^                                         │
                     └──── while the buffer has room ──────────┘

A broker holds a request back until there is something to read, and answers one connection's requests in turn. So that
a partition which turns up in between (added, or with room again) need not wait for others, each broker has two lanes:

    all idle     one request on one lane, held back for `max_wait_ms`
    a newcomer   goes at once on the other lane; the last free lane is held back only for a moment, so that it is soon
                 free for the next newcomer
    together     a lane that is about to come back is waited for by those who have nothing to read, and all of them
                 go on in one request

Every decision is made without I/O in `_dispatch`, which runs when something has changed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

import msgspec

from streamlib.errors import ErrorCode, KafkaError
from streamlib.kafka.batches import AbortedTransaction, RecordBatch, read_batches
from streamlib.kafka.client import KafkaClient
from streamlib.kafka.errors import check_code, error_row
from streamlib.records import FetchedBatch, TopicPartition

_LANES = 2
_LAST_LANE_WAIT_MS = 25
_ABOUT_TO_COME_BACK_MS = 10
_MIN_BYTES = 1
_TRIES_BEFORE_WARNING = 3  # a leader that moves takes one or two
_READ_UNCOMMITTED, _READ_COMMITTED = 0, 1


class FetcherSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a fetcher works; `buffer_bytes` bounds what is held of one partition, `buffers_bytes` of all together; one
    batch may be larger."""

    buffer_bytes: int = 1 << 20
    buffers_bytes: int = 8 << 20
    response_max_bytes: int = 50 << 20
    max_wait_ms: int = 500
    unknown_topic_timeout_ms: int = 30_000
    read_committed: bool = True


class _Partition:
    """One partition as it was added; added again it is another one, and late answers to this one mean nothing."""

    __slots__ = (
        "asking",
        "buffer",
        "buffered_bytes",
        "end_offset",
        "failure",
        "gone",
        "idle",
        "name",
        "position",
        "tries",
        "troubled_since_s",
    )

    def __init__(self, name: TopicPartition, position: int) -> None:
        self.name = name
        self.position = position  # of the next fetch
        self.buffer: deque[RecordBatch] = deque()
        self.buffered_bytes = 0
        self.end_offset: int | None = None
        self.asking = False  # in a request, or in recovery from a failed one
        self.idle = False  # the last answer was empty
        self.gone = False
        self.failure: Exception | None = None
        self.tries = 0  # failed in a row
        self.troubled_since_s: float | None = None

    def buffer_up(self, batches: Iterable[RecordBatch]) -> None:
        for batch in batches:
            self.position = batch.next_offset
            if not batch.size_bytes and self.buffer:
                self.buffer[-1].next_offset = batch.next_offset
                continue
            self.buffer.append(batch)
            self.buffered_bytes += batch.size_bytes


class _Lane:
    """One connection to one broker; `due_s` is when the request on it comes back at the latest, if all is well."""

    __slots__ = ("due_s", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.due_s: float | None = None


class KafkaFetcher:
    """Implements `streamlib.runtime.ports.Fetcher`.

    Args:
        client: shared with other ports; this fetcher uses lanes of its own.
        settings: sizes and times.
    """

    def __init__(self, client: KafkaClient, settings: FetcherSettings | None = None) -> None:
        self._client = client
        self._settings = settings or FetcherSettings()
        # Those that gave something go to the end: a response that is full leaves out the last ones.
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._filled: dict[TopicPartition, _Partition] = {}  # with something in the buffer; whose turn it is first
        self._paused: frozenset[TopicPartition] = frozenset()
        self._lanes: dict[int, list[_Lane]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._dispatch_handle: asyncio.Handle | None = None
        self._crash: Exception | None = None
        self._progress = asyncio.Event()  # replaced each time it is set
        self._closed = False

        self.requests = 0
        self.bytes_fetched = 0

    def add(self, positions: Mapping[TopicPartition, int]) -> None:
        """Start reading each partition at its offset; one that is being read goes on from there instead."""
        assert not self._closed, "the fetcher is closed"
        self.remove(positions)
        for name, position in positions.items():
            self._partitions[name] = _Partition(name, position)
        self._dispatch_soon()

    def remove(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop reading; what is buffered of them is dropped, and what is on its way when it comes."""
        for name in partitions:
            if partition := self._partitions.pop(name, None):
                partition.gone = True
                self._filled.pop(name, None)

    async def wait(self) -> None:
        """Return when `take` would give something.

        Raises:
            KafkaError: a partition cannot be read (`where` names it), as long as it is not removed or added anew; what
                was read of it before comes out of `take` first.
        """
        while True:
            self._raise_failure()
            if self.ready:
                return
            await self._progress.wait()

    @property
    def ready(self) -> bool:
        """Whether `take` would give something."""
        return any(name not in self._paused for name in self._filled)

    def take(self, max_bytes: int) -> list[FetchedBatch]:
        """Buffered batches, in offset order per partition, in turns over the partitions, about `max_bytes`."""
        taken: list[FetchedBatch] = []
        left_bytes = max_bytes
        turns = deque(partition for name, partition in self._filled.items() if name not in self._paused)
        while turns and left_bytes > 0:
            partition = turns.popleft()
            batch = partition.buffer.popleft()
            partition.buffered_bytes -= batch.size_bytes
            left_bytes -= batch.size_bytes
            taken.append(batch)
            del self._filled[partition.name]
            if partition.buffer:
                self._filled[partition.name] = partition
                turns.append(partition)
        if taken:
            self._dispatch_soon()
        return taken

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Hold exactly these back from now on; their buffers fill up, and no further."""
        before, self._paused = self._paused, frozenset(partitions)
        if before - self._paused:
            self._report_progress()

    def end_offsets(self) -> dict[TopicPartition, int]:
        """The last stable offset of each partition (its log end, if uncommitted records are read) as last heard."""
        return {
            name: partition.end_offset
            for name, partition in self._partitions.items()
            if partition.end_offset is not None
        }

    async def close(self) -> None:
        """Stop; a request that a broker holds back is cut off with its connection."""
        self._closed = True
        self.remove(list(self._partitions))
        if self._dispatch_handle is not None:
            self._dispatch_handle.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        for number in range(_LANES):
            self._client.disconnect(self._lane_key(number))

    # What to ask for: decided without I/O

    def _dispatch_soon(self) -> None:
        if self._dispatch_handle is None and not self._closed:
            self._dispatch_handle = asyncio.get_running_loop().call_soon(self._dispatch_now)

    def _dispatch_now(self) -> None:
        self._dispatch_handle = None
        try:
            self._dispatch()
        except Exception as error:
            self._crashed(error)  # the event loop would only log it

    def _dispatch(self) -> None:
        """Ask each leader for what may be asked for, if it has a lane for that."""
        by_leader: dict[int, list[_Partition]] = {}
        leaderless = []
        for partition in self._partitions.values():
            if partition.asking or partition.failure is not None or not self._has_room(partition):
                continue
            leader = self._client.leader(partition.name)
            if leader is None:
                leaderless.append(partition)
            else:
                by_leader.setdefault(leader, []).append(partition)
        if leaderless:
            self._recover_soon(leaderless)
        for leader, partitions in by_leader.items():
            self._ask_if_free(leader, partitions)

    def _has_room(self, partition: _Partition) -> bool:
        """Half a buffer, so that full partitions are not asked for in small bits."""
        return partition.buffered_bytes * 2 <= self._buffer_bytes

    @property
    def _buffer_bytes(self) -> int:
        """What one partition may have."""
        return min(self._settings.buffer_bytes, self._settings.buffers_bytes // max(len(self._partitions), 1))

    def _ask_if_free(self, leader: int, partitions: list[_Partition]) -> None:
        lanes = self._lanes.setdefault(leader, [_Lane(number) for number in range(_LANES)])
        free = [lane for lane in lanes if lane.due_s is None]
        if not free:
            return
        now_s = asyncio.get_running_loop().time()
        next_due_ms = min(((lane.due_s - now_s) * 1000 for lane in lanes if lane.due_s is not None), default=None)
        idle = all(partition.idle for partition in partitions)
        # One that is overdue has something in it, or a broken connection.
        if idle and next_due_ms is not None and 0 <= next_due_ms < _ABOUT_TO_COME_BACK_MS:
            return
        wait_ms = self._settings.max_wait_ms
        if len(free) == 1:
            wait_ms = min(wait_ms, _LAST_LANE_WAIT_MS)
        if next_due_ms is not None and next_due_ms > 0:
            wait_ms = min(wait_ms, int(next_due_ms) + 1)
        free[0].due_s = now_s + wait_ms / 1000
        for partition in partitions:
            partition.asking = True
        self._start(self._fetch(leader, free[0], partitions, wait_ms))

    def _lane_key(self, number: int) -> tuple[str, int, int]:
        return ("fetch", id(self), number)

    # Requests

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside; what it raises by mistake comes out of `wait`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            assert isinstance(error, Exception)
            self._crashed(error)

    def _crashed(self, error: Exception) -> None:
        self._crash = self._crash or error
        self._report_progress()

    async def _fetch(self, leader: int, lane: _Lane, partitions: list[_Partition], wait_ms: int) -> None:
        asked = {partition.name: partition for partition in partitions}
        try:
            response = await self._ask(leader, lane, asked, wait_ms)
        except KafkaError as error:
            self._warn(f"broker {leader}: {error}")
            self._trouble(partitions, error)
        else:
            self._absorb(response, asked)
        finally:
            lane.due_s = None
            self._dispatch_soon()

    async def _ask(self, leader: int, lane: _Lane, asked: Mapping[TopicPartition, _Partition], wait_ms: int) -> Any:
        self.requests += 1
        body = {
            "max_wait_ms": wait_ms,
            "min_bytes": _MIN_BYTES,
            "max_bytes": self._settings.response_max_bytes,
            "isolation_level": _READ_COMMITTED if self._settings.read_committed else _READ_UNCOMMITTED,
            "topics": self._topics(asked),
        }
        where = f"{len(asked)} partitions of broker {leader}"
        response = await self._client.call("Fetch", body, node=leader, lane=self._lane_key(lane.number), where=where)
        check_code(response.error_code, "Fetch", where)
        return response

    def _topics(self, asked: Mapping[TopicPartition, _Partition]) -> list[dict[str, Any]]:
        """Neighbours of one topic together; the order is kept, a broker fills its answer in that order."""
        topics: list[dict[str, Any]] = []
        buffer_bytes = self._buffer_bytes
        for name, partition in asked.items():
            if not topics or topics[-1]["topic"] != name.topic:
                topics.append({"topic": name.topic, "partitions": []})
            topics[-1]["partitions"].append(
                {
                    "partition": name.partition,
                    "fetch_offset": partition.position,
                    "partition_max_bytes": max(buffer_bytes - partition.buffered_bytes, 1),  # a broker gives one batch
                }
            )
        return topics

    def _absorb(self, response: Any, asked: dict[TopicPartition, _Partition]) -> None:
        troubled: dict[int, list[_Partition]] = {}
        for topic in response.responses:
            for answer in topic.partitions:
                partition = asked.pop(TopicPartition(topic.topic, answer.partition_index))
                if partition.gone:
                    continue
                if answer.error_code != ErrorCode.NONE:
                    troubled.setdefault(answer.error_code, []).append(partition)
                    continue
                self._absorb_one(partition, answer)
        for code, partitions in troubled.items():
            self._refused(code, partitions)
        assert not asked, f"the broker did not say anything of {', '.join(map(str, asked))}"

    def _absorb_one(self, partition: _Partition, answer: Any) -> None:
        read_committed = self._settings.read_committed
        partition.asking = False
        partition.tries, partition.troubled_since_s = 0, None
        partition.end_offset = answer.last_stable_offset if read_committed else answer.high_watermark
        partition.idle = not answer.records
        if not partition.idle:
            self._fill(partition, answer)
        self._report_progress()

    def _fill(self, partition: _Partition, answer: Any) -> None:
        # A copy, so that one batch that stays does not keep the whole response.
        data = bytes(answer.records)
        self.bytes_fetched += len(data)
        entries = (answer.aborted_transactions or ()) if self._settings.read_committed else ()
        aborted = [AbortedTransaction(entry.first_offset, entry.producer_id) for entry in entries]
        try:
            partition.buffer_up(read_batches(partition.name, data, partition.position, aborted))
        except KafkaError as error:
            partition.failure = error
        self._move_back(partition)

    def _move_back(self, partition: _Partition) -> None:
        del self._partitions[partition.name]
        self._partitions[partition.name] = partition
        if partition.buffer:
            self._filled[partition.name] = partition

    # Trouble

    def _refused(self, code: int, partitions: list[_Partition]) -> None:
        """One code for some partitions of a request."""
        if error_row(code).retriable:
            self._recover_soon(partitions)
            return
        for partition in partitions:
            self._refuse(partition, code)

    def _refuse(self, partition: _Partition, code: int) -> None:
        try:
            check_code(code, "Fetch", str(partition.name), f"offset {partition.position}")
        except KafkaError as error:
            self._give_up(partition, error)

    def _trouble(self, partitions: list[_Partition], error: KafkaError) -> None:
        """A whole request failed."""
        if error_row(error.code).retriable:
            self._recover_soon(partitions)
            return
        for partition in partitions:
            self._give_up(partition, error)

    def _give_up(self, partition: _Partition, error: Exception) -> None:
        partition.asking = False
        partition.failure = error
        self._report_progress()

    def _raise_failure(self) -> None:
        if self._crash is not None:
            raise self._crash
        for partition in self._partitions.values():
            if partition.failure is not None and not partition.buffer:
                raise partition.failure

    def _recover_soon(self, partitions: list[_Partition]) -> None:
        now_s = asyncio.get_running_loop().time()
        for partition in partitions:
            partition.asking = True
            if partition.troubled_since_s is None:
                partition.troubled_since_s = now_s
        self._start(self._recover(partitions))

    async def _recover(self, partitions: list[_Partition]) -> None:
        """Find the leaders again, for ever: the first time at once, then with growing pauses."""
        tries = max(partition.tries for partition in partitions)
        await asyncio.sleep(self._pause_s(tries))
        if tries >= _TRIES_BEFORE_WARNING:
            self._warn(f"no usable leader of {', '.join(str(partition.name) for partition in partitions)}")
        try:
            await self._client.refresh_metadata({partition.name.topic for partition in partitions})
            await self._give_up_unknown(partitions)
        except KafkaError as error:
            self._warn(str(error))
            if not error_row(error.code).retriable:
                for partition in partitions:
                    self._give_up(partition, error)
        for partition in partitions:
            partition.tries += 1
            partition.asking = False
        self._dispatch_soon()

    async def _give_up_unknown(self, partitions: list[_Partition]) -> None:
        """A partition without a leader may come back; one that does not exist is not waited for any longer."""
        patience_s = self._settings.unknown_topic_timeout_ms / 1000
        since_s = asyncio.get_running_loop().time() - patience_s
        overdue = [each for each in partitions if each.troubled_since_s is not None and each.troubled_since_s < since_s]
        if not overdue:
            return
        counts = await self._client.partition_counts({partition.name.topic for partition in overdue})
        for partition in overdue:
            if partition.name.partition >= counts.get(partition.name.topic, 0):
                self._refuse(partition, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)

    def _pause_s(self, tries: int) -> float:
        settings = self._client.settings
        if not tries:
            return 0.0
        return min(settings.retry_backoff_ms << min(tries - 1, 16), settings.retry_backoff_max_ms) / 1000

    def _warn(self, what: str) -> None:
        """What goes on for ever would fill the log, and several fetchers would say the same."""
        now_ms = asyncio.get_running_loop().time() * 1000
        self._client.complaints.warn("reading", now_ms, "reading failed and is tried again: %s", what)

    def _report_progress(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()
