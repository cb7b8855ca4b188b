"""One partition: batches, producer states, transactions, what a reader may see.

    start_offset          last_stable_offset            end_offset (= high watermark: a write is replicated at once)
         │  read_committed        │   read_uncommitted        │
    ─────┴────────────────────────┴───────────────────────────┴─────> offsets
         committed and aborted      first record of the oldest
         transactions, markers      open transaction

Batches are the bytes that producers sent, so clients decode what a broker would give them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from streamlib.errors import ErrorCode, KafkaError
from streamlib.kafka.batches import AbortedTransaction, BatchHeader, split_batches
from streamlib.kafka.broker_batches import StoredRecord, end_marker, placed, received, stored_records, thinned
from streamlib.records import TopicPartition
from streamlib.simulation.cluster.basics import Refused
from streamlib.simulation.cluster.producer_states import ProducerState

MAX_BATCH_BYTES = 1_048_588
"""What a broker takes at most, `message.max.bytes`."""


class Slice(NamedTuple):
    """What a reader gets: whole batches, the aborted transactions that overlap them, and where the log is now."""

    data: bytes
    aborted: list[AbortedTransaction]
    start_offset: int
    last_stable_offset: int
    end_offset: int


class _Stored(NamedTuple):
    header: BatchHeader
    data: bytes


class _Aborted(NamedTuple):
    producer_id: int
    first_offset: int
    last_offset: int  # the marker's


class PartitionLog:
    """One partition's log, with what its leader knows of producers and transactions.

    Args:
        partition: its name.
        compacted: whether the topic is compacted: each record needs a key then.
        max_batch_bytes: larger batches are refused.
    """

    def __init__(
        self, partition: TopicPartition, *, compacted: bool = False, max_batch_bytes: int = MAX_BATCH_BYTES
    ) -> None:
        self.partition = partition
        self.compacted = compacted
        self.start_offset = 0
        self.end_offset = 0
        self._max_batch_bytes = max_batch_bytes
        self._batches: list[_Stored] = []  # by offset; compaction leaves gaps
        self._producers: dict[int, ProducerState] = {}
        self._open: dict[int, int] = {}  # producer id and first offset; a new one comes last, so by offset, too
        self._aborted: list[_Aborted] = []  # by the marker's offset
        self._watchers: dict[Callable[[], None], None] = {}

    @property
    def last_stable_offset(self) -> int:
        """Where committed reading ends: before the first record of the oldest open transaction."""
        first = next(iter(self._open.values()), self.end_offset)
        return max(first, self.start_offset)

    @property
    def open_transactions(self) -> Mapping[int, int]:
        """The first offset of each open transaction, by producer id."""
        return MappingProxyType(self._open)

    def has_open_transaction(self, producer_id: int, epoch: int | None = None) -> bool:
        """Whether the producer has written to a transaction that is open here; in this epoch, if one is given."""
        if producer_id not in self._open:
            return False
        return epoch is None or self._producers[producer_id].epoch == epoch

    def readable_end(self, *, committed: bool) -> int:
        """Where reading ends."""
        return self.last_stable_offset if committed else self.end_offset

    def has_offset(self, offset: int) -> bool:
        """Whether reading may begin there: from the start up to the end, where the next record will be."""
        return self.start_offset <= offset <= self.end_offset

    # Writing

    def check(self, data: bytes | bytearray) -> BatchHeader:
        """The header of a client's batch. Raises `Refused` if it is damaged or not allowed here, whoever sends it."""
        try:
            header = received(self.partition, data)
        except KafkaError as error:
            raise Refused(ErrorCode(error.code)) from error
        if len(data) > self._max_batch_bytes:
            raise Refused(ErrorCode.MESSAGE_TOO_LARGE)
        if self.compacted and any(record.key is None for record in stored_records(data)):
            raise Refused(ErrorCode.INVALID_RECORD)
        return header

    def append(self, data: bytes | bytearray, *, begins_at_zero: bool = False) -> int:
        """Take in a client's batch; returns the offset of its first record.

        One that is there already is not written again, and gets the same answer.

        Args:
            data: one batch.
            begins_at_zero: whether a producer that is new here has to begin at sequence 0 (KIP-890).

        Raises:
            Refused: as `check`; and the batch is not the producer's next, or of an older epoch.
        """
        header = self.check(data)
        if header.producer_id < 0:
            return self._store(header, data)
        state = self._producer(header.producer_id)
        before = state.duplicate(header)
        if before is not None:
            return before
        state.check(header, begins_at_zero=begins_at_zero)
        if header.producer_id in self._open and not header.is_transactional:
            raise Refused(ErrorCode.INVALID_TXN_STATE)
        state.remember(header, self.end_offset)
        if header.is_transactional:
            self._open.setdefault(header.producer_id, self.end_offset)
        return self._store(header, data)

    def append_marker(self, producer_id: int, epoch: int, commit: bool, timestamp: int) -> int:
        """End the producer's transaction here; returns the marker's offset.

        From then on writes of an older epoch are refused, also if it had written nothing. Raises `Refused` if the
        marker itself is of an older epoch.
        """
        self._producer(producer_id).end_transaction(epoch)
        data = end_marker(producer_id, epoch, commit=commit, timestamp=timestamp)
        first = self._open.pop(producer_id, None)
        if first is not None and not commit:
            self._aborted.append(_Aborted(producer_id, first, self.end_offset))
        [(header, _)] = split_batches(self.partition, data)
        return self._store(header, data)

    def _producer(self, producer_id: int) -> ProducerState:
        state = self._producers.get(producer_id)
        if state is None:
            state = self._producers[producer_id] = ProducerState()
        return state

    def _store(self, header: BatchHeader, data: bytes | bytearray) -> int:
        offset = self.end_offset
        self._batches.append(_Stored(header._replace(base_offset=offset), placed(data, offset)))
        self.end_offset = offset + header.last_offset_delta + 1
        self.wake()
        return offset

    # Reading

    def read(self, offset: int, max_bytes: int, *, committed: bool, at_least_one: bool = True) -> Slice:
        """Batches from the one that holds `offset` on (or the next one, if there is a gap).

        Args:
            offset: where to begin.
            max_bytes: about how much; the first batch may be larger, with `at_least_one`.
            committed: up to the last stable offset only.
            at_least_one: whether a batch that is larger than `max_bytes` is given all the same.

        Raises:
            Refused: OFFSET_OUT_OF_RANGE.
        """
        if not self.has_offset(offset):
            raise Refused(ErrorCode.OFFSET_OUT_OF_RANGE)
        taken = self._take(offset, max_bytes, self.readable_end(committed=committed), at_least_one)
        aborted: list[AbortedTransaction] = []
        if taken and committed:
            aborted = self._aborted_between(offset, taken[-1].header.next_offset)
        data = b"".join(batch.data for batch in taken)
        return Slice(data, aborted, self.start_offset, self.last_stable_offset, self.end_offset)

    def committed_records(self) -> list[StoredRecord]:
        """All that a reader of committed records finds between the start and the last stable offset."""
        start, end = self.start_offset, self.last_stable_offset
        records = (record for batch in self._visible(end) for record in stored_records(batch.data))
        return [record for record in records if start <= record.offset < end]

    def _take(self, offset: int, max_bytes: int, end: int, at_least_one: bool) -> list[_Stored]:
        taken: list[_Stored] = []
        if offset >= end:  # the start of the log may lie within a batch of an open transaction
            return taken
        left = max_bytes
        for index in range(self._place(offset), len(self._batches)):
            batch = self._batches[index]
            left -= len(batch.data)
            if batch.header.base_offset >= end or (left < 0 and not (at_least_one and not taken)):
                break
            taken.append(batch)
        return taken

    def _place(self, offset: int) -> int:
        """The index of the first batch that ends behind the offset."""
        return bisect_right(self._batches, offset, key=lambda batch: batch.header.next_offset)

    def _aborted_between(self, start: int, end: int) -> list[AbortedTransaction]:
        first = bisect_left(self._aborted, start, key=lambda each: each.last_offset)
        return [
            AbortedTransaction(each.first_offset, each.producer_id)
            for each in self._aborted[first:]
            if each.first_offset < end
        ]

    def _visible(self, end: int) -> Iterator[_Stored]:
        """Batches of records below `end` that no transaction has aborted."""
        for batch in self._batches:
            if batch.header.base_offset >= end:
                return
            if not batch.header.is_control and not self._is_aborted(batch.header):
                yield batch

    def _is_aborted(self, header: BatchHeader) -> bool:
        return header.is_transactional and any(
            each.producer_id == header.producer_id and each.first_offset <= header.base_offset < each.last_offset
            for each in self._aborted
        )

    # Waiting

    def watch(self, action: Callable[[], None]) -> None:
        """Call the action whenever there may be something new to read, until `unwatch`."""
        self._watchers[action] = None

    def unwatch(self, action: Callable[[], None]) -> None:
        """Harmless if it is not there."""
        self._watchers.pop(action, None)

    def wake(self) -> None:
        """Let all who watch look again, as when the log has got another leader."""
        for action in list(self._watchers):
            if action in self._watchers:
                action()

    # Removing

    def delete_before(self, offset: int) -> int:
        """Drop what is before the offset; returns the start of the log.

        Raises:
            Refused: OFFSET_OUT_OF_RANGE, it is behind the end.
        """
        if not 0 <= offset <= self.end_offset:
            raise Refused(ErrorCode.OFFSET_OUT_OF_RANGE)
        if offset > self.start_offset:
            self.start_offset = offset
            del self._batches[: self._place(offset)]
            self._aborted = [each for each in self._aborted if each.last_offset >= offset]
            self.wake()
        return self.start_offset

    def compact(self, *, drop_tombstones: bool = False) -> None:
        """Keep the newest record of each key, as the log cleaner does; what is left stays where it is.

        Aborted records and markers go, and nothing from the last batch below the last stable offset on is touched:
        the cleaner leaves the active segment alone, so a reader always gets to the end.

        Args:
            drop_tombstones: as if `delete.retention.ms` had passed since the deletions: a reader that stopped before
                one never hears of it. Brokers wait for a day with that.
        """
        assert self.compacted, f"{self.partition} is not compacted"
        end = self._cleanable_end()
        keep = self._newest(end, drop_tombstones)
        place = self._place(end)
        # Also what is aborted: the markers that readers still need are behind `end`, with their entries in the index.
        kept = ((batch, thinned(batch.header, batch.data, keep)) for batch in self._batches[:place])
        self._batches[:place] = [batch._replace(data=data) for batch, data in kept if data is not None]
        self._aborted = [each for each in self._aborted if each.last_offset >= end]

    def _cleanable_end(self) -> int:
        below = bisect_left(self._batches, self.last_stable_offset, key=lambda batch: batch.header.base_offset)
        return self._batches[below - 1].header.base_offset if below else self.start_offset

    def _newest(self, end: int, drop_tombstones: bool) -> set[int]:
        newest: dict[bytes | None, StoredRecord] = {}
        for batch in self._visible(end):
            newest.update((record.key, record) for record in stored_records(batch.data))
        return {record.offset for record in newest.values() if record.value is not None or not drop_tombstones}
