"""The producer: transactions, or plain idempotent sends without a transactional id.

    send ──> one growing batch per partition ──> delivery, one per leader at a time ──> acknowledged
                                                      │ retriable: the same bytes again
                                                      └ anything else: the producer has failed

    NEW ──init──> READY ──begin──> OPEN ──end──> READY          any failure: only `init` leads on, to READY

A partition has at most one batch on its way, and it gets its sequence number when it leaves: order is kept without
any reckoning, whatever has to be sent again. While a batch is on its way the next ones fill up, so batches are as
large as the load makes them, without a timer.

Transactions come in two kinds (`KafkaClient.transaction_version`):

              before the first write to a partition     offsets             end
    version 2 nothing: Produce v12 adds it (KIP-890)    TxnOffsetCommit v5  EndTxn v5; its answer has a new epoch,
                                                                            and all sequences begin again at 0
    before    AddPartitionsToTxn                        AddOffsetsToTxn,    EndTxn v4; epoch and sequences stay
                                                        TxnOffsetCommit v4

First writes to a partition are never made two at once: with version 2 the broker adds them itself, and two that meet
cost a retry or a wait of 20 ms (measured on Kafka 4.3).
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from typing import Any, TypeVar

import msgspec

from streamlib.errors import ConnectionFailedError, ErrorCode, KafkaError
from streamlib.kafka.batches import BatchBuilder, codec_number, next_sequence, records_in
from streamlib.kafka.by_topic import answers, nested
from streamlib.kafka.client import KafkaClient, Response
from streamlib.kafka.errors import check_code, error_row
from streamlib.records import GroupMetadata, OffsetAndMetadata, OutRecord, TopicPartition

T = TypeVar("T")

_ALL_REPLICAS = -1
# What plain InitProducerId says when there are no transactions to time out (as Java's producer).
_NO_TIMEOUT_MS = 2**31 - 1
# The highest versions of the two kinds of transactions.
_VERSIONS_2 = {"Produce": 12, "TxnOffsetCommit": 5, "EndTxn": 5}
_VERSIONS_1 = {"Produce": 11, "TxnOffsetCommit": 4, "EndTxn": 4}
# A refusal of the group, not of the transaction: offsets may be added again under another generation.
_GROUP_REFUSALS = frozenset(
    {
        ErrorCode.ILLEGAL_GENERATION,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.REBALANCE_IN_PROGRESS,
        ErrorCode.FENCED_INSTANCE_ID,
    }
)


class ProducerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a producer works. Sizes are before compression.

    Where `batch_bytes` is above `max.message.bytes` of a topic, batches of it are made smaller as they are refused. A
    record may be larger, up to `max_request_bytes`, which also bounds what one request holds of several partitions.
    """

    transaction_timeout_ms: int = 10_000
    buffer_memory_bytes: int = 32 << 20
    batch_bytes: int = 256 << 10
    max_request_bytes: int = 1 << 20
    compression: str = "none"


class _State(Enum):
    NEW = "not initialised"
    READY = "initialised"
    OPEN = "in a transaction"
    ENDING = "ending a transaction"
    CLOSED = "closed"


class _Outgoing:
    """A batch that has left at least once: its bytes are fixed."""

    __slots__ = ("count", "data", "size_bytes")

    def __init__(self, count: int, size_bytes: int, data: bytearray) -> None:
        self.count = count
        self.size_bytes = size_bytes  # before compression
        self.data = data


class _Queue:
    """What waits for one partition. Only the last batch grows, and not once it is on its way."""

    __slots__ = ("busy", "partition", "sequence", "waiting")

    def __init__(self, partition: TopicPartition) -> None:
        self.partition = partition
        self.waiting: deque[BatchBuilder] = deque()
        self.busy = False  # a batch of this partition is on its way
        self.sequence = 0  # of the next batch that leaves


