"""Transactions against a real broker, on both kinds of transactions, with answers that get lost on the way."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatch

from streamlib.errors import ConnectionFailedError, ErrorCode, KafkaError
from streamlib.kafka.admin import KafkaAdmin
from streamlib.kafka.batches import BatchBuilder
from streamlib.kafka.client import ClientSettings, KafkaClient
from streamlib.kafka.fetcher import KafkaFetcher
from streamlib.kafka.group import KafkaGroup
from streamlib.kafka.producer import KafkaProducer, ProducerSettings
from streamlib.records import GroupMetadata, OffsetAndMetadata, OutRecord, TopicPartition
from streamlib.runtime.ports import Assignment, Subscription

UniqueName = Callable[[str], str]
NewProducer = Callable[..., KafkaProducer]
PARTITIONS = 3
# A broker begins a new segment, and a fetch ends, where an old timestamp meets the marker's new one.
NOW_MS = time.time_ns() // 1_000_000


@pytest.fixture
async def topic(admin: KafkaAdmin, unique_name: UniqueName) -> str:
    name = unique_name("produced")
    await admin.create_topic(name, PARTITIONS)
    return name


@pytest.fixture
async def new_producer(client: KafkaClient) -> AsyncIterator[NewProducer]:
    """Makes producers, with sizes and times that suit a test."""
    producers: list[KafkaProducer] = []

    def make(transactional_id: str | None, **settings: Any) -> KafkaProducer:
        producers.append(KafkaProducer(client, transactional_id, ProducerSettings(**settings)))
        return producers[-1]

    yield make
    for producer in producers:
        await producer.close()


@pytest.fixture
async def producer(new_producer: NewProducer, unique_name: UniqueName) -> KafkaProducer:
    """Transactional and initialised."""
    made = new_producer(unique_name("tx"))
    await made.init()
    return made


@pytest.fixture
async def group(client: KafkaClient, unique_name: UniqueName) -> AsyncIterator[tuple[KafkaGroup, GroupMetadata]]:
    """A group with one live member."""
    name = unique_name("group")
    member = KafkaGroup(
        client, name, instance_id=None, session_timeout_ms=30_000, rebalance_timeout_ms=30_000, protocol="test"
    )
    joined = await member.join("", Subscription(("orders",)))
    await member.sync(joined.generation, joined.member_id, {joined.member_id: Assignment(())})
    yield member, GroupMetadata(name, joined.generation, joined.member_id, None)
    await member.leave(joined.member_id)


def record(value: str, key: str = "k") -> OutRecord:
    return (key.encode(), value.encode(), NOW_MS, ())


async def read(client: KafkaClient, topic: str, partition: int = 0) -> list[str]:
    """The values of all committed records."""
    name = TopicPartition(topic, partition)
    admin, fetcher = KafkaAdmin(client), KafkaFetcher(client)
    end = (await admin.list_offsets([name], "latest"))[name]
    position, values = 0, []
    fetcher.add({name: 0})
    async with asyncio.timeout(20):
        while position < end:
            await fetcher.wait()
            for batch in fetcher.take(1 << 20):
                position = batch.next_offset
                values += [(each.value or b"").decode() for each in batch.records()]
    await fetcher.close()
    return values


async def one_transaction(producer: KafkaProducer, topic: str, *values: str, commit: bool = True) -> None:
    producer.begin()
    producer.send(TopicPartition(topic, 0), [record(value) for value in values])
    await producer.flush()
    await producer.end(commit=commit)


async def code_of(request: Awaitable[object]) -> int:
    with pytest.raises(KafkaError) as refused:
        await request
    return refused.value.code


class Wire:
    """Stands between a producer and its client: counts requests, keeps batches, loses or changes answers."""

    def __init__(self, client: KafkaClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: Counter[str] = Counter()
        self.batches: list[tuple[TopicPartition, Any]] = []
        self.lose: Counter[str] = Counter()  # answers still to be lost: the broker carries the requests out
        self.drop: Counter[str] = Counter()  # requests still to be lost: the broker never sees them
        self.produce_codes: list[int] = []  # of the next Produce answers; what is refused is not carried out
        self.hold: asyncio.Event | None = None  # Produce waits for it
        self.at_once = self.most_at_once = 0  # Produce requests under way
        self.pretended = False  # the leaders named do not exist, any broker does
        self._call = client.call
        monkeypatch.setattr(client, "call", self.call)

    async def call(self, api: str, body: Any, **options: Any) -> Any:
        if api != "Produce":
            return await self._answer(api, body, **options)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._answer(api, body, **options)
        finally:
            self.at_once -= 1

    async def _answer(self, api: str, body: Any, **options: Any) -> Any:
        self.requests[api] += 1
        if self.pretended and (options["node"] or 0) < 0:
            options["node"] = None
        if api == "Produce":
            if self.hold is not None:
                await self.hold.wait()
            if self.produce_codes and (code := self.produce_codes.pop(0)):
                return refusal(body, code)
        if self.drop[api]:
            self.drop[api] -= 1
            raise ConnectionFailedError(api, "", "lost on purpose, before the broker saw it")
        answer = await self._call(api, body, **options)
        if api == "Produce":
            self._keep(body, answer)
        if self.lose[api]:
            self.lose[api] -= 1
            raise ConnectionFailedError(api, "", "lost on purpose, after the broker did it")
        return answer

    def _keep(self, body: Any, answer: Any) -> None:
        """The batches that the broker took; one that is still finding its feet refuses some."""
        if any(each.error_code for topic in answer.responses for each in topic.partition_responses):
            return
        for topic in body["topic_data"]:
            for each in topic["partition_data"]:
                batch: Any = DefaultRecordBatch(bytes(each["records"]))
                self.batches.append((TopicPartition(topic["name"], each["index"]), batch))


def refusal(body: Any, code: int) -> Any:
    return SimpleNamespace(
        responses=[
            SimpleNamespace(
                name=topic["name"],
                partition_responses=[
                    SimpleNamespace(index=each["index"], error_code=code, base_offset=-1, error_message=None)
                    for each in topic["partition_data"]
                ],
            )
            for topic in body["topic_data"]
        ]
    )


@pytest.fixture
def wire(client: KafkaClient, monkeypatch: pytest.MonkeyPatch) -> Wire:
    return Wire(client, monkeypatch)


async def go_on_sending(producer: KafkaProducer, partition: TopicPartition) -> None:
    while True:
        producer.send(partition, [record("late")])
        await producer.flush()
        await asyncio.sleep(0.2)


# --- transactions


async def test_committed_records_are_visible_and_aborted_ones_are_not(
    client: KafkaClient, producer: KafkaProducer, topic: str
) -> None:
    await one_transaction(producer, topic, "a", "b")
    await one_transaction(producer, topic, "c", commit=False)
    await one_transaction(producer, topic, "d")
    assert await read(client, topic) == ["a", "b", "d"]
    assert producer.records_sent == 4


async def test_records_not_sent_yet_are_dropped_by_an_abort(
    client: KafkaClient, producer: KafkaProducer, topic: str, wire: Wire
) -> None:
    producer.begin()
    producer.send(TopicPartition(topic, 0), [record("a")])
    await producer.end(commit=False)
    assert not wire.requests
    assert producer.buffered_bytes == 0
    await one_transaction(producer, topic, "b")
    assert await read(client, topic) == ["b"]


async def test_abort_while_records_are_on_their_way(
    client: KafkaClient, producer: KafkaProducer, topic: str, wire: Wire
) -> None:
    await one_transaction(producer, topic, "a")
    wire.hold = asyncio.Event()
    producer.begin()
    producer.send(TopicPartition(topic, 0), [record("b")])
    while wire.requests["Produce"] < 2:
        await asyncio.sleep(0.001)
    await producer.end(commit=False)
    wire.hold = None
    await one_transaction(producer, topic, "c")
    assert await read(client, topic) == ["a", "c"]


async def test_flush_tells_the_offset_after_the_last_record_of_each_partition(
    producer: KafkaProducer, topic: str
) -> None:
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    producer.begin()
    producer.send(first, [record("a")] * 3)
    assert await producer.flush() == {first: 3}
    producer.send(first, [record("b")] * 2)
    producer.send(second, [record("c")])
    assert await producer.flush() == {first: 5, second: 1}
    await producer.end(commit=True)
    producer.begin()
    assert await producer.flush() == {}
    producer.send(first, [record("d")])
    assert await producer.flush() == {first: 7}, "the marker has an offset"
    await producer.end(commit=True)


async def test_flush_of_an_idempotent_producer_tells_what_is_new_since_the_last_one(
    client: KafkaClient, new_producer: NewProducer, topic: str
) -> None:
    producer = new_producer(None)
    await producer.init()
    producer.send(TopicPartition(topic, 0), [record("a"), record("b")])
    assert await producer.flush() == {TopicPartition(topic, 0): 2}
    producer.send(TopicPartition(topic, 1), [record("c")])
    assert await producer.flush() == {TopicPartition(topic, 1): 1}
    assert await read(client, topic) == ["a", "b"]


async def test_empty_transaction_makes_no_request(producer: KafkaProducer, wire: Wire) -> None:
    for commit in (True, False):
        producer.begin()
        await producer.end(commit=commit)
    assert not wire.requests


async def test_epoch_and_sequences_begin_anew_after_each_end_with_transactions_version_2(
    client: KafkaClient, producer: KafkaProducer, topic: str, wire: Wire
) -> None:
    for commit in (True, False, True):
        await one_transaction(producer, topic, "a", "b", commit=commit)
    epochs = [batch.producer_epoch for _, batch in wire.batches]
    sequences = [batch.base_sequence for _, batch in wire.batches]
    if client.transaction_version >= 2:
        assert epochs == [epochs[0], epochs[0] + 1, epochs[0] + 2]
        assert sequences == [0, 0, 0]
        assert wire.requests.keys() == {"Produce", "EndTxn"}
    else:
        assert epochs == [epochs[0]] * 3
        assert sequences == [0, 2, 4]
        assert wire.requests.keys() == {"AddPartitionsToTxn", "Produce", "EndTxn"}


@pytest.mark.parametrize("api", ["Produce", "AddPartitionsToTxn", "EndTxn"])
async def test_a_transaction_with_a_lost_request_is_followed_by_another_epoch(
    client: KafkaClient, producer: KafkaProducer, topic: str, wire: Wire, api: str
) -> None:
    """The lost one may still arrive: it must not write to the next transaction, or end it."""
    wire.drop[api] = 1
    await one_transaction(producer, topic, "a")
    await one_transaction(producer, topic, "b")
    if not wire.requests[api]:
        pytest.skip(f"{api} is not needed with transactions version {client.transaction_version}")
    first, second = (batch.producer_epoch for _, batch in wire.batches[-2:])
    assert second == first + 1


async def test_two_ids_in_turn_keep_the_order(client: KafkaClient, new_producer: NewProducer, topic: str) -> None:
    producers = [new_producer(f"{topic}-{turn}") for turn in (0, 1)]
    for producer in producers:
        await producer.init()
    for number in range(200):
        await one_transaction(producers[number % 2], topic, str(number))
    assert await read(client, topic) == [str(number) for number in range(200)]


async def test_interleaved_transactions_are_told_apart(
    client: KafkaClient, new_producer: NewProducer, topic: str
) -> None:
    kept, dropped = new_producer(f"{topic}-kept"), new_producer(f"{topic}-dropped")
    for producer in (kept, dropped):
        await producer.init()
        producer.begin()
    for number in range(5):
        for name, producer in (("kept", kept), ("dropped", dropped)):
            producer.send(TopicPartition(topic, 0), [record(f"{name}-{number}")])
            await producer.flush()
    await dropped.end(commit=False)
    await kept.end(commit=True)
    assert await read(client, topic) == [f"kept-{number}" for number in range(5)]


# --- offsets


async def test_offsets_are_committed_with_the_transaction(
    producer: KafkaProducer, topic: str, group: tuple[KafkaGroup, GroupMetadata]
) -> None:
    member, metadata = group
    partition = TopicPartition(topic, 0)
    for offset, commit in ((3, True), (5, False)):
        producer.begin()
        producer.send(partition, [record("a")])
        await producer.add_offsets(metadata, {partition: OffsetAndMetadata(offset, "time=7")})
        await producer.end(commit=commit)
    assert await member.fetch_offsets([partition]) == {partition: OffsetAndMetadata(3, "time=7")}


async def test_refused_generation_can_be_replaced_but_not_committed_around(
    producer: KafkaProducer, topic: str, group: tuple[KafkaGroup, GroupMetadata]
) -> None:
    member, metadata = group
    partition = TopicPartition(topic, 0)
    offsets = {partition: OffsetAndMetadata(3)}
    stale = metadata._replace(generation=metadata.generation + 1)
    producer.begin()
    assert await code_of(producer.add_offsets(stale, offsets)) == ErrorCode.ILLEGAL_GENERATION
    assert await code_of(producer.end(commit=True)) == ErrorCode.ILLEGAL_GENERATION
    await producer.add_offsets(metadata, offsets)
    await producer.end(commit=True)
    assert await member.fetch_offsets([partition]) == offsets


async def test_generation_minus_one_is_never_sent(producer: KafkaProducer) -> None:
    producer.begin()
    with pytest.raises(AssertionError, match="KIP-447"):
        await producer.add_offsets(GroupMetadata("group", -1, "", None), {})


# --- failures


async def test_too_large_record_fails_the_transaction_and_cannot_be_committed_around(
    client: KafkaClient, producer: KafkaProducer, topic: str
) -> None:
    partition = TopicPartition(topic, 0)
    producer.begin()
    producer.send(partition, [record("a")])
    with pytest.raises(KafkaError, match="max_request_size"):
        producer.send(partition, [record("x" * (2 << 20))])
    with pytest.raises(KafkaError, match="max_request_size"):
        producer.send(partition, [record("b")])
    assert await code_of(producer.flush()) == ErrorCode.MESSAGE_TOO_LARGE
    assert await code_of(producer.wait_for_room()) == ErrorCode.MESSAGE_TOO_LARGE
    assert await code_of(producer.end(commit=True)) == ErrorCode.MESSAGE_TOO_LARGE
    await producer.end(commit=False)
    with pytest.raises(KafkaError, match="max_request_size"):
        producer.begin()
    await producer.init()
    await one_transaction(producer, topic, "c")
    assert await read(client, topic) == ["c"]


async def test_batch_refused_by_the_broker_cannot_be_committed_around(
    client: KafkaClient, admin: KafkaAdmin, producer: KafkaProducer, unique_name: UniqueName
) -> None:
    topic = unique_name("small")
    await admin.create_topic(topic, 2, config={"max.message.bytes": "1000"})
    producer.begin()
    producer.send(TopicPartition(topic, 0), [record("a")])
    await producer.flush()
    producer.send(TopicPartition(topic, 0), [record("x" * 2_000)])
    producer.send(TopicPartition(topic, 1), [record("b")])
    with pytest.raises(KafkaError, match=rf"{topic}-0: MESSAGE_TOO_LARGE.*max\.message\.bytes"):
        await producer.end(commit=True)
    await producer.end(commit=False)
    await producer.init()
    await one_transaction(producer, topic, "c")
    assert await read(client, topic) == ["c"]
    assert await read(client, topic, 1) == []


async def test_record_that_cannot_be_encoded_fails_the_transaction(producer: KafkaProducer, topic: str) -> None:
    producer.begin()
    with pytest.raises(TypeError):
        producer.send(TopicPartition(topic, 0), [("text", b"", 0, ())])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        await producer.end(commit=True)


async def test_topic_that_does_not_exist_is_named(new_producer: NewProducer, kafka: Any, topic: str) -> None:
    settings = ClientSettings(bootstrap_servers=kafka.bootstrap_servers, delivery_timeout_ms=200)
    client = await KafkaClient.connect(settings)
    producer = KafkaProducer(client, f"{topic}-tx")
    await producer.init()
    producer.begin()
    producer.send(TopicPartition("missing", 0), [record("a")])
    with pytest.raises(KafkaError, match=r"missing-0: UNKNOWN_TOPIC_OR_PARTITION"):
        await producer.flush()
    await producer.close()
    await client.close()


@pytest.mark.parametrize("step", ["produce", "offsets", "end"])
async def test_zombie_is_fenced_at_every_step(
    client: KafkaClient,
    new_producer: NewProducer,
    topic: str,
    group: tuple[KafkaGroup, GroupMetadata],
    step: str,
) -> None:
    _, metadata = group
    zombie, owner = new_producer(f"{topic}-tx"), new_producer(f"{topic}-tx")
    await zombie.init()
    zombie.begin()
    zombie.send(TopicPartition(topic, 0), [record("zombie")])
    await zombie.flush()
    await owner.init()
    partition = TopicPartition(topic, 0)
    if step == "produce":
        zombie.send(partition, [record("zombie")])
    if step == "offsets":
        code = await code_of(zombie.add_offsets(metadata, {partition: OffsetAndMetadata(1)}))
    else:
        code = await code_of(zombie.flush() if step == "produce" else zombie.end(commit=True))
    assert code in (ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.PRODUCER_FENCED)
    assert await code_of(zombie.end(commit=True)) == code
    await zombie.end(commit=False)
    await one_transaction(owner, topic, "owner")
    assert await read(client, topic) == ["owner"]


async def test_transaction_that_outlives_its_timeout_is_void_and_init_recovers(
    client: KafkaClient, new_producer: NewProducer, topic: str
) -> None:
    producer = new_producer(f"{topic}-tx", transaction_timeout_ms=500)
    await producer.init()
    producer.begin()
    async with asyncio.timeout(30):
        code = await code_of(go_on_sending(producer, TopicPartition(topic, 0)))
    assert code in (
        ErrorCode.INVALID_PRODUCER_EPOCH,
        ErrorCode.PRODUCER_FENCED,
        ErrorCode.TRANSACTION_ABORTABLE,
        ErrorCode.INVALID_TXN_STATE,
    )
    assert await code_of(producer.end(commit=True)) == code
    await producer.end(commit=False)
    await producer.init()
    await one_transaction(producer, topic, "in time")
    assert await read(client, topic) == ["in time"]


async def test_transaction_that_timed_out_before_its_end_is_not_committed(
    client: KafkaClient, admin: KafkaAdmin, new_producer: NewProducer, topic: str
) -> None:
    partition = TopicPartition(topic, 0)
    producer = new_producer(f"{topic}-tx", transaction_timeout_ms=500)
    await producer.init()
    producer.begin()
    producer.send(partition, [record("late")])
    await producer.flush()
    async with asyncio.timeout(30):
        while (await admin.list_offsets([partition], "latest_stable"))[partition] < 2:
            await asyncio.sleep(0.1)
    await code_of(producer.end(commit=True))
    await producer.end(commit=False)
    await producer.init()
    await one_transaction(producer, topic, "in time")
    assert await read(client, topic) == ["in time"]


# --- answers that get lost


@pytest.mark.parametrize(
    "api", ["InitProducerId", "AddPartitionsToTxn", "Produce", "AddOffsetsToTxn", "TxnOffsetCommit", "EndTxn"]
)
@pytest.mark.parametrize("fault", ["lose", "drop"])
async def test_lost_answer_or_request_is_made_up_for(
    client: KafkaClient,
    new_producer: NewProducer,
    topic: str,
    group: tuple[KafkaGroup, GroupMetadata],
    wire: Wire,
    api: str,
    fault: str,
) -> None:
    member, metadata = group
    partition = TopicPartition(topic, 0)
    producer = new_producer(f"{topic}-tx")
    getattr(wire, fault)[api] = 2
    await producer.init()
    for number in range(2):
        producer.begin()
        producer.send(partition, [record(f"{number}-{each}") for each in range(3)])
        await producer.add_offsets(metadata, {partition: OffsetAndMetadata(number + 1)})
        await producer.end(commit=True)
    assert await read(client, topic) == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]
    assert await member.fetch_offsets([partition]) == {partition: OffsetAndMetadata(2)}
    if wire.requests[api]:
        assert producer.retries["NETWORK_EXCEPTION"] == 2


async def test_broken_connection_is_made_up_for(
    client: KafkaClient, producer: KafkaProducer, topic: str, wire: Wire
) -> None:
    for number in range(20):
        producer.begin()
        producer.send(TopicPartition(topic, 0), [record(str(number))])
        already = wire.requests["Produce"]
        while wire.requests["Produce"] == already:
            await asyncio.sleep(0)
        for _ in range(number):
            await asyncio.sleep(0)  # the later, the further the request has come
        client.disconnect(producer._lane)
        ending = asyncio.create_task(producer.end(commit=True))
        while not ending.done() and wire.requests["EndTxn"] <= number:
            await asyncio.sleep(0)
        client.disconnect(producer._transaction_lane)
        await ending
    assert await read(client, topic) == [str(number) for number in range(20)]
    assert producer.retries["NETWORK_EXCEPTION"] > 0


async def test_order_survives_refusals_and_losses(
    client: KafkaClient, new_producer: NewProducer, topic: str, wire: Wire
) -> None:
    producer = new_producer(f"{topic}-tx", batch_bytes=300)
    await producer.init()
    not_leader, not_enough = ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_ENOUGH_REPLICAS
    wire.produce_codes = [0, not_leader, not_enough, 0, 0, not_leader, 0, not_enough, 0]
    wire.lose["Produce"] = 3
    producer.retries.clear()
    producer.begin()
    for number in range(200):
        producer.send(TopicPartition(topic, number % PARTITIONS), [record(str(number))])
        if number % 7 == 0:
            await asyncio.sleep(0.002)
    await producer.flush()
    assert producer.retries.keys() == {"NOT_LEADER_OR_FOLLOWER", "NOT_ENOUGH_REPLICAS", "NETWORK_EXCEPTION"}
    await producer.end(commit=True)
    for partition in range(PARTITIONS):
        expected = [str(number) for number in range(200) if number % PARTITIONS == partition]
        assert await read(client, topic, partition) == expected


async def test_commit_whose_outcome_stays_unknown_fails_the_producer(
    kafka: Any, client: KafkaClient, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ClientSettings(bootstrap_servers=kafka.bootstrap_servers, delivery_timeout_ms=200)
    own_client = await KafkaClient.connect(settings)
    wire = Wire(own_client, monkeypatch)
    producer = KafkaProducer(own_client, f"{topic}-tx")
    await producer.init()
    wire.drop["EndTxn"] = 1_000
    producer.begin()
    producer.send(TopicPartition(topic, 0), [record("a")])
    assert await code_of(producer.end(commit=True)) == ErrorCode.NETWORK_EXCEPTION
    assert wire.requests["EndTxn"] > 1
    with pytest.raises(ConnectionFailedError):
        producer.begin()
    await producer.end(commit=False)
    wire.drop.clear()
    await producer.init()
    await one_transaction(producer, topic, "b")
    assert await read(client, topic) == ["b"]
    await producer.close()
    await own_client.close()


async def test_cancelled_commit_leaves_a_producer_that_has_to_be_initialised(
    client: KafkaClient, producer: KafkaProducer, topic: str, wire: Wire
) -> None:
    producer.begin()
    producer.send(TopicPartition(topic, 0), [record("a")])
    await producer.flush()
    ending = asyncio.create_task(producer.end(commit=True))
    while not wire.requests["EndTxn"]:
        await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    with pytest.raises(ConnectionFailedError, match="cancelled"):
        producer.begin()
    await producer.init()
    await one_transaction(producer, topic, "b")
    assert (await read(client, topic))[-1] == "b"


# --- several leaders


async def test_first_writes_are_made_one_at_a_time_and_later_ones_at_once(
    client: KafkaClient, producer: KafkaProducer, topic: str, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With transactions version 2: two first writes that meet collide at the coordinator. The leaders are pretended."""
    await one_transaction(producer, topic, "a")  # the topic has found its leader
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    monkeypatch.setattr(client, "leader", lambda partition: -100 - partition.partition)
    wire.pretended = True
    producer.begin()
    first = 1 if client.transaction_version >= 2 else PARTITIONS
    for expected in (first, PARTITIONS):
        wire.hold, wire.most_at_once = asyncio.Event(), 0
        for partition in partitions:
            producer.send(partition, [record("b")])
        flushing = asyncio.create_task(producer.flush())
        async with asyncio.timeout(5):
            while wire.at_once < expected:
                await asyncio.sleep(0.001)
        for _ in range(20):
            await asyncio.sleep(0)
        wire.hold.set()
        await flushing
        assert wire.most_at_once == expected
    await producer.end(commit=True)


