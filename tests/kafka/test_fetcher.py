"""Reading from a real broker: what comes, what stays out, and what one partition means to the others."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest

from streamlib.errors import ConnectionFailedError, ErrorCode, KafkaError
from streamlib.kafka import fetcher as fetcher_module
from streamlib.kafka.admin import KafkaAdmin
from streamlib.kafka.client import KafkaClient
from streamlib.kafka.fetcher import FetcherSettings, KafkaFetcher
from streamlib.kafka.producer import KafkaProducer, ProducerSettings
from streamlib.records import TopicPartition

UniqueName = Callable[[str], str]
NewFetcher = Callable[..., KafkaFetcher]
Write = Callable[..., Awaitable[int]]
PARTITIONS = 4
A_LOT = 1 << 30
# A broker begins a new segment, and a fetch ends, where an old timestamp meets the marker's new one.
NOW_MS = time.time_ns() // 1_000_000


@pytest.fixture
async def partitions(admin: KafkaAdmin, unique_name: UniqueName) -> list[TopicPartition]:
    topic = unique_name("fetched")
    await admin.create_topic(topic, PARTITIONS)
    return [TopicPartition(topic, number) for number in range(PARTITIONS)]


@pytest.fixture
async def new_fetcher(client: KafkaClient) -> AsyncIterator[NewFetcher]:
    fetchers: list[KafkaFetcher] = []

    def make(positions: Mapping[TopicPartition, int] | None = None, **settings: Any) -> KafkaFetcher:
        fetchers.append(KafkaFetcher(client, FetcherSettings(**settings)))
        fetchers[-1].add(positions or {})
        return fetchers[-1]

    yield make
    for fetcher in fetchers:
        await fetcher.close()


@pytest.fixture
async def producer(client: KafkaClient, unique_name: UniqueName) -> AsyncIterator[KafkaProducer]:
    made = KafkaProducer(client, unique_name("tx"))
    await made.init()
    yield made
    await made.close()


@pytest.fixture
def write(producer: KafkaProducer, admin: KafkaAdmin) -> Write:
    """Writes values in a transaction and waits for its marker; returns the offset after the last value."""

    async def write(partition: TopicPartition, *values: str, commit: bool = True) -> int:
        producer.begin()
        producer.send(partition, [(None, value.encode(), NOW_MS, ()) for value in values])
        ends = await producer.flush()
        await producer.end(commit=commit)
        async with asyncio.timeout(10):
            while (await admin.list_offsets([partition], "latest_stable"))[partition] <= ends[partition]:
                await asyncio.sleep(0.001)
        return ends[partition]

    return write


async def read(fetcher: KafkaFetcher, until: Mapping[TopicPartition, int]) -> dict[TopicPartition, list[str]]:
    """All values up to these positions."""
    values: dict[TopicPartition, list[str]] = defaultdict(list)
    positions = dict.fromkeys(until, 0)
    async with asyncio.timeout(10):
        while any(positions[partition] < end for partition, end in until.items()):
            await fetcher.wait()
            for batch in fetcher.take(A_LOT):
                positions[batch.partition] = batch.next_offset
                values[batch.partition] += [(record.value or b"").decode() for record in batch.records()]
    return values


async def take_for_ever(fetcher: KafkaFetcher) -> None:
    while True:
        await fetcher.wait()
        fetcher.take(A_LOT)


class Wire:
    """Counts fetches, loses or changes their answers."""

    def __init__(self, client: KafkaClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[list[TopicPartition]] = []
        self.answered = 0
        self.lose = 0
        self.codes: list[int] = []  # of the next answers, for all their partitions
        self._call = client.call
        monkeypatch.setattr(client, "call", self.call)

    async def call(self, api: str, body: Any, **options: Any) -> Any:
        if api != "Fetch":
            return await self._call(api, body, **options)
        self.asked.append([TopicPartition(t["topic"], p["partition"]) for t in body["topics"] for p in t["partitions"]])
        if self.lose:
            self.lose -= 1
            raise ConnectionFailedError(api, "", "lost on purpose")
        answer = await self._call(api, body, **options)
        self.answered += 1
        if self.codes:
            code = self.codes.pop(0)
            for topic in answer.responses:
                for each in topic.partitions:
                    each.error_code = code
        return answer

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)


@pytest.fixture
def wire(client: KafkaClient, monkeypatch: pytest.MonkeyPatch) -> Wire:
    return Wire(client, monkeypatch)


# --- what comes


async def test_reads_each_partition_from_its_position(
    new_fetcher: NewFetcher, write: Write, partitions: list[TopicPartition]
) -> None:
    first, second, *_ = partitions
    await write(first, "a", "b", "c")
    await write(second, "d", "e")
    fetcher = new_fetcher({first: 1, second: 0})
    assert await read(fetcher, {first: 4, second: 3}) == {first: ["b", "c"], second: ["d", "e"]}
    assert fetcher.end_offsets() == {first: 4, second: 3}


async def test_records_that_arrive_while_the_broker_holds_the_request_come_at_once(
    new_fetcher: NewFetcher, write: Write, partitions: list[TopicPartition], wire: Wire
) -> None:
    fetcher = new_fetcher(dict.fromkeys(partitions, 0), max_wait_ms=20_000)
    await wire.until(lambda: len(wire.asked) > 0)
    await write(partitions[2], "a")
    assert await read(fetcher, {partitions[2]: 2}) == {partitions[2]: ["a"]}


async def test_positions_go_past_markers_and_aborted_records(
    new_fetcher: NewFetcher, write: Write, partitions: list[TopicPartition]
) -> None:
    partition = partitions[0]
    await write(partition, "a")
    await write(partition, "b", commit=False)
    end = await write(partition, "c", commit=False)
    assert await read(new_fetcher({partition: 0}), {partition: end + 1}) == {partition: ["a"]}
    assert await read(new_fetcher({partition: 2}), {partition: end + 1}) == {partition: []}


async def test_open_transaction_is_not_read_until_it_ends(
    client: KafkaClient,
    new_fetcher: NewFetcher,
    producer: KafkaProducer,
    write: Write,
    partitions: list[TopicPartition],
) -> None:
    partition = partitions[0]
    end = await write(partition, "before")
    producer.begin()
    producer.send(partition, [(None, b"open", NOW_MS, ())])
    await producer.flush()
    other = KafkaProducer(client, None)
    await other.init()
    other.send(partition, [(None, b"behind", NOW_MS, ())])
    await other.flush()
    await other.close()

    uncommitted = new_fetcher({partition: 0}, read_committed=False)
    assert await read(uncommitted, {partition: end + 3}) == {partition: ["before", "open", "behind"]}
    assert uncommitted.end_offsets() == {partition: end + 3}
    committed = new_fetcher({partition: 0})
    assert await read(committed, {partition: end + 1}) == {partition: ["before"]}
    assert committed.end_offsets() == {partition: end + 1}
    await producer.end(commit=True)
    assert await read(committed, {partition: end + 4}) == {partition: ["open", "behind"]}


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_compressed_records_are_read(
    client: KafkaClient, new_fetcher: NewFetcher, partitions: list[TopicPartition], codec: str
) -> None:
    if codec != "gzip":
        pytest.importorskip("cramjam")
    producer = KafkaProducer(client, None, ProducerSettings(compression=codec))
    await producer.init()
    producer.send(partitions[0], [(None, b"value" * 100, NOW_MS, ())] * 50)
    await producer.flush()
    assert producer.bytes_sent < 5_000
    await producer.close()
    assert await read(new_fetcher({partitions[0]: 0}), {partitions[0]: 50}) == {partitions[0]: ["value" * 100] * 50}


async def test_batches_larger_than_the_buffer_are_read(
    new_fetcher: NewFetcher, write: Write, partitions: list[TopicPartition]
) -> None:
    for partition in partitions:
        for _ in range(3):
            end = await write(partition, "x" * 20_000)
    fetcher = new_fetcher(dict.fromkeys(partitions, 0), buffer_bytes=1_000)
    values = await read(fetcher, dict.fromkeys(partitions, end + 1))
    assert {partition: len(values[partition]) for partition in partitions} == dict.fromkeys(partitions, 3)


@pytest.mark.parametrize("seed", range(3))
async def test_only_committed_records_come_from_wherever_one_starts(
    client: KafkaClient,
    admin: KafkaAdmin,
    new_fetcher: NewFetcher,
    partitions: list[TopicPartition],
    unique_name: UniqueName,
    seed: int,
) -> None:
    """Transactions of three producers, interleaved at random, some aborted, read in small bits."""
    chance, partition = random.Random(seed), partitions[0]
    log_of_records = await _interleaved(client, partition, unique_name("tx"), chance)
    end = (await admin.list_offsets([partition], "latest"))[partition]
    expected = {offset: value for offset, value, committed in log_of_records if committed}
    assert len(expected) > 50
    for start in [0, *chance.sample(range(end), 5)]:
        fetcher = new_fetcher({partition: start}, buffer_bytes=chance.choice([500, 5_000, 1 << 20]))
        values = await read(fetcher, {partition: end})
        assert values[partition] == [value for offset, value in sorted(expected.items()) if offset >= start]


async def _interleaved(
    client: KafkaClient, partition: TopicPartition, name: str, chance: random.Random
) -> list[tuple[int, str, bool]]:
    """Offset, value and fate of each record; all transactions are over, and their markers written."""
    producers = [KafkaProducer(client, f"{name}-{number}") for number in range(3)]
    written: dict[KafkaProducer, list[tuple[int, str]]] = {}
    done: list[tuple[int, str, bool]] = []
    for producer in producers:
        await producer.init()
    for number in range(150):
        producer = chance.choice(producers)
        if producer not in written:
            producer.begin()
            written[producer] = []
        values = [f"{number}-{each}" for each in range(chance.randint(1, 3))]
        producer.send(partition, [(None, value.encode(), NOW_MS, ()) for value in values])
        end = (await producer.flush())[partition]
        written[producer] += zip(range(end - len(values), end), values, strict=True)
        if chance.random() < 0.4:
            done += await _ended(producer, written.pop(producer), commit=chance.random() < 0.5)
    for producer, rest in written.items():
        done += await _ended(producer, rest, commit=True)
    for producer in producers:
        await producer.init()  # waits for the markers
        await producer.close()
    return done


async def _ended(
    producer: KafkaProducer, records: list[tuple[int, str]], *, commit: bool
) -> list[tuple[int, str, bool]]:
    await producer.end(commit=commit)
    return [(offset, value, commit) for offset, value in records]


# --- taking


async def test_take_is_fair_and_stops_at_about_the_bytes_asked_for(
    new_fetcher: NewFetcher, write: Write, partitions: list[TopicPartition], wire: Wire
) -> None:
    for _ in range(3):
        for partition in partitions:
            end = await write(partition, "x" * 1_000)
    fetcher = new_fetcher(dict.fromkeys(partitions, 0))
    await wire.until(lambda: all(offset >= end for offset in fetcher.end_offsets().values()))
    await wire.until(lambda: len(fetcher.end_offsets()) == PARTITIONS and fetcher.ready)
    turns = [[batch.partition for batch in fetcher.take(2_500)] for _ in range(4)]
    assert [len(turn) for turn in turns] == [3, 3, 3, 3]
    flat = [partition for turn in turns for partition in turn]
    assert sorted(flat) == sorted(partitions * 3)
    assert sorted(flat[:PARTITIONS]) == partitions, "each has one turn before any has two"
    assert not fetcher.ready
    assert fetcher.take(A_LOT) == []


async def test_paused_partitions_are_held_back_and_others_flow(
    new_fetcher: NewFetcher, write: Write, partitions: list[TopicPartition], wire: Wire
) -> None:
    held, free, *_ = partitions
    await write(held, "held")
    fetcher = new_fetcher({held: 0, free: 0})
    fetcher.pause([held])
    await wire.until(lambda: fetcher.end_offsets().get(held) == 2)
    assert not fetcher.ready
    await write(free, "free")
    assert await read(fetcher, {free: 2}) == {free: ["free"]}
    waiting = asyncio.create_task(fetcher.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    fetcher.pause([])
    await asyncio.wait_for(waiting, 5)
    assert [batch.partition for batch in fetcher.take(A_LOT)] == [held]


@pytest.mark.parametrize("settings", [{"buffer_bytes": 3_000}, {"buffers_bytes": 6_000}])
async def test_full_partition_is_not_asked_for_until_something_is_taken(
    new_fetcher: NewFetcher,
    write: Write,
    partitions: list[TopicPartition],
    wire: Wire,
    settings: dict[str, int],
) -> None:
    full, other, *_ = partitions
    for _ in range(10):
        end = await write(full, "x" * 1_000)
    fetcher = new_fetcher({full: 0, other: 0}, **settings, max_wait_ms=20)
    await wire.until(lambda: fetcher.ready)
    already = len(wire.asked)
    await wire.until(lambda: len(wire.asked) > already + 5)
    assert not any(full in asked for asked in wire.asked[already + 2 :])
    assert sum(batch.size_bytes for batch in fetcher.take(A_LOT)) <= 4_000
    await wire.until(lambda: fetcher.ready)
    await write(other, "flows")
    values = await read(fetcher, {full: end + 1, other: 2})
    assert values[other] == ["flows"]


# --- adding and removing


async def test_newcomer_does_not_wait_for_a_long_poll_of_others(
    new_fetcher: NewFetcher, write: Write, partitions: list[TopicPartition], wire: Wire
) -> None:
    """Each of them comes while the requests for those before are held back for 20 s."""
    for partition in partitions[1:]:
        await write(partition, "a")
    fetcher = new_fetcher({partitions[0]: 0}, max_wait_ms=20_000)
    await wire.until(lambda: len(wire.asked) > 0)
    for partition in partitions[1:]:
        fetcher.add({partition: 0})
        assert await read(fetcher, {partition: 2}) == {partition: ["a"]}
        await wire.until(lambda partition=partition: partition in wire.asked[-1])  # type: ignore[misc]
    assert partitions[0] not in [name for asked in wire.asked[1:] for name in asked]


async def test_nothing_of_a_removed_partition_comes_out(
    new_fetcher: NewFetcher, write: Write, partitions: list[TopicPartition], wire: Wire
) -> None:
    gone, stays, *_ = partitions
    for partition in (gone, stays):
        await write(partition, "a")
    fetcher = new_fetcher({gone: 0, stays: 0})
    await wire.until(lambda: len(wire.asked) > 0)
    fetcher.remove([gone])  # its request is on its way
    assert await read(fetcher, {stays: 2}) == {stays: ["a"]}
    fetcher.add({gone: 0})
    await wire.until(lambda: gone in fetcher.end_offsets())
    fetcher.remove([gone])  # it is buffered
    assert not fetcher.ready
    assert gone not in fetcher.end_offsets()


async def test_added_again_reads_from_the_new_position_only(
    new_fetcher: NewFetcher, write: Write, partitions: list[TopicPartition], wire: Wire
) -> None:
    partition = partitions[0]
    await write(partition, "a", "b", "c")
    fetcher = new_fetcher({partition: 0})
    await wire.until(lambda: len(wire.asked) > 0)
    fetcher.add({partition: 2})  # the answer from 0 is on its way
    assert await read(fetcher, {partition: 4}) == {partition: ["c"]}
    fetcher.add({partition: 1})
    assert await read(fetcher, {partition: 4}) == {partition: ["b", "c"]}


async def test_partitions_come_and_go_while_records_flow(
    new_fetcher: NewFetcher, write: Write, partitions: list[TopicPartition]
) -> None:
    steady, *others = partitions
    fetcher = new_fetcher({steady: 0})
    values: list[str] = []
    position = 0
    for number in range(60):
        fetcher.add({others[number % 3]: 0})
        end = await write(steady, str(number))
        fetcher.remove([others[(number + 1) % 3]])
        while position <= end:
            await asyncio.wait_for(fetcher.wait(), 5)
            for batch in fetcher.take(A_LOT):
                assert batch.partition == steady
                position = batch.next_offset
                values += [(record.value or b"").decode() for record in batch.records()]
    assert values == [str(number) for number in range(60)]


# --- being idle


async def test_idle_partitions_share_one_request_at_a_time(
    new_fetcher: NewFetcher, partitions: list[TopicPartition], wire: Wire
) -> None:
    fetcher = new_fetcher({partitions[0]: 0}, max_wait_ms=50)
    for partition in partitions[1:]:
        await wire.until(lambda: len(wire.asked) > 0)
        fetcher.add({partition: 0})
    await wire.until(lambda: len(wire.asked[-1]) == PARTITIONS)
    already, clock = len(wire.asked), asyncio.get_running_loop().time
    started_s = clock()
    await wire.until(lambda: len(wire.asked) >= already + 4)
    assert all(len(asked) == PARTITIONS for asked in wire.asked[already:])
    assert clock() - started_s > 4 * 0.05 * 0.8


# --- trouble


async def test_out_of_range_is_raised_for_its_partition_and_others_are_read(
    new_fetcher: NewFetcher, write: Write, partitions: list[TopicPartition], wire: Wire
) -> None:
    lost, good, *_ = partitions
    await write(good, "a")
    fetcher = new_fetcher({lost: 1_000, good: 0})
    with pytest.raises(KafkaError, match="offset 1000") as refused:
        await take_for_ever(fetcher)
    assert refused.value.code == ErrorCode.OFFSET_OUT_OF_RANGE
    assert refused.value.where == str(lost)
    await wire.until(lambda: fetcher.end_offsets().get(good) == 2)
    fetcher.remove([lost])
    end = await write(good, "b")
    assert (await read(fetcher, {good: end + 1}))[good][-1] == "b"


async def test_what_was_read_before_a_failure_comes_out_first(
    new_fetcher: NewFetcher, write: Write, partitions: list[TopicPartition], wire: Wire
) -> None:
    partition = partitions[0]
    await write(partition, "a")
    wire.codes = [ErrorCode.NONE, ErrorCode.OFFSET_OUT_OF_RANGE]
    fetcher = new_fetcher({partition: 0}, max_wait_ms=1)
    await wire.until(lambda: wire.answered >= 2)
    await fetcher.wait()
    assert [batch.next_offset for batch in fetcher.take(A_LOT)] == [2]
    with pytest.raises(KafkaError, match="offset 2"):
        await fetcher.wait()


async def test_records_deleted_before_they_were_read_are_out_of_range(
    admin: KafkaAdmin, new_fetcher: NewFetcher, write: Write, partitions: list[TopicPartition]
) -> None:
    partition = partitions[0]
    await write(partition, "a", "b", "c")
    await admin.delete_records({partition: 2})
    fetcher = new_fetcher({partition: 0})
    with pytest.raises(KafkaError, match="OFFSET_OUT_OF_RANGE"):
        await asyncio.wait_for(fetcher.wait(), 5)
    fetcher.add({partition: 2})
    assert await read(fetcher, {partition: 4}) == {partition: ["c"]}


async def test_leader_that_moved_is_looked_up_again(
    new_fetcher: NewFetcher, write: Write, partitions: list[TopicPartition], wire: Wire
) -> None:
    await write(partitions[0], "a")
    wire.codes = [ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.FENCED_LEADER_EPOCH, ErrorCode.LEADER_NOT_AVAILABLE]
    assert await read(new_fetcher({partitions[0]: 0}), {partitions[0]: 2}) == {partitions[0]: ["a"]}
    assert not wire.codes


async def test_lost_connections_are_made_up_for_and_said_once(
    new_fetcher: NewFetcher,
    write: Write,
    partitions: list[TopicPartition],
    wire: Wire,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await write(partitions[0], "a")
    wire.lose = 4
    with caplog.at_level(logging.WARNING, "streamlib.kafka"):
        assert await read(new_fetcher({partitions[0]: 0}), {partitions[0]: 2}) == {partitions[0]: ["a"]}
    assert len([message for message in caplog.messages if "tried again" in message]) == 1


async def test_topic_that_does_not_exist_is_raised_after_a_while(new_fetcher: NewFetcher) -> None:
    missing = TopicPartition("missing", 0)
    fetcher = new_fetcher({missing: 0}, unknown_topic_timeout_ms=100)
    with pytest.raises(KafkaError) as refused:
        await asyncio.wait_for(fetcher.wait(), 5)
    assert (refused.value.code, refused.value.where) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, str(missing))


async def test_topic_that_is_deleted_is_raised_after_a_while(
    admin: KafkaAdmin, new_fetcher: NewFetcher, write: Write, partitions: list[TopicPartition]
) -> None:
    await write(partitions[0], "a")
    fetcher = new_fetcher({partitions[0]: 0}, unknown_topic_timeout_ms=100, max_wait_ms=20)
    await read(fetcher, {partitions[0]: 2})
    await admin.delete_topics([partitions[0].topic])
    with pytest.raises(KafkaError, match=rf"{partitions[0]}: UNKNOWN_TOPIC_OR_PARTITION"):
        await asyncio.wait_for(fetcher.wait(), 10)


async def test_topic_that_is_created_later_is_read(
    admin: KafkaAdmin, new_fetcher: NewFetcher, write: Write, unique_name: UniqueName
) -> None:
    partition = TopicPartition(unique_name("later"), 0)
    fetcher = new_fetcher({partition: 0})
    waiting = asyncio.create_task(fetcher.wait())
    await admin.create_topic(partition.topic)
    await write(partition, "a")
    await asyncio.wait_for(waiting, 10)
    assert await read(fetcher, {partition: 2}) == {partition: ["a"]}


async def test_mistake_in_the_background_comes_out_of_wait(
    new_fetcher: NewFetcher, write: Write, partitions: list[TopicPartition], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ValueError("a mistake")

    monkeypatch.setattr(fetcher_module, "read_batches", broken)
    await write(partitions[0], "a")
    with pytest.raises(ValueError, match="a mistake"):
        await asyncio.wait_for(new_fetcher({partitions[0]: 0}).wait(), 5)


async def test_close_does_not_wait_for_a_long_poll(
    new_fetcher: NewFetcher, partitions: list[TopicPartition], wire: Wire
) -> None:
    fetcher = new_fetcher(dict.fromkeys(partitions, 0), max_wait_ms=20_000)
    await wire.until(lambda: len(wire.asked) > 0)
    await asyncio.wait_for(fetcher.close(), 5)
