"""Applications on real brokers, and what is found of them: through kills, planted faults and open transactions."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest

from streamlib import StreamsConfig, Topology
from streamlib.cli.client import read_committed
from streamlib.cli.errors import UsageError
from streamlib.cli.verify.asking import find_open
from streamlib.cli.verify.job import Job
from streamlib.cli.verify.moment import quiet_moment
from streamlib.kafka.connection import Connection
from streamlib.kafka.reading import partitions_of
from streamlib.records import FetchedRecord, TopicPartition
from streamlib.testing.plugin import KafkaTarget
from streamlib.verify.report import Origin, Report, TopicReport, Verdict
from tests.cli.conftest import Command
from tests.exactly_once import topologies
from tests.exactly_once.harness import PARTITIONS, Bench, Worker, numbered, opened
from tests.verify.support import faults


@pytest.fixture
async def bench(kafka: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(Bench(kafka, unique_name("verify"), tmp_path)) as ready:
        yield ready


@pytest.fixture
async def one_bench(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path
) -> AsyncIterator[Bench]:
    async with opened(Bench(kafka_broker, unique_name("verify"), tmp_path)) as ready:
        yield ready


def topology_of(bench: Bench, sink: str | None = None) -> Topology:
    made: Topology = getattr(topologies, bench.topology)(bench.source, sink or bench.sink)
    return made


async def verified(bench: Bench, topology: Topology | None = None, **options: Any) -> Report:
    config = StreamsConfig(
        application_id=bench.name, bootstrap_servers=bench.connection.client.settings.bootstrap_servers
    )
    job = Job(
        topology or topology_of(bench),
        config,
        from_beginning=options.get("from_beginning", False),
        examples=5,
        step=lambda what, total: lambda done: None,
    )
    with anyio.fail_after(120):
        return await job.run()


def of_topic(report: Report, topic: str) -> TopicReport:
    return next(each for each in report.topics if each.topic == topic)


async def feed_through_kills(bench: Bench, *faults_of_each: dict[str, Any]) -> None:
    """Some records, a worker that dies of a planted fault, more records, and so on; then one that goes to the end."""
    fed = 0
    for fault in faults_of_each:
        worker = bench.start(fault)
        with anyio.fail_after(60):
            while worker.alive:
                await bench.produce(numbered(4, start=fed))
                fed += 4
                await anyio.sleep(0.05)
    await bench.produce(numbered(20, start=fed))
    await run_to_the_end(bench)


async def run_to_the_end(bench: Bench, **settings: Any) -> Worker:
    worker = bench.start(**settings)
    await bench.until_all_committed(worker)
    await worker.stop()
    return worker


KILLS = (
    {"act": "kill", "when": "sent", "api": "Produce", "nth": 3},
    {"act": "kill", "when": "after", "api": "TxnOffsetCommit", "nth": 2},
    {"act": "kill", "when": "sent", "api": "EndTxn", "nth": 2},
)


@pytest.mark.parametrize("name", ["counter", "regrouped"])
async def test_an_application_that_was_killed_again_and_again_verifies(bench: Bench, name: str) -> None:
    bench.topology = name
    await feed_through_kills(bench, *KILLS)
    report = await verified(bench)
    assert report.verdict is Verdict.HOLDS, report
    output = of_topic(report, bench.sink)
    assert output.found == output.expected > 20
    kinds = {"record by record"} if name == "counter" else {"record by record", "counts in order"}
    assert output.compared.keys() <= kinds
    assert {each.kind for each in report.topics} == {"output", "changelog"}


async def raw_records(bench: Bench, topic: str) -> list[tuple[TopicPartition, FetchedRecord]]:
    """All committed records of a topic, with their partitions."""
    admin = bench.connection.admin()
    count = (await admin.partition_counts([topic]))[topic]
    return [
        (partition, record)
        for partition in partitions_of(topic, count)
        async for record in read_committed(bench.connection, [partition])
    ]


async def write(bench: Bench, records: Iterable[tuple[TopicPartition, FetchedRecord]]) -> None:
    """Write records as they are."""
    producer = bench.connection.producer(None)
    await producer.init()
    for partition, record in records:
        producer.send(partition, [(record.key, record.value, record.timestamp, record.headers)])
    await producer.flush()
    await producer.close()


async def processed(bench: Bench, count: int = 40) -> None:
    await bench.produce(numbered(count))
    await run_to_the_end(bench)


async def test_a_planted_duplicate_is_found_where_it_is(one_bench: Bench) -> None:
    await processed(one_bench)
    records = await raw_records(one_bench, one_bench.sink)
    partition, twice = records[5]
    await write(one_bench, [(partition, twice)])
    end = (await one_bench.connection.admin().list_offsets([partition], "latest"))[partition]
    report = await verified(one_bench)
    assert report.verdict is Verdict.VIOLATED
    output = of_topic(report, one_bench.sink)
    assert faults(output) == {"duplicates": 1}
    (example,) = output.examples
    assert (example.kind, example.topic, example.partition, example.offset) == ("duplicate", *partition, end - 1)
    assert example.input is not None
    assert example.input.topic == one_bench.source


async def test_a_record_that_is_missing_is_told_with_the_input_it_belongs_to(one_bench: Bench) -> None:
    """The results are copied to another topic, all but one."""
    await processed(one_bench)
    other = f"{one_bench.sink}-copy"
    await one_bench.create_topic(other)
    records = await raw_records(one_bench, one_bench.sink)
    copies = [(TopicPartition(other, partition.partition), record) for partition, record in records]
    (lost_from, lost) = copies.pop(7)
    await write(one_bench, copies)
    report = await verified(one_bench, topology_of(one_bench, sink=other))
    assert report.verdict is Verdict.VIOLATED
    output = of_topic(report, other)
    assert faults(output) == {"missing": 1}
    (example,) = output.examples
    assert (example.kind, example.partition, example.offset) == ("missing", lost_from.partition, None)
    assert lost.key is not None
    assert lost.value is not None
    number = int.from_bytes(lost.value, "big")
    assert (example.key, example.expected) == (repr(lost.key.decode()), str(number))
    sources = await raw_records(one_bench, one_bench.source)
    of_key = [(partition, record) for partition, record in sources if record.key == lost.key]
    came_from = of_key[number - 1]
    assert example.input == Origin(*came_from[0], came_from[1].offset)


async def test_what_is_not_processed_yet_is_lag_and_no_loss(one_bench: Bench) -> None:
    await processed(one_bench)
    await one_bench.produce(numbered(9, start=40))
    report = await verified(one_bench)
    assert report.verdict is Verdict.HOLDS
    assert sum(each.lag for each in report.inputs) == 9


async def test_what_waits_between_two_tasks_is_lag_too(one_bench: Bench) -> None:
    """The first commit has words in the repartition topic that the second would have counted."""
    one_bench.topology = "regrouped"
    await one_bench.produce(numbered(40))
    worker = one_bench.start({"act": "kill", "when": "before", "api": "EndTxn", "nth": 2}, transaction_timeout_ms=1000)
    await worker.until_dead()
    report = await verified(one_bench)
    assert report.verdict is Verdict.HOLDS, report
    lag = {each.topic: each.lag for each in report.inputs if each.lag}
    assert lag.keys() == {f"{one_bench.name}-word-repartition"}
    assert of_topic(report, one_bench.sink).found < 40


async def test_at_least_once_shows_its_duplicates(one_bench: Bench) -> None:
    """Results are written, then the worker dies before it commits the offsets."""
    one_bench.topology, one_bench.guarantee = "copy", "at_least_once"
    await one_bench.produce(numbered(20))
    worker = one_bench.start({"act": "kill", "when": "before", "api": "OffsetCommit", "nth": 1})
    await worker.until_dead()
    await run_to_the_end(one_bench)
    report = await verified(one_bench)
    assert report.verdict is Verdict.VIOLATED
    output = of_topic(report, one_bench.sink)
    assert faults(output) == {"duplicates": output.found - 20}
    assert {example.kind for example in output.examples} == {"duplicate"}


async def test_a_running_application_verifies_while_it_works(one_bench: Bench) -> None:
    worker = one_bench.start()
    await worker.until_running()
    async with anyio.create_task_group() as group:

        async def feed() -> None:
            for start in range(0, 400, 4):
                await one_bench.produce(numbered(4, start=start))
                await anyio.sleep(0.01)

        group.start_soon(feed)
        await one_bench.until_committed(20, worker)
        report = await verified(one_bench)
        group.cancel_scope.cancel()
    assert report.verdict is not Verdict.VIOLATED, report
    assert of_topic(report, one_bench.sink).found > 10
    await worker.stop()


@asynccontextmanager
async def open_transaction(bench: Bench, partition: TopicPartition, timeout_ms: int) -> AsyncIterator[str]:
    """A producer that has written and does not end its transaction."""
    name = f"{bench.name}-left-open"
    config = StreamsConfig(
        application_id=bench.name,
        bootstrap_servers=bench.connection.client.settings.bootstrap_servers,
        transaction_timeout_ms=timeout_ms,
    )
    connection = await Connection.open(config)
    producer = connection.producer(name)
    await producer.init()
    producer.begin()
    producer.send(partition, [(b"k", b"v", time.time_ns() // 1_000_000, ())])
    await producer.flush()
    yield name
    await producer.end(commit=False)
    await producer.close()
    await connection.close()


async def test_an_open_transaction_is_told_with_its_age_and_hides_nothing_for_sure(bench: Bench) -> None:
    """What is written after it cannot be seen, so it is not said to be missing."""
    await processed(bench)
    async with open_transaction(bench, TopicPartition(bench.sink, 0), timeout_ms=600_000) as name:
        await bench.produce(numbered(8, start=40))
        await run_to_the_end(bench)
        report = await verified(bench)
    (found,) = report.transactions
    assert (found.topic, found.partition, found.transactional_id) == (bench.sink, 0, name)
    assert found.age_ms is not None
    assert 0 < found.age_ms < 120_000
    assert (found.timeout_ms, found.hanging) == (600_000, None)
    output = of_topic(report, bench.sink)
    assert output.missing == 0
    assert output.undecided > 0
    assert report.verdict is Verdict.UNKNOWN


async def test_offsets_in_an_open_transaction_are_waited_for_and_given_up(bench: Bench) -> None:
    """A worker dies in the middle of a commit; when it comes back, it ends its transaction."""
    await bench.produce(numbered(8))
    fault = {"act": "kill", "when": "after", "api": "TxnOffsetCommit", "nth": 1}
    await bench.start(fault, transaction_timeout_ms=600_000).until_dead()
    partitions = [TopicPartition(bench.source, number) for number in range(PARTITIONS)]
    assert await quiet_moment(bench.connection, bench.name, partitions, [], patience_s=0.5) is None
    asked = bench.connection.transactions(), bench.connection.admin()
    found, _ = await find_open(*asked, bench.name, partitions)
    assert [(each.topic, each.hanging) for each in found] == [("__consumer_offsets", None)]
    await run_to_the_end(bench)
    moment = await quiet_moment(bench.connection, bench.name, partitions, [], patience_s=10)
    assert moment is not None
    assert moment.committed == moment.ends


async def test_an_input_that_was_cut_can_be_told_only_on_request(one_bench: Bench) -> None:
    await one_bench.produce(numbered(8))
    await one_bench.connection.admin().delete_records({TopicPartition(one_bench.source, 0): 2})
    await run_to_the_end(one_bench)
    cut = await verified(one_bench)
    assert cut.verdict is Verdict.UNKNOWN
    assert "begins at offset 2" in of_topic(cut, one_bench.sink).reasons[0]
    whole = await verified(one_bench, from_beginning=True)
    assert whole.verdict is Verdict.HOLDS


async def test_another_application_id_has_never_run(one_bench: Bench) -> None:
    await processed(one_bench)
    one_bench.name = f"{one_bench.name}-other"
    with pytest.raises(UsageError, match="has not run here with this topology"):
        await verified(one_bench)
    one_bench.topology = "copy"
    report = await verified(one_bench)
    assert report.verdict is Verdict.UNKNOWN
    assert "has committed no offsets" in report.reasons[0]


MODULE = """
from streamlib import StreamsBuilder

