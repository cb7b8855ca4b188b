"""Retry topics: a record that failed at a step leaves the task, and comes back to the same step when it is due.

    step fails --park--> outbox --transaction--> <application>-<step>-retry-1, the partition with the task's number
       ^                                                                 |
       +-- cursor as at the first reading <-- source of the topics <-----+   its input holds the head until it is due

A delay has a topic of its own, in which records are due in the order they come, so to hold the first of them is
enough: nothing is kept in memory or in a store, and the offset committed of the topic says which are still parked. They
carry in their headers what they were when they were read first. That is what the cursor shows when they are back, so
ids, dead letters and messages are those of the first reading.

With `keep_order` the records of a key that come while others of it are parked go behind them (`ParkedKeys`).
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any, NamedTuple

import msgspec

from streamlib.engine.cursor import Returned
from streamlib.engine.inputs import CompiledSource, NodeFn, Waits
from streamlib.engine.operators.sink import batch_bytes
from streamlib.engine.operators.site import OpenStore, Work, short
from streamlib.errors import RecordTooLargeError, SerializationError
from streamlib.policies import RetryTopics
from streamlib.records import FetchedRecord, Headers, OutRecord, TopicPartition
from streamlib.topology.nodes import SourceNode

_PREFIX = "__streams.retry."

LONGEST_MESSAGE = 500
"""So much is told of what was raised."""

LEAST_BEHIND_MS = 1_000
"""A record that comes back before the first of its key goes away for so long at least."""

_ROW = Struct(">qqqq")


class StepRecord(NamedTuple):
    """A record as it comes to a step."""

    key: Any
    value: Any
    timestamp: int
    headers: Headers


class _First(msgspec.Struct, array_like=True, frozen=True):
    """What a record was when it was read first, as far as it cannot be seen from the parked one. `differs`: whether the
    parked one has another key, value, or other headers."""

    timestamp: int
    derived: tuple[int, ...]
    differs: tuple[bool, bool, bool]
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


_FIRST = msgspec.msgpack.Decoder(_First)


class ParkedKey(NamedTuple):
    """The parked records of a key: they have the numbers from `first`, which goes on before all others, to `following`.

    `stage` is the number of failures after which the first was parked, less one, and `due_ms` when it comes back.
    """

    first: int
    following: int
    stage: int
    due_ms: int


class ParkedKeys:
    """The keys of a step that have parked records, in a store.

    A record goes on only if it is the first of its key, whatever way those of a key come back: each has its number.
    """

    def __init__(self, store: OpenStore) -> None:
        self._overlay = store.overlay

    def of(self, key: bytes) -> ParkedKey | None:
        """None if the key has no parked records."""
        row = self._overlay.get(key)
        return None if row is None else ParkedKey(*_ROW.unpack(row))

    def put(self, key: bytes, parked: ParkedKey, timestamp: int) -> None:
        """Note what is parked; nothing any more, if the first is the one that would follow."""
        if parked.first == parked.following:
            self._overlay.delete(key, timestamp)
        else:
            self._overlay.put_at(key, _ROW.pack(*parked), timestamp)


class Parking:
    """The retry topics of one step in one task.

    Args:
        step: its name.
        policy: that of the step.
        source: what reads the topics.
        topics: their full names.
        work: the task's.
    """

    def __init__(self, step: str, policy: RetryTopics, source: SourceNode, topics: Sequence[str], work: Work) -> None:
        self._step = step
        self._delays_ms = [round(delay.total_seconds() * 1000) for delay in policy.delays]
        self._source = source
        self._topics = topics
        self._work = work
        self._keys = ParkedKeys(work.stores[source.name]) if policy.keep_order else None

    @property
    def failures(self) -> int:
        """How often the record in process has failed here before."""
        returned = self._returned
        return 0 if returned is None else returned.failures

    @property
    def used_up(self) -> bool:
        """Whether there is no further delay for the record in process."""
        return self.failures >= len(self._delays_ms)

    @property
    def keeps_order(self) -> bool:
        """Whether records wait for others of their key that are parked."""
        return self._keys is not None

    @property
    def numbered(self) -> bool:
        """Whether others of its key may wait for the record in process."""
        return self._returned is not None and self._returned.number is not None

    def park(self, record: StepRecord, error: Exception) -> int:
        """Put the record in process away until its next delay is over; returns that, in ms.

        Raises:
            SerializationError: it cannot be written.
        """
        key, value = self._encoded(record)
        stage = self.failures
        due_ms = self._work.facts.now_ms() + self._delays_ms[stage]
        number, parked = self._numbered(key, stage, due_ms)
        self._send(stage, self._letter((key, value), record, _told(stage + 1, due_ms, number, error)))
        if parked is not None and key is not None and self._keys is not None:
            self._keys.put(key, parked, record.timestamp)
        return self._delays_ms[stage]

    def behind(self, record: StepRecord) -> bool:
        """Put the record in process behind those of its key that are parked; returns whether there are any.

        Raises:
            SerializationError: it cannot be written.
        """
        if self._keys is None or record.key is None:
            return False
        key = self._encoded_key(record)
        parked = self._keys.of(key)
        if parked is None:
            return False
        number, due_ms = None if self._returned is None else self._returned.number, parked.due_ms
        if number is None:
            number, parked = parked.following, parked._replace(following=parked.following + 1)
        elif number <= parked.first:
            return False
        else:  # the first may be held up by others in its topic
            due_ms = max(due_ms, self._work.facts.now_ms() + LEAST_BEHIND_MS)
        stage, encoded = min(parked.stage, len(self._topics) - 1), self._encoded(record)
        self._send(stage, self._letter(encoded, record, _told(self.failures, due_ms, number, None)))
        self._keys.put(key, parked, record.timestamp)
        return True

    def done(self, record: StepRecord) -> None:
        """The record in process is done with here: the next of its key may go on."""
        returned = self._returned
        if self._keys is None or returned is None or returned.number is None:
            return
        key = self._encoded_key(record)
        parked = self._keys.of(key)
        if parked is not None and parked.first == returned.number:
            self._keys.put(key, parked._replace(first=parked.first + 1), record.timestamp)

    @property
    def _returned(self) -> Returned | None:
        record = self._work.cursor.record
        return record if isinstance(record, Returned) and record.step == self._step else None

    def _numbered(self, key: bytes | None, stage: int, due_ms: int) -> tuple[int | None, ParkedKey | None]:
        """The record's number among those of its key, and these with it."""
        if self._keys is None or key is None:
            return None, None
        number = None if self._returned is None else self._returned.number
        parked = self._keys.of(key)
        if parked is None:
            return 0, ParkedKey(0, 1, stage, due_ms)
        if number is None or number < parked.first:
            number, parked = parked.following, parked._replace(following=parked.following + 1)
        return number, parked._replace(stage=stage, due_ms=due_ms) if number == parked.first else parked

    def _encoded(self, record: StepRecord) -> tuple[bytes | None, bytes | None]:
        key = None if record.key is None else self._encoded_key(record)
        try:
            return key, None if record.value is None else self._source.value.encode(record.value)
        except Exception as error:
            raise self._unencodable(record, error) from error

    def _encoded_key(self, record: StepRecord) -> bytes:
        try:
            return self._source.key.encode(record.key)
        except Exception as error:
            raise self._unencodable(record, error) from error

    def _letter(
        self, encoded: tuple[bytes | None, bytes | None], record: StepRecord, told: dict[str, str]
    ) -> OutRecord:
        headers = [(f"{_PREFIX}{name}", text.encode()) for name, text in told.items()]
        letter = (*encoded, record.timestamp, (*record.headers, *headers, *self._first(encoded, record.headers)))
        if (size := batch_bytes(letter)) > (most := self._work.max_record_bytes):
            raise RecordTooLargeError(
                f"node {self._step} cannot park a record: with what it was when it was read it takes {size:,} bytes, "
                f"and max_request_size is {most:,}; raise it, and max.message.bytes of its retry topics",
                topic=self._topics[0],
                node=self._step,
            )
        return letter

    def _first(self, encoded: tuple[bytes | None, bytes | None], own: Headers) -> Headers:
        """What the record in process was when it was read first; nothing of one that a punctuator has forwarded."""
        cursor = self._work.cursor
        partition, record = cursor.partition, cursor.record
        if partition is None or record is None:
            return ()
        differs = record.key != encoded[0], record.value != encoded[1], tuple(record.headers) != tuple(own)
        first = _First(
            record.timestamp,
            cursor.derived,
            differs,
            record.key if differs[0] else None,
            record.value if differs[1] else None,
            tuple(record.headers) if differs[2] else (),
        )
        place = {"topic": partition.topic, "partition": str(partition.partition), "offset": str(record.offset)}
        return (
            *((f"{_PREFIX}{name}", text.encode()) for name, text in place.items()),
            (f"{_PREFIX}record", msgspec.msgpack.encode(first)),
        )

    def _send(self, stage: int, letter: OutRecord) -> None:
        """To the partition that this very task reads, whatever the key."""
        slots = self._work.outbox.slots(self._topics[stage])
        slots[self._work.facts.task_id.partition].append(letter)

    def _unencodable(self, record: StepRecord, error: Exception) -> SerializationError:
        key, value = record.key, record.value
        return SerializationError(
            f"node {self._step} cannot park the record with key {short(key)} ({type(key).__name__}) and value "
            f"{short(value)} ({type(value).__name__}): {error}; its retry topics have keys of {self._source.key.name} "
            f"and values of {self._source.value.name}, the types that come into the step: give the step before it the "
            "types it makes, as in map_values(..., value=...)",
            topic=self._topics[0],
            node=self._step,
        )


