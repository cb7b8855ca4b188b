"""An application in this process, on a real broker, with faults on its way there."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from streamlib import KafkaError, KafkaStreams, StreamsBuilder, StreamsConfig, StreamsError
from streamlib.app import Connect
from streamlib.dsl.materialized import Materialized
from streamlib.kafka.connection import Connection
from streamlib.records import TopicPartition
from streamlib.runtime.worker import WorkerStatus
from streamlib.testing.plugin import KafkaTarget
from streamlib.topology.topology import Topology
from tests.errors.injection import Fault, Faults, faulty_pool
from tests.exactly_once.harness import PARTITIONS, Bench, Seen, check_counts, numbered

PATIENCE_S = 60.0
POLL_S = 0.1

Pairs = Sequence[tuple[str, str]]


class Running:
    """One worker of an application, from its start to its end."""

    def __init__(
        self, topology: Topology, config: StreamsConfig, faults: Faults, connect: Connect | None = None
    ) -> None:
        self.faults = faults
        self.error: StreamsError | None = None
        self._stop = asyncio.Event()

        async def through_faults(config: StreamsConfig) -> Connection:
            return await Connection.open(config, faulty_pool(config, faults))

        self._app = KafkaStreams(topology, config, connect=connect or through_faults)
        self._life = asyncio.create_task(self._live())

    @property
    def refusal(self) -> KafkaError:
        """What it has ended with, which has to be a broker's refusal."""
        assert isinstance(self.error, KafkaError), repr(self.error)
        return self.error

    @property
    def alive(self) -> bool:
        return not self._life.done()

    @property
    def status(self) -> WorkerStatus:
        return self._app.status

    @property
    def state(self) -> str:
        return self._app.state.value

    def __repr__(self) -> str:
        return f"{self.state}, {self.status}, asked {dict(self.faults.granted)}"

    async def stop(self) -> StreamsError | None:
        """Gracefully; what it ended with, if not well."""
        self._stop.set()
        await self.ended()
        return self.error

    async def ended(self) -> None:
        """Until it has ended, by itself or by `stop`."""
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([self._life])
        self._life.result()  # anything that is not a StreamsError is a mistake of ours

    async def drop(self) -> None:
        """At the end of a test that failed."""
        self._life.cancel()
        await asyncio.wait([self._life])

    async def _live(self) -> None:
        try:
            async with self._app:
                await self._stop.wait()
        except StreamsError as error:
            self.error = error


class Site:
    """An application's topics, its records, and the workers that run it one after the other."""

    def __init__(
        self,
        bench: Bench,
        settings: Mapping[str, Any],
        topology: Callable[[str, str], Topology],
        log: Sequence[logging.LogRecord],
    ) -> None:
        self.bench = bench
        self.log = log  # of everything in here, from INFO on
        self.inputs: list[tuple[str, str]] = []
        self.settings = {
            **_QUICK,
            "application_id": bench.name,
            "state_dir": str(bench.folder / "state"),
            **settings,
        }
        self._topology = topology
        self.workers: list[Running] = []

    def start(self, faults: Faults | None = None, connect: Connect | None = None, **settings: Any) -> Running:
        """Start a worker; a static member unless told otherwise, so that a restart costs no rebalance."""
        given = {name: value for name, value in {**self.settings, **settings}.items() if value is not None}
        config = StreamsConfig.load(given, env={})
        worker = Running(self._topology(self.bench.source, self.bench.sink), config, faults or Faults(), connect)
        self.workers.append(worker)
        return worker

    async def running(self, faults: Faults | None = None, **settings: Any) -> Running:
        """A worker that has committed its first records."""
        await self.produce(numbered(8))
        worker = self.start(faults, **settings)
        assert await self.until_all_committed(worker), worker.error
        return worker

    async def finish(self, worker: Running) -> None:
        """The same worker commits all there is and stops, and everything was counted once."""
        assert await self.until_all_committed(worker), worker.error
        assert await worker.stop() is None
        await self.check_exact()

    async def produce(self, pairs: Pairs) -> None:
        self.inputs.extend(pairs)
        await self.bench.produce(pairs)

    async def until_all_committed(self, worker: Running) -> bool:
        """Until the committed offsets are the input's ends; False if the worker ended before."""

        async def all_committed() -> bool:
            return await self.bench.committed() == await self.bench.ends()

        return await until(all_committed, worker)

    async def check_exact(self) -> None:
        """Every input that is committed was counted once, and no other one was."""
        committed = await self.bench.committed()
        check_prefix(self.inputs, committed, await self.bench.read())

    async def check_none_lost(self) -> None:
        """Every input that is committed was counted, maybe more than once."""
        wanted = counted(self.inputs, await self.bench.committed())
        found = values_by_key(await self.bench.read())
        assert all(set(range(1, count + 1)) <= set(found[key]) for key, count in wanted.items())

    async def check_regrouped(self, worker: Running) -> None:
        """Every input that there is is counted once by its value, sooner or later (`topologies.regrouped`)."""

        async def all_there() -> bool:
            return len(await self.bench.read()) >= len(self.inputs)

        assert await until(all_there, worker), worker.error
        check_counts([(value, "") for _, value in self.inputs], await self.bench.read())

    async def close(self) -> None:
        for worker in self.workers:
            if worker.alive:
                await worker.drop()
        await self.bench.close()