# --- sequences, buffers


async def test_sequence_numbers_wrap_to_zero_at_the_broker(
    client: KafkaClient, new_producer: NewProducer, topic: str, wire: Wire
) -> None:
    partition = TopicPartition(topic, 0)
    producer = new_producer(None)
    await producer.init()
    # A broker takes any first sequence number of a producer it has not heard of.
    producer._queue(partition).sequence = 2**31 - 3
    for value in ("a", "b", "c"):
        producer.send(partition, [record(value)] * 2)
        await producer.flush()
    assert [batch.base_sequence for _, batch in wire.batches] == [2**31 - 3, 2**31 - 1, 1]
    assert await read(client, topic) == ["a", "a", "b", "b", "c", "c"]


async def test_buffer_is_bounded_and_empties(new_producer: NewProducer, topic: str, wire: Wire) -> None:
    producer = new_producer(f"{topic}-tx", buffer_memory_bytes=10_000, batch_bytes=2_000)
    await producer.init()
    wire.hold = asyncio.Event()
    producer.begin()
    await asyncio.wait_for(producer.wait_for_room(), 1)
    producer.send(TopicPartition(topic, 0), [record("x" * 100)] * 100)
    assert producer.buffered_bytes > 10_000
    waiting = asyncio.create_task(producer.wait_for_room())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    wire.hold.set()
    await asyncio.wait_for(waiting, 5)
    assert producer.buffered_bytes < 10_000
    await producer.flush()
    assert producer.buffered_bytes == 0
    await producer.end(commit=True)


