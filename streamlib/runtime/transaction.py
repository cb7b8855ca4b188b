"""The one commit point: outputs, changelogs and offsets of all tasks of a worker become visible together.

    begin            nothing is sent; the transaction opens with the first record
      outputs stream out while processing goes on
    seal             what the tasks have done so far is to be committed; they may go on with what comes next
    commit
      1  changelog records from the overlays        several updates of a key are one record
      2  flush                                      every record is acknowledged, or the transaction is aborted
      3  offsets, with live group metadata          the coordinator refuses an old generation: zombies end here
      4  EndTxn(commit)                             now it is visible
      5  the stores are written                     overlay + changelog position, one atomic write per task

What is processed during a commit stays in the tasks: nothing of it is sent before the commit has ended, and if that
fails it goes down with it, for it was made of what is not committed.

A crash before 4 leaves an aborted transaction and stores as they were. A crash between 4 and 5 leaves stores whose
position is behind their changelog: restoring the tail brings them up. Nothing uncommitted is ever on disk.

Exactly-once uses two transactional ids in turn: a producer that starts its next transaction at once meets its own
unfinished markers and is made to wait 20 ms by the broker, another id is not (measured: 0.8 ms per commit instead of
22 ms). The next transaction is opened only after the one before it is known to be committed, so at most one of the
two has anything open.

At-least-once runs the same steps with a producer without transactions: outputs and changelogs are acknowledged, the
stores written, then the offsets committed. A crash in between repeats records, and loses none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from streamlib.engine.task import Sealed, Task
from streamlib.errors import ErrorCode, KafkaError
from streamlib.records import GroupMetadata, OffsetAndMetadata, OutRecord, TopicPartition
from streamlib.runtime.membership import Membership
from streamlib.runtime.ports import Group, Producer

Offsets = Mapping[TopicPartition, OffsetAndMetadata]


class Work(NamedTuple):
    """What some tasks did, sealed to be committed together."""

    parts: Sequence[tuple[Task, Sealed]]
    offsets: Offsets

    @property
    def low_water_marks(self) -> dict[TopicPartition, int]:
        """For each input the offset below which nothing is read again once this is committed."""
        return {partition: mark for _, part in self.parts for partition, mark in part.low_water_marks.items()}


def seal(tasks: Iterable[Task]) -> Work:
    """Begin a commit of all that the tasks have done so far. Their outputs have to be handed over already."""
    parts = [(task, task.seal()) for task in tasks]
    offsets: dict[TopicPartition, OffsetAndMetadata] = {}
    for _, part in parts:
        assert offsets.keys().isdisjoint(part.offsets), f"two tasks of one worker read {offsets.keys() & part.offsets}"
        offsets.update(part.offsets)
    return Work(parts, offsets)


class Committer(Protocol):
    """Where outputs go, and what makes them final."""

    @property
    def open(self) -> bool:
        """Whether something was sent or is owed since the last commit."""
        ...

    @property
    def buffered_bytes(self) -> int:
        """Bytes sent and not acknowledged."""
        ...

    async def init(self) -> None:
        """Fresh producer ids; finishes whatever an earlier life of this worker left open."""
        ...

    def send(self, outputs: Mapping[TopicPartition, Sequence[OutRecord]]) -> None:
        """Hand over outputs; they leave in the background."""
        ...

    async def wait_for_room(self) -> None:
        """Return when the producer takes more."""
        ...

    async def commit(self, work: Work) -> None:
        """All the steps above. Raises `KafkaError` if it is not known to have happened.

        Nothing is to be sent before it returns.
        """
        ...

    async def abort(self) -> None:
        """Give up what is open; never raises for what only says that it is gone already."""
        ...

    async def close(self) -> None: ...


class ExactlyOnce:
    """Transactions over two producers in turn."""

    def __init__(self, producers: Sequence[Producer], group: Group, membership: Membership) -> None:
        assert len(producers) == 2, "two transactional ids are used in turn"
        self._producers = list(producers)  # the first is in use
        self._group = group
        self._membership = membership
        self.open = False

    @property
    def buffered_bytes(self) -> int:
        return self._producers[0].buffered_bytes

    async def init(self) -> None:
        """Both ids, in turn: each call finishes what that id has left open."""
        self.open = False
        for producer in self._producers:
            await producer.init()

    def send(self, outputs: Mapping[TopicPartition, Sequence[OutRecord]]) -> None:
        self._begin()
        for partition, records in outputs.items():
            self._producers[0].send(partition, records)

    async def wait_for_room(self) -> None:
        await self._producers[0].wait_for_room()

    async def commit(self, work: Work) -> None:
        self._begin()
        producer = self._producers[0]
        ends = await _send_and_flush(producer, work)
        assert work.offsets or not ends, "records without offsets: nobody would refuse them from a zombie"
        await _with_live_generation(self._membership, producer.add_offsets, work.offsets)
        await producer.end(commit=True)
        self.open = False
        self._producers.reverse()
        _write_stores(work, ends)

    async def abort(self) -> None:
        if not self.open:
            return
        self.open = False
        await _abort_quietly(self._producers[0])

    async def close(self) -> None:
        for producer in self._producers:
            await producer.close()

    def _begin(self) -> None:
        if not self.open:
            self._producers[0].begin()
            self.open = True


class AtLeastOnce:
    """One idempotent producer; offsets after everything else."""

    def __init__(self, producer: Producer, group: Group, membership: Membership) -> None:
        self._producer = producer
        self._group = group
        self._membership = membership
        self.open = False

    @property
    def buffered_bytes(self) -> int:
        return self._producer.buffered_bytes

    async def init(self) -> None:
        self.open = False
        await self._producer.init()

    def send(self, outputs: Mapping[TopicPartition, Sequence[OutRecord]]) -> None:
        self.open = True
        for partition, records in outputs.items():
            self._producer.send(partition, records)

    async def wait_for_room(self) -> None:
        await self._producer.wait_for_room()

    async def commit(self, work: Work) -> None:
        self.open = True
        ends = await _send_and_flush(self._producer, work)
        _write_stores(work, ends)
        await _with_live_generation(self._membership, self._group.commit_offsets, work.offsets)
        self.open = False

    async def abort(self) -> None:
        self.open = False

    async def close(self) -> None:
        await self._producer.close()


async def _send_and_flush(producer: Producer, work: Work) -> dict[TopicPartition, int]:
    for _, part in work.parts:
        for partition, records in part.changelog.items():
            producer.send(partition, records)
    return await producer.flush()


def _write_stores(work: Work, ends: Mapping[TopicPartition, int]) -> None:
    for task, _ in work.parts:
        task.commit({partition: ends[partition] for partition in task.changelogs if partition in ends})


class _Commit(Protocol):
    async def __call__(self, group: GroupMetadata, offsets: Offsets) -> None: ...


async def _with_live_generation(membership: Membership, commit: _Commit, offsets: Offsets) -> None:
    """Commit offsets under the current generation.

    Our own JoinGroup may have been answered at the broker while the request was on its way: ILLEGAL_GENERATION then
    only means "say it again under the new one". Plain commits are refused with REBALANCE_IN_PROGRESS between a join and
    its sync (measured on Kafka 3.9 and 4.3), which means "say it again after the sync". A refusal under a generation
    that is still ours to the best of our knowledge means that the group went on without us.
    """
    if not offsets:
        return
    while True:
        metadata = membership.metadata
        if metadata.generation < 0:
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID, "TxnOffsetCommit", metadata.group_id, "no live generation")
        settled = membership.settled
        try:
            await commit(metadata, offsets)
            return
        except KafkaError as error:
            if error.code not in (ErrorCode.ILLEGAL_GENERATION, ErrorCode.REBALANCE_IN_PROGRESS):
                raise
            await _rebalance_went_on(membership, metadata)
            now = membership.metadata
            moved = now.generation > metadata.generation
            synced = error.code == ErrorCode.REBALANCE_IN_PROGRESS and not settled and now == metadata
            if now.member_id != metadata.member_id or not (moved or synced):
                raise


async def _rebalance_went_on(membership: Membership, used: GroupMetadata) -> None:
    """Wait until a join or sync under way has been answered, or was in vain."""
    while not membership.settled and membership.metadata == used:
        await membership.moved()


async def _abort_quietly(producer: Producer) -> None:
    # Whoever has ended it already, or cannot be reached: `init` settles it before anything else is sent.
    with suppress(KafkaError):
        await producer.end(commit=False)