builder = StreamsBuilder()
builder.stream("{source}", key=str, value=str).to("{sink}")
topology = builder.build()
"""


async def test_the_command_tells_by_its_exit_code_and_as_json(
    one_bench: Bench, streamlib: Command, tmp_path: Path
) -> None:
    one_bench.topology = "copy"
    await processed(one_bench)
    (tmp_path / "flows.py").write_text(MODULE.format(source=one_bench.source, sink=one_bench.sink))
    options = (
        "--application-id",
        one_bench.name,
        "--bootstrap-servers",
        one_bench.connection.client.settings.bootstrap_servers,
    )
    done = await anyio.to_thread.run_sync(lambda: streamlib("verify", "flows", *options))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "exactly once: it holds"
    await write(one_bench, (await raw_records(one_bench, one_bench.sink))[:1])
    done = await anyio.to_thread.run_sync(lambda: streamlib("verify", "flows", "--json", *options))
    assert done.returncode == 1, done.stderr
    told = msgspec.json.decode(done.stdout)
    assert told["verdict"] == "violated"
    assert told["topics"][0]["duplicates"] == 1
    done = await anyio.to_thread.run_sync(lambda: streamlib("verify", "flows", *options))
    assert "duplicate: partition" in done.stdout
    assert done.stdout.splitlines()[-1] == "exactly once: IT DOES NOT HOLD"


async def test_what_is_not_there_is_one_clear_message(one_bench: Bench, streamlib: Command, tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(MODULE.format(source=one_bench.source, sink="nowhere"))
    address = one_bench.connection.client.settings.bootstrap_servers
    done = await anyio.to_thread.run_sync(lambda: streamlib("verify", "flows", "--bootstrap-servers", address))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: topics that the topology writes to do not exist: nowhere")
    assert len(done.stderr.splitlines()) == 1


def test_a_broker_that_is_not_there_is_one_clear_message(streamlib: Command, tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(MODULE.format(source="in", sink="out"))
    done = streamlib("verify", "flows", "--bootstrap-servers", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no broker answered at 127.0.0.1:1" in done.stderr
    assert len(done.stderr.splitlines()) == 1
