"""Replays dead letters: so many records and the offset that says so, in one transaction.

Only one replay of a topic works at a time: all of them have the same transactional id and the same `group.instance.id`,
so that a later one throws out an earlier one, or what a crash has left of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import msgspec

from streamlib.cli.dlq.plan import Plan, Request, Route
from streamlib.cli.dlq.reading import Advance, read_letters, what_was_replayed
from streamlib.cli.dlq.replayed import Replayed
from streamlib.dead_letters.letters import Letter
from streamlib.errors import ErrorCode, KafkaError, StreamsError
from streamlib.kafka.connection import Connection
from streamlib.kafka.group import KafkaGroup
from streamlib.kafka.producer import KafkaProducer
from streamlib.records import GroupMetadata, OutRecord, TopicPartition
from streamlib.runtime.ports import Assignment, Subscription

INSTANCE_ID = "replay"

CHUNK_RECORDS = 1_000
CHUNK_BYTES = 4 << 20

_ABORT_PATIENCE_S = 5.0
_BEAT_INTERVAL_S = 1.0
_TAKEN_OVER = frozenset(
    {
        ErrorCode.PRODUCER_FENCED,
        ErrorCode.INVALID_PRODUCER_EPOCH,
        ErrorCode.FENCED_INSTANCE_ID,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.ILLEGAL_GENERATION,
        ErrorCode.REBALANCE_IN_PROGRESS,
    }
)


class TakenOverError(StreamsError):
    """Another replay of the same topic has begun, or this one was too slow."""


async def replay(connection: Connection, request: Request, route: Route, plan: Plan, advance: Advance) -> int:
    """Write what the plan says and has not been replayed meanwhile; returns how many records.

    Raises:
        TakenOverError: see there; what was committed stays.
        KafkaError: a topic does not take a record, or the cluster does not answer.
    """
    try:
        async with _writer(connection) as writer:
            return await _Replay(connection, request, route, plan, writer).run(advance)
    except KafkaError as error:
        if error.code not in _TAKEN_OVER:
            raise
        raise TakenOverError(
            f"this replay of {request.topic} stopped: another one has begun, or this one stood still for too long; "
            "what it has committed stays: begin again for the rest"
        ) from None


class _Writer(msgspec.Struct, frozen=True):
    """Who writes, and commits offsets."""

    producer: KafkaProducer
    group: KafkaGroup
    member: GroupMetadata


@asynccontextmanager
async def _writer(connection: Connection) -> AsyncIterator[_Writer]:
    group = connection.group()
    producer = connection.producer(connection.application_id)
    await producer.init()
    joined = await group.join("", Subscription(()))
    assignments = {member.member_id: Assignment(()) for member in joined.members}
    await group.sync(joined.generation, joined.member_id, assignments)
    member = GroupMetadata(connection.application_id, joined.generation, joined.member_id, INSTANCE_ID)
    try:
        yield _Writer(producer, group, member)
    finally:
        with anyio.move_on_after(_ABORT_PATIENCE_S, shield=True), suppress(StreamsError):
            await group.leave(joined.member_id)
        with anyio.CancelScope(shield=True):
            await producer.close()


class _Replay:
    """One replay at work. Nothing here outlives a failure: what is true is what was committed."""

    def __init__(self, connection: Connection, request: Request, route: Route, plan: Plan, writer: _Writer) -> None:
        self._connection = connection
        self._request = request
        self._route = route
        self._extent = plan.extent
        self._writer = writer
        self._replayed: dict[TopicPartition, Replayed] = {}
        self._passed: dict[TopicPartition, int] = {}  # behind the last record that was looked at
        self._chunk: dict[TopicPartition, list[OutRecord]] = defaultdict(list)
        self._chunk_records = self._chunk_bytes = 0
        self._next_beat_s = 0.0

    async def run(self, advance: Advance) -> int:
        written = 0
        # Only now, when no other replay can commit any more, is it certain what has been replayed.
        self._replayed = await what_was_replayed(self._connection, self._extent, again=self._request.again)
        self._passed = {partition: each.first_left for partition, each in self._replayed.items()}
        extent = self._extent.after(self._replayed)
        async for letters in read_letters(self._connection, extent, lambda offsets: None):
            for letter in letters:
                await self._take(letter)
                if self._chunk_records >= CHUNK_RECORDS or self._chunk_bytes >= CHUNK_BYTES:
                    written += await self._commit(advance)
            await self._beat()
        for partition, end in extent.ends.items():
            self._replayed[partition].add(self._passed[partition], end)
        return written + (await self._commit(advance) if self._chunk_records else 0)

    async def _beat(self) -> None:
        """Stay a member; batches may be as small as one record, and come quicker than beats are needed."""
        now_s = anyio.current_time()
        if now_s >= self._next_beat_s:
            self._next_beat_s = now_s + _BEAT_INTERVAL_S
            await self._writer.group.heartbeat(self._writer.member.generation, self._writer.member.member_id)

    async def _take(self, letter: Letter) -> None:
        """Into the chunk, if it is to be replayed. Offsets without a record count as replayed: they join ranges."""
        replayed = self._replayed[letter.partition]
        replayed.add(self._passed[letter.partition], letter.offset)
        self._passed[letter.partition] = letter.offset + 1
        if letter.offset in replayed or letter not in self._request.wanted:
            return
        target = await self._route.of(letter)
        if target is None:
            return
        key, value, _, _ = letter.record
        self._chunk[target].append(letter.record)
        self._chunk_records += 1
        self._chunk_bytes += len(key or b"") + len(value or b"")
        replayed.add(letter.offset, letter.offset + 1)

    async def _commit(self, advance: Advance) -> int:
        producer, member = self._writer.producer, self._writer.member
        offsets = {partition: each.to_commit(partition) for partition, each in self._replayed.items()}
        producer.begin()
        try:
            for partition, records in self._chunk.items():
                producer.send(partition, records)
            await producer.add_offsets(member, offsets)
            await producer.end(commit=True)
        except BaseException:
            with anyio.move_on_after(_ABORT_PATIENCE_S, shield=True), suppress(StreamsError):
                await producer.end(commit=False)
            raise
        count = self._chunk_records
        self._chunk.clear()
        self._chunk_records = self._chunk_bytes = 0
        advance(count)
        return count