_QUICK: Mapping[str, Any] = {
    "processing_guarantee": "exactly_once_v2",
    "group_instance_id": "w",
    "session_timeout_ms": 20_000,  # many applications share two cores; a restart of a static member costs nothing
    "heartbeat_interval_ms": 150,
    "fetch_max_wait_ms": 100,
}


def counter(source: str, sink: str) -> Topology:
    """Per key 1, 2, 3 ...; the store is in memory, so each restart shows whether its changelog is exact."""
    builder = StreamsBuilder()
    store = Materialized(name="counts", persistent=False)
    builder.stream(source, key=str, value=str).group_by_key().count(store=store).to_stream().to(sink)
    return builder.build()


def disk_counter(source: str, sink: str) -> Topology:
    """The same on RocksDB."""
    builder = StreamsBuilder()
    builder.stream(source, key=str, value=str).group_by_key().count(store="counts").to_stream().to(sink)
    return builder.build()


@asynccontextmanager
async def site(
    kafka: KafkaTarget,
    name: str,
    folder: Path,
    topology: Callable[[str, str], Topology],
    log: Sequence[logging.LogRecord],
) -> AsyncIterator[Site]:
    """Topics of its own; everything is gone at the end."""
    bench = Bench(kafka, name, folder)
    site = Site(bench, {"bootstrap_servers": kafka.bootstrap_servers}, topology, log)
    try:
        await bench.open()
        yield site
    finally:
        await site.close()


async def until(holds: Callable[[], Awaitable[bool]], worker: Running) -> bool:
    """Until it holds; False if the worker ended before."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await holds():
                if not worker.alive:
                    return False
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"not after {PATIENCE_S:g} s: {worker}") from None
    return True


async def until_more_than(count: int, times: Callable[[], int], worker: Running) -> bool:
    """Until something has happened more often than that; False if the worker ended before."""

    async def enough() -> bool:
        return times() > count

    return await until(enough, worker)


async def until_spent(fault: Fault, worker: Running) -> bool:
    """Until it has happened as often as it was to; False if the worker ended before."""

    async def spent() -> bool:
        return fault.spent

    return await until(spent, worker)


def check_prefix(inputs: Pairs, committed: Mapping[TopicPartition, int], outputs: Iterable[Seen]) -> None:
    """The outputs are the counts of each partition's inputs up to its committed offset: none is missing or repeated."""
    wanted = counted(inputs, committed)
    assert values_by_key(outputs) == {key: list(range(1, count + 1)) for key, count in wanted.items()}


def counted(inputs: Pairs, committed: Mapping[TopicPartition, int]) -> Counter[str]:
    """How often each key is there below the committed offsets; the input is plain, so offsets are places."""
    by_partition: dict[int, list[str]] = defaultdict(list)
    for key, _ in inputs:
        by_partition[ord(key[0]) % PARTITIONS].append(key)
    return Counter(key for at, offset in committed.items() for key in by_partition[at.partition][:offset])


def values_by_key(outputs: Iterable[Seen]) -> dict[str, list[Any]]:
    """In order."""
    found: dict[str, list[Any]] = defaultdict(list)
    for record in outputs:
        found[record.key].append(record.value)
    return found
