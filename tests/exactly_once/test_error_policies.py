"""Each policy for records that fail, on a real broker: plain and awaited functions, with and without state around them.

An application has all six at once, each with topics of its own:

    alone      value --> function --> out                  out: the values
    counted    value --> function --> count --> out        out: 1, 2, 3 ...
    folded     value --> text of all --> function --> out  out: all values so far, those that failed too, each once
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from streamlib import (
    DeadLetter,
    FailedRecord,
    KafkaStreams,
    ProcessingError,
    Retry,
    SerializationError,
    Skip,
    StreamsBuilder,
    StreamsConfig,
)
from streamlib.testing.plugin import KafkaTarget
from streamlib.topology.topology import Topology
from tests.exactly_once.harness import Bench, check_counts, numbered, opened

SHAPES = ("alone", "counted", "folded")
VALUES = ("1", "flaky", "2", "bad", "3", "flaky", "4")
KEYS = ("a", "b", "c")
DELAYS = [timedelta(milliseconds=20), timedelta(milliseconds=60)]


class Function:
    """Raises for what is bad, and the first two times for what is flaky."""

    def __init__(self, mended: bool) -> None:
        self.mended = mended
        self.tries: Counter[tuple[str, str]] = Counter()

    def __call__(self, key: str, text: str) -> str:
        last = text.rstrip(",").rpartition(",")[2]
        self.tries[key, text] += 1
        if last == "bad" and not self.mended:
            raise ValueError(f"{last} is bad")
        if last == "flaky" and not self.mended and self.tries[key, text] % 3:
            raise ConnectionError("not now")
        return text

    async def awaited(self, key: str, text: str) -> str:
        await anyio.lowlevel.checkpoint()
        return self(key, text)


class Kind(msgspec.Struct, frozen=True):
    """One of the six, and the names of its topics."""

    app: str
    shape: str
    awaited: bool

    @property
    def name(self) -> str:
        return f"{self.shape}-{'awaited' if self.awaited else 'plain'}"

    @property
    def source(self) -> str:
        return f"{self.app}-{self.name}-in"

    @property
    def sink(self) -> str:
        return f"{self.app}-{self.name}-out"

    def add_to(self, builder: StreamsBuilder, function: Function, on_error: Any) -> None:
        called = function.awaited if self.awaited else function
        stream = builder.stream(self.source, key=str, value=str)
        if self.shape == "folded":
            stream = stream.group_by_key().aggregate(str, lambda key, value, old: f"{old}{value},").to_stream()
        stream = stream.map_values(called, with_key=True, value=str, on_error=on_error, name=self.name)
        if self.shape == "counted":
            stream.group_by_key().count().to_stream().map_values(str, value=str).to(self.sink)
            return
        stream.to(self.sink)

    def expected(self, dropped: set[str]) -> list[str]:
        """Of each key, where these values fail for good."""
        passed = [number for number, value in enumerate(VALUES) if value not in dropped]
        match self.shape:
            case "alone":
                return [VALUES[number] for number in passed]
            case "counted":
                return [str(number + 1) for number in range(len(passed))]
            case _:
                return ["".join(f"{value}," for value in VALUES[: number + 1]) for number in passed]


class Bed:
    """The six, as one application."""

    def __init__(self, bench: Bench, kafka: KafkaTarget, folder: Path) -> None:
        self.bench = bench
        self.dead = f"{bench.name}-dead"
        self.kinds = [Kind(bench.name, shape, awaited) for shape in SHAPES for awaited in (False, True)]
        self.config = StreamsConfig(
            application_id=bench.name,
            bootstrap_servers=kafka.bootstrap_servers,
            processing_guarantee="exactly_once_v2",
            state_dir=str(folder / "state"),
            group_instance_id="w",
        )

    async def fill(self) -> None:
        await self.bench.create_topic(self.dead)
        for kind in self.kinds:
            await self.bench.create_topic(kind.source)
            await self.bench.create_topic(kind.sink)
            await self.bench.produce([(key, value) for value in VALUES for key in KEYS], topic=kind.source)

    def topology(self, on_error: Any, *, mended: bool = False) -> Topology:
        builder = StreamsBuilder()
        for kind in self.kinds:
            kind.add_to(builder, Function(mended), on_error)
        return builder.build()

    async def drain(self, topology: Topology, **options: Any) -> None:
        """Run the application until all of its inputs are done."""
        with anyio.fail_after(60):
            async with KafkaStreams(topology, msgspec.structs.replace(self.config, **options)):
                for kind in self.kinds:
                    await self.bench.until_all_committed(topic=kind.source)

    async def check_outputs(self, dropped: set[str]) -> None:
        """Each key's results are there once, and in order."""
        for kind in self.kinds:
            found = defaultdict(list)
            for record in await self.bench.read(kind.sink, value=str):
                found[record.key].append(record.value)
            assert found == dict.fromkeys(KEYS, kind.expected(dropped)), kind.name

    async def check_dead_letters(self, values: set[str]) -> None:
        """Each is there once, as it was read, for each of the six."""
        found = Counter((seen.key, seen.value) for seen in await self.bench.read(self.dead, value=str))
        wanted = Counter((key, value) for value in VALUES if value in values for key in KEYS for _ in self.kinds)
        assert found == wanted