class KafkaProducer:
    """Implements `streamlib.runtime.ports.Producer`.

    Args:
        client: shared with other ports; this producer uses two lanes of its own.
        transactional_id: None for plain sends.
        settings: sizes and times.
    """

    def __init__(
        self, client: KafkaClient, transactional_id: str | None, settings: ProducerSettings | None = None
    ) -> None:
        self._client = client
        self._id = transactional_id
        self._settings = settings or ProducerSettings()
        self._codec = codec_number(self._settings.compression)
        self._batch_bytes = min(self._settings.batch_bytes, self._settings.max_request_bytes)
        self._smaller_batch_bytes: dict[str, int] = {}  # of topics that have refused larger ones
        self._where = "the idempotent producer" if transactional_id is None else f"transactional id {transactional_id}"
        self._lane = ("produce", id(self))
        self._transaction_lane = ("transaction", id(self))

        self._state = _State.NEW
        self._failure: Exception | None = None  # the first; once set, only `init` and `close` work
        self._refusal: KafkaError | None = None  # of offsets by the group; stands until they are accepted
        self._producer_id, self._epoch = -1, -1
        self._version_2 = False
        self._enlisted: set[TopicPartition] = set()  # partitions the coordinator knows to be in the transaction
        self._enlisted_groups: set[str] = set()
        self._enlisting = asyncio.Lock()
        self._touched = False  # whether any request of this transaction was made
        self._loose_ends = False  # whether one of them may still be on its way, though it was asked again

        self._queues: dict[TopicPartition, _Queue] = {}
        self._sendable: dict[TopicPartition, _Queue] = {}  # something waits, nothing is on its way; in turn
        self._ends: dict[TopicPartition, int] = {}
        self._buffered_bytes = 0
        self._deliveries: dict[asyncio.Task[None], int | None] = {}  # and the leader each began with
        self._dispatch_handle: asyncio.Handle | None = None
        self._progress = asyncio.Event()  # replaced each time it is set

        self.records_sent = 0
        self.bytes_sent = 0
        self.retries: Counter[str] = Counter()  # by the name of the error

    @property
    def transactional_id(self) -> str | None:
        return self._id

    @property
    def buffered_bytes(self) -> int:
        """Bytes handed over by `send` and not yet acknowledged."""
        return self._buffered_bytes

    async def init(self) -> None:
        """Get a producer id and epoch; what an earlier producer of the same id left open is aborted by that."""
        assert self._state is not _State.CLOSED, "the producer is closed"
        self._drop_queues()
        await self._stop_deliveries()
        unfinished = ConnectionFailedError("InitProducerId", self._where, "it did not come to its end")
        self._failure = self._failure or unfinished  # until it has worked
        answer = await self._retrying(self._ask_producer_id)
        self._adopt(answer.producer_id, answer.producer_epoch)
        self._queues.clear()
        self._forget_transaction()
        self._failure = None
        self._state = _State.READY

    def begin(self) -> None:
        """Open a transaction; purely local."""
        self._raise_failure()
        assert self._id is not None, "transactions need a transactional id"
        assert self._state is _State.READY, f"begin while {self._state.value}"
        assert not self._sendable, "nothing is left of the last transaction"
        assert not self._deliveries, "nothing of the last transaction is on its way"
        self._version_2 = self._client.transaction_version >= 2
        self._state = _State.OPEN

    def send(self, partition: TopicPartition, records: Sequence[OutRecord]) -> None:
        """Append records to a partition; they leave in this order, in the background.

        Raises:
            KafkaError: what an earlier batch failed with; MESSAGE_TOO_LARGE for a record of these.
        """
        self._raise_failure()
        self._assert_sending()
        if not records:
            return
        try:
            self._append(self._queue(partition), records)
        except Exception as error:
            # What is behind the failed record would be missing.
            self._fail(error)
            raise
        self._dispatch_soon()

    async def wait_for_room(self) -> None:
        """Return when `buffered_bytes` is below the bound. Raises what a batch failed with."""
        while self._buffered_bytes >= self._settings.buffer_memory_bytes:
            self._raise_failure()
            await self._progress.wait()
        self._raise_failure()

    async def flush(self) -> dict[TopicPartition, int]:
        """Wait until all is acknowledged.

        Returns the offset after the last record of each partition written since `begin` (without transactions: since
        the last flush). Raises the first failure.
        """
        self._raise_failure()
        self._assert_sending()
        while self._sendable or self._deliveries:
            await self._progress.wait()
            self._raise_failure()
        ends = dict(self._ends)
        if self._id is None:
            self._ends.clear()
        return ends

    async def add_offsets(self, group: GroupMetadata, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Make the offsets part of the transaction, once all records are acknowledged.

        After a refusal by the group (ILLEGAL_GENERATION ...) it may be called again; until then the transaction
        cannot be committed.
        """
        assert group.generation >= 0, "a coordinator accepts generation -1 from anyone (KIP-447)"
        await self.flush()
        assert self._state is _State.OPEN, f"add_offsets while {self._state.value}"
        if not offsets:
            return
        self._touched = True
        try:
            await self._retrying(lambda: self._commit_offsets(group, offsets))
        except KafkaError as error:
            if error.code not in _GROUP_REFUSALS:
                self._fail(error)
            self._refusal = error
            raise
        except BaseException as error:
            self._fail(_cut_off("TxnOffsetCommit", self._where, error))
            raise
        self._refusal = None

    async def end(self, *, commit: bool) -> None:
        """End the transaction. An empty one costs nothing.

        Raises:
            KafkaError: it is not known to be committed. `init` settles what has become of it.
        """
        if not commit:
            await self._abort()
            return
        await self.flush()
        assert self._state is _State.OPEN, f"end while {self._state.value}"
        if self._refusal is not None:
            raise self._refusal
        await self._end_transaction(commit=True)

    async def close(self) -> None:
        """Drop what is buffered and the connections; does not end an open transaction."""
        self._state = _State.CLOSED
        self._failure = self._failure or ConnectionFailedError("Produce", self._where, "the producer was closed")
        self._drop_queues()
        await self._stop_deliveries()
        for lane in (self._lane, self._transaction_lane):
            self._client.disconnect(lane)

    # Sending: decided without I/O

    def _queue(self, partition: TopicPartition) -> _Queue:
        queue = self._queues.get(partition)
        if queue is None:
            queue = self._queues[partition] = _Queue(partition)
        return queue

    def _append(self, queue: _Queue, records: Sequence[OutRecord]) -> None:
        if not queue.waiting:
            queue.waiting.append(self._new_batch(queue.partition))
        index = self._grow(queue.waiting[-1], records, 0)
        while index < len(records):
            queue.waiting.append(self._new_batch(queue.partition))
            index = self._grow(queue.waiting[-1], records, index)
        if not queue.busy:
            self._sendable[queue.partition] = queue

    def _new_batch(self, partition: TopicPartition) -> BatchBuilder:
        max_bytes = self._smaller_batch_bytes.get(partition.topic, self._batch_bytes)
        batch = BatchBuilder(partition, self._codec, self._id is not None, max_bytes, self._settings.max_request_bytes)
        self._buffered_bytes += batch.size_bytes
        return batch

    def _grow(self, batch: BatchBuilder, records: Sequence[OutRecord], start: int) -> int:
        before = batch.size_bytes
        index = batch.extend(records, start)
        self._buffered_bytes += batch.size_bytes - before
        return index

    def _dispatch_soon(self) -> None:
        """Once the caller gives way: what it sends in one go leaves in one request."""
        if self._dispatch_handle is None:
            self._dispatch_handle = asyncio.get_running_loop().call_soon(self._dispatch_now)

    def _dispatch_now(self) -> None:
        self._dispatch_handle = None
        try:
            self._dispatch()
        except Exception as error:
            self._fail(error)  # the event loop would only log it

    def _dispatch(self) -> None:
        """Start a delivery to each leader that has none. Partitions without a leader do not hold up others."""
        by_leader: dict[int | None, list[_Queue]] = {}
        for queue in self._sendable.values():
            by_leader.setdefault(self._client.leader(queue.partition), []).append(queue)
        busy = set(self._deliveries.values())
        for leader, queues in by_leader.items():
            if leader is None or leader not in busy:
                self._start_delivery(leader, self._take(queues))

    def _take(self, queues: Iterable[_Queue]) -> dict[TopicPartition, _Outgoing]:
        """The first batch of each partition, as many as one request may hold; the others come first next time."""
        taken: dict[TopicPartition, _Outgoing] = {}
        total_bytes = 0
        for queue in queues:
            size_bytes = queue.waiting[0].size_bytes
            if taken and total_bytes + size_bytes > self._settings.max_request_bytes:
                break
            total_bytes += size_bytes
            taken[queue.partition] = self._take_first(queue)
        return taken

    def _take_first(self, queue: _Queue) -> _Outgoing:
        assert not queue.busy, "one batch of a partition at a time"
        batch = queue.waiting.popleft()
        size_bytes = batch.size_bytes
        data = batch.build(self._producer_id, self._epoch, queue.sequence)
        queue.sequence = next_sequence(queue.sequence, batch.count)
        queue.busy = True
        del self._sendable[queue.partition]
        return _Outgoing(batch.count, size_bytes, data)

    # Delivery

    def _start_delivery(self, leader: int | None, batches: dict[TopicPartition, _Outgoing]) -> None:
        task = asyncio.get_running_loop().create_task(self._deliver(batches))
        self._deliveries[task] = leader
        task.add_done_callback(self._delivered)

    def _delivered(self, task: asyncio.Task[None]) -> None:
        del self._deliveries[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            assert isinstance(error, Exception)
            self._fail(error)
        self._report_progress()
        if self._sendable:
            self._dispatch_soon()

    async def _deliver(self, batches: dict[TopicPartition, _Outgoing]) -> None:
        """Send until all are acknowledged. Raises what cannot be repeated, or went on for too long."""
        await self._retrying(lambda: self._attempt(batches))

    async def _retrying(self, attempt: Callable[[], Awaitable[T]]) -> T:
        async def counted() -> T:
            try:
                return await attempt()
            except KafkaError as error:
                if error_row(error.code).retriable:
                    self.retries[ErrorCode(error.code).name] += 1
                if isinstance(error, ConnectionFailedError):
                    self._loose_ends = True
                raise

        return await self._client.retrying(counted)

    async def _attempt(self, batches: dict[TopicPartition, _Outgoing]) -> None:
        """Send what is left of `batches` to the leaders of now, and take out what is acknowledged."""
        for leader, partitions in (await self._by_leader(batches)).items():
            await self._send_to(leader, partitions, batches)

    async def _by_leader(self, partitions: Iterable[TopicPartition]) -> dict[int, list[TopicPartition]]:
        unknown = [partition for partition in partitions if self._client.leader(partition) is None]
        if unknown:
            await self._client.refresh_metadata({partition.topic for partition in unknown})
        by_leader: dict[int, list[TopicPartition]] = {}
        for partition in partitions:
            leader = self._client.leader(partition)
            if leader is None:
                await self._raise_leaderless(partition)
            else:
                by_leader.setdefault(leader, []).append(partition)
        return by_leader

    async def _raise_leaderless(self, partition: TopicPartition) -> None:
        counts = await self._client.partition_counts([partition.topic])
        exists = partition.partition < counts.get(partition.topic, 0)
        code = ErrorCode.LEADER_NOT_AVAILABLE if exists else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        check_code(code, "Produce", str(partition))

    async def _send_to(
        self, leader: int, partitions: list[TopicPartition], batches: dict[TopicPartition, _Outgoing]
    ) -> None:
        if self._id is None:
            await self._produce(leader, partitions, batches)
            return
        self._touched = True
        if self._enlisted.issuperset(partitions):
            await self._produce(leader, partitions, batches)
        elif self._version_2:
            async with self._enlisting:
                await self._produce(leader, partitions, batches)
        else:
            async with self._enlisting:
                await self._add_partitions(partitions)
            await self._produce(leader, partitions, batches)

    async def _produce(
        self, leader: int, partitions: list[TopicPartition], batches: dict[TopicPartition, _Outgoing]
    ) -> None:
        topics = [
            {"name": topic, "partition_data": [{"index": tp.partition, "records": batches[tp].data} for tp in group]}
            for topic, group in nested(partitions)
        ]
        body = {
            "transactional_id": self._id,
            "acks": _ALL_REPLICAS,
            "timeout_ms": self._client.settings.request_timeout_ms,
            "topic_data": topics,
        }
        response = await self._call("Produce", body, leader, self._lane)
        failures = []
        for topic in response.responses:
            for answer in topic.partition_responses:
                partition = TopicPartition(topic.name, answer.index)
                try:
                    check_code(answer.error_code, "Produce", str(partition), answer.error_message)
                    self._acknowledge(partition, batches.pop(partition), answer.base_offset)
                except KafkaError as error:
                    if error.code == ErrorCode.MESSAGE_TOO_LARGE and batches[partition].count > 1:
                        self._split(partition, batches.pop(partition))
                    else:
                        failures.append(error)
        self._report_progress()
        if failures:
            raise min(failures, key=_urgency)
        assert batches.keys().isdisjoint(partitions), f"broker {leader} did not say what became of a batch"

    def _acknowledge(self, partition: TopicPartition, batch: _Outgoing, base_offset: int) -> None:
        assert base_offset >= 0, f"{partition}: acknowledged without an offset"
        self._enlisted.add(partition)
        self._ends[partition] = base_offset + batch.count
        self._buffered_bytes -= batch.size_bytes
        self.records_sent += batch.count
        self.bytes_sent += len(batch.data)
        queue = self._queues[partition]
        queue.busy = False
        if queue.waiting:
            self._sendable[partition] = queue

    def _split(self, partition: TopicPartition, refused: _Outgoing) -> None:
        """Have the records of a batch that its topic finds too large leave in smaller ones (KIP-126).

        Nothing of it was appended, and nothing of the partition is behind it on its way, so its sequence numbers are
        free. Had a lost attempt been accepted after all, the broker would miss a sequence number, and refuse.
        """
        queue = self._queues[partition]
        queue.sequence = next_sequence(queue.sequence, -refused.count)
        max_bytes = max(1, refused.size_bytes // 2)
        self._smaller_batch_bytes[partition.topic] = min(
            max_bytes, self._smaller_batch_bytes.get(partition.topic, max_bytes)
        )
        self._buffered_bytes -= refused.size_bytes
        records, index, smaller = records_in(refused.data), 0, []
        while index < len(records):
            smaller.append(self._new_batch(partition))
            index = self._grow(smaller[-1], records, index)
        queue.waiting.extendleft(reversed(smaller))
        queue.busy = False
        self._sendable[partition] = queue

    # The transaction's coordinator

    async def _ask_producer_id(self) -> Response:
        body = {"transactional_id": self._id, "transaction_timeout_ms": _NO_TIMEOUT_MS}
        node = None
        if self._id is not None:
            body["transaction_timeout_ms"] = self._settings.transaction_timeout_ms
            node = await self._client.coordinator(self._id, "transaction")
        answer = await self._call("InitProducerId", body, node, self._transaction_lane)
        check_code(answer.error_code, "InitProducerId", self._where)
        return answer

    async def _add_partitions(self, partitions: Iterable[TopicPartition]) -> None:
        """Only before KIP-890. All at once that are known to come, because each request is a write to a log."""
        coming = {queue.partition for queue in self._queues.values() if queue.busy or queue.waiting}
        new = coming.union(partitions) - self._enlisted
        topics = [{"name": topic, "partitions": [tp.partition for tp in group]} for topic, group in nested(new)]
        if not new:
            return
        answer = await self._ask_coordinator("AddPartitionsToTxn", {"topics": topics})
        codes = {
            TopicPartition(topic.name, result.partition_index): result.partition_error_code
            for topic in answer.results_by_topic
            for result in topic.results_by_partition
        }
        # All or none: OPERATION_NOT_ATTEMPTED only says that another one was refused.
        for partition, code in sorted(codes.items(), key=lambda item: item[1] == ErrorCode.OPERATION_NOT_ATTEMPTED):
            check_code(code, "AddPartitionsToTxn", f"{self._where}, {partition}")
        self._enlisted |= new

    async def _commit_offsets(self, group: GroupMetadata, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        if not self._version_2 and group.group_id not in self._enlisted_groups:
            answer = await self._ask_coordinator("AddOffsetsToTxn", {"group_id": group.group_id})
            check_code(answer.error_code, "AddOffsetsToTxn", self._where)
            self._enlisted_groups.add(group.group_id)
        node = await self._client.coordinator(group.group_id, "group")
        body = {
            **self._who,
            "group_id": group.group_id,
            "generation_id": group.generation,
            "member_id": group.member_id,
            "group_instance_id": group.instance_id,
            "topics": [
                {"name": topic, "partitions": [_offset(tp, offsets[tp]) for tp in partitions]}
                for topic, partitions in nested(offsets)
            ],
        }
        response = await self._call("TxnOffsetCommit", body, node, self._transaction_lane)
        for partition, answer in answers(response.topics):
            check_code(answer.error_code, "TxnOffsetCommit", f"group {group.group_id}, {partition}")

    async def _abort(self) -> None:
        if self._state is not _State.OPEN:
            # It failed while it ended, or was over before: `init` settles what there is to settle.
            assert self._failure is not None or self._state is _State.READY, f"abort while {self._state.value}"
            return
        self._drop_queues()
        await self._stop_deliveries()
        if self._failure is not None:
            await self._abort_failed()
        elif self._loose_ends and not (self._version_2 and self._touched):
            # Sequence numbers are used up, or in doubt. And before KIP-890 the epoch stays the same with EndTxn, so
            # that a late write would begin a transaction that nobody ends. A new epoch aborts what is open and shuts
            # out what is late.
            await self.init()
        else:
            await self._end_transaction(commit=False)

    async def _abort_failed(self) -> None:
        """Readers wait for an open transaction, so it is worth one attempt; `init` has to follow in any case."""
        self._state = _State.ENDING
        if not self._touched or (self._loose_ends and not self._version_2):
            return
        with suppress(KafkaError):
            await self._ask_end(commit=False)

    async def _end_transaction(self, *, commit: bool) -> None:
        """Ask until the outcome is known: the coordinator answers a repeated question like the first (KIP-890)."""
        if self._touched:
            self._state = _State.ENDING
            try:
                answer = await self._retrying(lambda: self._ask_end(commit=commit))
                if self._version_2:
                    self._adopt(answer.producer_id, answer.producer_epoch)
            except BaseException as error:
                self._fail(_cut_off("EndTxn", self._where, error))
                raise
        shut_out = self._loose_ends and not self._version_2
        self._forget_transaction()
        self._state = _State.READY
        if shut_out:
            # Before KIP-890 the epoch stays the same, so that a question that was given up, and answered the second
            # time, would end or write to the next transaction if it came now.
            await self.init()

    async def _ask_end(self, *, commit: bool) -> Response:
        answer = await self._ask_coordinator("EndTxn", {"committed": commit})
        check_code(answer.error_code, "EndTxn", self._where)
        return answer

    async def _ask_coordinator(self, api: str, body: Mapping[str, Any]) -> Response:
        assert self._id is not None
        node = await self._client.coordinator(self._id, "transaction")
        return await self._call(api, {**self._who, **body}, node, self._transaction_lane)

    @property
    def _who(self) -> dict[str, Any]:
        return {
            "transactional_id": self._id,
            "producer_id": self._producer_id,
            "producer_epoch": self._epoch,
        }

    async def _call(self, api: str, body: Mapping[str, Any], node: int | None, lane: tuple[str, int]) -> Response:
        versions = _VERSIONS_2 if self._version_2 else _VERSIONS_1
        return await self._client.call(
            api, body, node=node, lane=lane, max_version=versions.get(api), where=self._where
        )

    # State

    def _adopt(self, producer_id: int, epoch: int) -> None:
        """A new epoch begins each partition's sequence at 0."""
        assert producer_id >= 0, f"{self._where}: no producer id"
        self._producer_id, self._epoch = producer_id, epoch
        for queue in self._queues.values():
            queue.sequence = 0

    def _forget_transaction(self) -> None:
        self._enlisted.clear()
        self._enlisted_groups.clear()
        self._ends.clear()
        self._touched = self._loose_ends = False
        self._refusal = None

    def _assert_sending(self) -> None:
        expected = _State.READY if self._id is None else _State.OPEN
        assert self._state is expected, f"send while {self._state.value}"

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: Exception) -> None:
        """The first failure stays; nothing leaves any more."""
        if self._failure is None:
            self._failure = error
        if isinstance(error, ConnectionFailedError):
            self._loose_ends = True
        self._drop_queues()
        self._cancel_deliveries()
        self._report_progress()

    def _drop_queues(self) -> None:
        for queue in self._queues.values():
            queue.waiting.clear()
        self._sendable.clear()
        self._buffered_bytes = 0

    def _cancel_deliveries(self) -> None:
        for task in self._deliveries:
            if not task.done():
                task.cancel()
                self._loose_ends = True

    async def _stop_deliveries(self) -> None:
        self._cancel_deliveries()
        if self._dispatch_handle is not None:
            self._dispatch_handle.cancel()
            self._dispatch_handle = None
        if self._deliveries:
            await asyncio.wait(list(self._deliveries))
        for queue in self._queues.values():
            queue.busy = False

    def _report_progress(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()


def _offset(partition: TopicPartition, committed: OffsetAndMetadata) -> dict[str, Any]:
    return {
        "partition_index": partition.partition,
        "committed_offset": committed.offset,
        "committed_metadata": committed.metadata,
    }


def _urgency(error: KafkaError) -> tuple[bool, bool]:
    """What cannot be repeated first, then what asks for something to be looked up."""
    row = error_row(error.code)
    return row.retriable, row.refresh == "none"


def _cut_off(api: str, where: str, error: BaseException) -> Exception:
    """What is left of a cancelled request: nobody knows its outcome."""
    if isinstance(error, Exception):
        return error
    return ConnectionFailedError(api, where, "it was cancelled before the answer came")