def _told(failures: int, due_ms: int, number: int | None, error: Exception | None) -> dict[str, str]:
    told = {"failures": str(failures), "due": str(due_ms)}
    if number is not None:
        told["number"] = str(number)
    if error is not None:
        cause = error.__cause__ or error
        told["exception"] = f"{type(cause).__module__}.{type(cause).__qualname__}"
        told["message"] = str(cause)[:LONGEST_MESSAGE]
    return told


def returning(source: SourceNode, forward: NodeFn, work: Work) -> CompiledSource:
    """What reads the retry topics of a step. They were written here, so what cannot be decoded is an error."""
    cursor, step = work.cursor, source.retries
    assert step is not None, f"{source.name} reads no retry topics"

    def come_back(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        partition, record = cursor.partition, cursor.record
        assert partition is not None, "a record that is read has a place"
        assert record is not None, "a record that is read is there"
        first_partition, returned = first_read(step, partition, record)
        cursor.partition, cursor.record, cursor.derived = first_partition, returned, returned.derived
        try:
            forward(key, value, timestamp, _own(headers))
        finally:
            cursor.derived = ()

    waits = Waits(_due_ms, work.facts.now_ms)
    return CompiledSource(source.name, come_back, source.key, source.value, _timestamp, retries=waits)


def first_read(step: str, partition: TopicPartition, record: FetchedRecord) -> tuple[TopicPartition, Returned]:
    """A record of a retry topic as it was when it was read first; one that came from nowhere came from there."""
    told = {name.removeprefix(_PREFIX): text for name, text in record.headers if name.startswith(_PREFIX)}
    number = told.get("number")
    own, place = _own(record.headers), (partition, record.offset)
    failures = int(told.get("failures") or 0)
    if (packed := told.get("record")) is None:
        back = Returned(
            record.offset, record.timestamp, own, record.key, record.value, (), step, failures, place,
            None if number is None else int(number),
        )  # fmt: skip
        return partition, back
    first = _FIRST.decode(packed)
    key, value, headers = first.differs
    back = Returned(
        int(told["offset"] or 0),
        first.timestamp,
        first.headers if headers else own,
        first.key if key else record.key,
        first.value if value else record.value,
        first.derived,
        step,
        failures,
        place,
        None if number is None else int(number),
    )
    return TopicPartition((told["topic"] or b"").decode(), int(told["partition"] or 0)), back


def _own(headers: Headers) -> Headers:
    """Without those of retry topics."""
    return tuple(header for header in headers if not header[0].startswith(_PREFIX))


def _due_ms(record: FetchedRecord) -> int:
    return next((int(text) for name, text in record.headers if name == f"{_PREFIX}due" and text), 0)


def _timestamp(record: Any, partition_time: int) -> int:
    """That at the step, which the record has in the topic."""
    timestamp: int = record.timestamp
    return timestamp