@pytest.fixture
async def bed(kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Bed]:
    async with opened(Bench(kafka_broker, unique_name("policies"), tmp_path)) as bench:
        bed = Bed(bench, kafka_broker, tmp_path)
        await bed.fill()
        yield bed


def decided(dead: str) -> Callable[[FailedRecord], Any]:
    """What is not there now may be later; what is bad stays so."""

    def decide(failed: FailedRecord) -> Any:
        assert failed.stage == "processing"
        assert failed.topic.endswith(f"-{failed.node}-in")
        return Retry(DELAYS) if isinstance(failed.error, ConnectionError) else DeadLetter(dead)

    return decide


@pytest.mark.parametrize("configured", [False, True])
@pytest.mark.parametrize(
    ("policy", "dropped", "dead"),
    [
        (lambda dead: "skip", {"bad", "flaky"}, set()),
        (DeadLetter, {"bad", "flaky"}, {"bad", "flaky"}),
        (lambda dead: Retry(DELAYS, then=Skip()), {"bad"}, set()),
        (lambda dead: Retry(DELAYS, then=DeadLetter(dead)), {"bad"}, {"bad"}),
        (decided, {"bad"}, {"bad"}),
    ],
    ids=["skip", "dead letter", "retry, skip", "retry, dead letter", "function"],
)
async def test_each_record_leads_to_its_results_once_or_to_what_the_policy_says(
    bed: Bed, policy: Callable[[str], Any], dropped: set[str], dead: set[str], configured: bool
) -> None:
    chosen = policy(bed.dead)
    if configured:
        await bed.drain(bed.topology(None), on_processing_error=chosen)
    else:
        await bed.drain(bed.topology(chosen))
    await bed.check_outputs(dropped)
    await bed.check_dead_letters(dead)


@pytest.mark.parametrize("policy", ["fail", Retry(DELAYS, then="fail")], ids=["fail", "retry, fail"])
async def test_what_stops_the_application_goes_on_from_there_when_it_is_mended(bed: Bed, policy: Any) -> None:
    with pytest.raises(ProcessingError, match=r"(ValueError: bad is bad|ConnectionError: not now)"):
        await bed.drain(bed.topology(policy))
    await bed.drain(bed.topology(policy, mended=True))
    await bed.check_outputs(set())
    await bed.check_dead_letters(set())


async def test_waiting_for_longer_than_a_session_or_a_transaction_may_last_ends_neither(bed: Bed) -> None:
    """Of one source nothing is out before the step, and it waits for 4 s; the other one's step is behind a store."""
    free, held = (kind for kind in bed.kinds if not kind.awaited and kind.shape in ("alone", "folded"))
    builder = StreamsBuilder()
    free.add_to(builder, Function(mended=False), Retry([timedelta(0), timedelta(seconds=4)], then="skip", jitter=0))
    held.add_to(builder, Function(mended=False), Retry([timedelta(hours=1)] * 3, then="skip"))
    config = msgspec.structs.replace(bed.config, session_timeout_ms=3_000, transaction_timeout_ms=2_000)
    with anyio.fail_after(60):
        async with KafkaStreams(builder.build(), config) as app:
            await bed.bench.until_all_committed(topic=held.source)
            assert await bed.bench.committed(free.source) != await bed.bench.ends(free.source)
            await bed.bench.until_all_committed(topic=free.source)
            assert (app.status.redone, app.status.rebalances) == (0, 1)
    for kind, dropped in ((free, {"bad"}), (held, {"bad", "flaky"})):
        found = defaultdict(list)
        for record in await bed.bench.read(kind.sink, value=str):
            found[record.key].append(record.value)
        assert found == dict.fromkeys(KEYS, kind.expected(dropped)), kind.name