async def test_compressed_batches_leave_the_buffer_empty(
    client: KafkaClient, new_producer: NewProducer, topic: str
) -> None:
    producer = new_producer(f"{topic}-tx", compression="gzip")
    await producer.init()
    await one_transaction(producer, topic, *["x" * 1_000] * 50)
    assert producer.buffered_bytes == 0
    assert producer.bytes_sent < 5_000
    assert await read(client, topic) == ["x" * 1_000] * 50


async def test_mistake_in_the_background_fails_the_producer(
    producer: KafkaProducer, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> bytearray:
        raise ValueError("a mistake")

    monkeypatch.setattr(BatchBuilder, "build", broken)
    producer.begin()
    producer.send(TopicPartition(topic, 0), [record("a")])
    with pytest.raises(ValueError, match="a mistake"):
        await producer.flush()
    with pytest.raises(ValueError, match="a mistake"):
        await producer.end(commit=True)


async def test_records_sent_in_one_go_leave_in_one_request(producer: KafkaProducer, topic: str, wire: Wire) -> None:
    producer.begin()
    for number in range(30):
        producer.send(TopicPartition(topic, number % PARTITIONS), [record(str(number))])
    await producer.flush()
    assert wire.requests["Produce"] - producer.retries.total() == 1, "a new topic may not know its leader yet"
    assert producer.records_sent == 30
    await producer.end(commit=True)


async def test_close_with_records_on_their_way_is_silent(producer: KafkaProducer, topic: str, wire: Wire) -> None:
    wire.hold = asyncio.Event()
    producer.begin()
    producer.send(TopicPartition(topic, 0), [record("a")])
    while not wire.requests["Produce"]:
        await asyncio.sleep(0.001)
    flushing = asyncio.create_task(producer.flush())
    await asyncio.sleep(0)
    await producer.close()
    with pytest.raises(ConnectionFailedError, match="closed"):
        await flushing
    with pytest.raises(ConnectionFailedError, match="closed"):
        producer.send(TopicPartition(topic, 0), [record("a")])


async def test_steps_out_of_turn_are_mistakes(producer: KafkaProducer, topic: str) -> None:
    with pytest.raises(AssertionError, match="send while initialised"):
        producer.send(TopicPartition(topic, 0), [record("a")])
    producer.begin()
    with pytest.raises(AssertionError, match="begin while in a transaction"):
        producer.begin()


@pytest.mark.parametrize("codec", ["none", "zstd"])
async def test_batch_that_the_topic_finds_too_large_leaves_in_smaller_ones(
    client: KafkaClient,
    admin: KafkaAdmin,
    new_producer: NewProducer,
    unique_name: UniqueName,
    monkeypatch: pytest.MonkeyPatch,
    codec: str,
) -> None:
    topic = unique_name("small")
    await admin.create_topic(topic, 2, config={"max.message.bytes": "10000"})
    wire = Wire(client, monkeypatch)
    producer = new_producer(unique_name("splits"), compression=codec)
    await producer.init()
    turns = [[f"{turn}-{number}-{secrets.token_hex(500)}" for number in range(100)] for turn in range(2)]
    requests = []
    for values in turns:
        before = wire.requests["Produce"]
        producer.begin()
        for partition in (0, 1):
            producer.send(TopicPartition(topic, partition), [record(value) for value in values])
        await producer.end(commit=True)
        requests.append(wire.requests["Produce"] - before)
    for partition in (0, 1):
        assert await read(client, topic, partition) == turns[0] + turns[1]
    assert requests[1] < requests[0], "the second time the size is known"
    assert (producer.buffered_bytes, producer.records_sent) == (0, 400)


async def test_lost_answers_among_batches_that_are_too_large_repeat_nothing(
    client: KafkaClient,
    admin: KafkaAdmin,
    new_producer: NewProducer,
    unique_name: UniqueName,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic = unique_name("small")
    await admin.create_topic(topic, 1, config={"max.message.bytes": "10000"})
    wire = Wire(client, monkeypatch)
    producer = new_producer(None)
    await producer.init()
    values = [f"{number}-{secrets.token_hex(400)}" for number in range(200)]
    wire.lose["Produce"] = 9
    producer.send(TopicPartition(topic, 0), [record(value) for value in values])
    await producer.flush()
    assert await read(client, topic) == values