# -- Kills -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", ["retried", "retried_then_counted", "counted_then_retried"])
async def test_kills_while_records_wait_lose_and_repeat_nothing(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path, topology: str
) -> None:
    async with opened(Bench(kafka_broker, unique_name("retried"), tmp_path, topology)) as bench:
        inputs = numbered(2_000, "abcdefghijklmnop")
        await bench.produce(inputs)
        for committed in (300, 700, 1_200):
            victim = bench.start()
            await bench.until_committed(committed, victim)
            victim.kill()
        more = numbered(200, "abcdefghijklmnop", start=len(inputs))  # for all of the others may be committed by now
        await bench.produce(more)
        victim = bench.start({"act": "kill", "when": "sent", "api": "EndTxn", "nth": 1})
        await victim.until_dead()
        worker = bench.start()
        await bench.until_all_committed(worker)
        await worker.stop()
        check_counts(inputs + more, await bench.read())


# -- Bytes in and out ------------------------------------------------------------------------------------------------


class Order(msgspec.Struct):
    amount: int


async def test_what_cannot_be_read_or_written_goes_where_the_policy_says(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    def decide(failed: FailedRecord) -> Any:
        told.append((failed.stage, failed.node, failed.value))
        return DeadLetter(dead) if failed.stage == "production" else "skip"

    told: list[tuple[str, str, bytes | None]] = []
    async with opened(Bench(kafka_broker, unique_name("bytes"), tmp_path)) as bench:
        dead = f"{bench.name}-dead"
        await bench.create_topic(dead)
        config = Bed(bench, kafka_broker, tmp_path).config
        builder = StreamsBuilder()
        stream = builder.stream(bench.source, key=str, value=Order, on_deserialization_error=decide)
        counts = stream.group_by_key().count().to_stream().map_values(lambda n: n, value=int)
        counts.to(bench.sink)
        grown = stream.map_values(lambda order: "x" * order.amount if order.amount else order, value=str)
        grown.to(dead, name="write")
        topology = builder.build()
        good, huge, wrong, poison = '{"amount":10}', '{"amount":2000}', '{"amount":0}', "poison"
        await bench.produce([("a", good), ("a", huge), ("b", wrong), ("a", poison), ("a", good)])
        config = msgspec.structs.replace(config, on_production_error=decide, max_request_size=1_800, batch_size=1_000)
        with anyio.fail_after(60):
            async with KafkaStreams(topology, config):
                await bench.until_all_committed()
        assert sorted((seen.key, seen.value) for seen in await bench.read()) == [
            ("a", 1),
            ("a", 2),
            ("a", 3),
            ("b", 1),
        ]
        written = sorted(str(seen.value) for seen in await bench.read(dead, value=str))
        assert written == sorted(["x" * 10, "x" * 10, huge, wrong])
    assert sorted(told) == [
        ("deserialization", "KSTREAM-SOURCE-0000000000", poison.encode()),
        ("production", "write", wrong.encode()),
        ("production", "write", huge.encode()),
    ]


async def test_by_default_what_cannot_be_written_stops_the_application(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    async with opened(Bench(kafka_broker, unique_name("bytes"), tmp_path)) as bench:
        builder = StreamsBuilder()
        builder.stream(bench.source, key=str, value=str).to(bench.sink, value=int, name="write")
        await bench.produce([("a", "text")])
        with pytest.raises(SerializationError, match="node write cannot write the record"), anyio.fail_after(30):
            await KafkaStreams(builder.build(), Bed(bench, kafka_broker, tmp_path).config).run()
        assert await bench.read() == []
