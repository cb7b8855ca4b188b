"""Calls to a slow service: records per second and latency, one partition, exactly-once.

    python -m benchmarks.enrich

A source with one partition, `map_values` with an `async def` that takes 20 ms, a sink. As fast as it goes, from a topic
that is full; then at a steady rate; then the same while a share of the calls takes 2 s. The client that writes and
reads is this process; the worker is another. That the results of each key come in order is checked all the time.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import Annotated

import anyio
import msgspec
import typer
from rich.console import Console

from benchmarks.common import Bench, latest, percentile, run_async, running, session
from benchmarks.keyed_count import INPUT_VARIABLE, OUTPUT_VARIABLE
from streamlib import StreamsBuilder
from streamlib.cli.client import connected, text_record
from streamlib.errors import StreamsError
from streamlib.kafka.reading import partitions_of
from streamlib.records import OutRecord
from streamlib.topology.topology import Topology

SLOW_S = 2.0
CALL_VARIABLE = "BENCHMARK_CALL_MS"
CONCURRENCY_VARIABLE = "BENCHMARK_CONCURRENCY"
_WARM_UP_SECONDS = 3.0
_TICK_S = 0.005


class Options(msgspec.Struct, frozen=True):
    """What is measured."""

    seconds: float
    rate: int
    keys: int
    slow_share: float
    guarantee: str


class Seen(msgspec.Struct, frozen=True):
    """A result: when its record was written and when it was read, and whether its call was slow."""

    sent_s: float
    read_s: float
    slow: bool

    @property
    def ms(self) -> float:
        return (self.read_s - self.sent_s) * 1000


def topology() -> Topology:
    """Topics, duration and concurrency come from the environment."""
    call_s = float(os.environ.get(CALL_VARIABLE, "20")) / 1000

    async def enrich(value: str) -> str:
        await asyncio.sleep(SLOW_S if value.startswith("slow") else call_s)
        return value

    builder = StreamsBuilder()
    (
        builder.stream(os.environ[INPUT_VARIABLE], key=str, value=str)
        .map_values(enrich, concurrency=int(os.environ.get(CONCURRENCY_VARIABLE, "200")), name="enrich")
        .to(os.environ[OUTPUT_VARIABLE])
    )
    return builder.build()


class Client:
    """Writes records and reads what becomes of them."""

    def __init__(self, bench: Bench, source: str, sink: str, options: Options) -> None:
        self.seen: list[Seen] = []
        self.sent = 0
        self._source = partitions_of(source, 1)[0]
        self._producer = bench.connection.producer(None)
        self._fetcher = bench.connection.fetcher()
        self._fetcher.add(dict.fromkeys(partitions_of(sink, 1), 0))
        self._options = options
        self._rng = random.Random(1)
        self._given: dict[str, int] = {}  # the number of each key's last record
        self._taken: dict[str, int] = {}  # and of its last result

    async def open(self) -> None:
        await self._producer.init()

    async def close(self) -> None:
        await self._producer.close()
        await self._fetcher.close()

    async def fill(self, count: int) -> None:
        """Write so many records at once, none of them slow."""
        for _ in range(0, count, 1_000):
            self._send(1_000, 0)
            await self._producer.wait_for_room()
        await self._producer.flush()

    async def write(self, slow_share: float) -> None:
        """At the steady rate, for ever."""
        begun = time.perf_counter()
        while True:
            self._send(int((time.perf_counter() - begun) * self._options.rate) - self.sent, slow_share)
            await anyio.sleep(_TICK_S)

    async def read(self) -> None:
        """For ever.

        Raises:
            StreamsError: a key's results are not in order.
        """
        while True:
            await self._fetcher.wait()
            for batch in self._fetcher.take(1 << 22):
                now_s = time.perf_counter()
                for record in batch.records():
                    self._take((record.key or b"").decode(), (record.value or b"").decode(), now_s)

    def _send(self, count: int, slow_share: float) -> None:
        self._producer.send(self._source, [self._record(slow_share) for _ in range(count)])
        self.sent += count

    def _record(self, slow_share: float) -> OutRecord:
        key = f"user-{self._rng.randrange(self._options.keys)}"
        number = self._given[key] = self._given.get(key, 0) + 1
        kind = "slow" if self._rng.random() < slow_share else "quick"
        return text_record(key, f"{kind} {number} {time.perf_counter():.6f}".encode())

    def _take(self, key: str, value: str, now_s: float) -> None:
        kind, number, sent_s = value.split()
        due = self._taken[key] = self._taken.get(key, 0) + 1
        if int(number) != due:
            raise StreamsError(f"{key}: result {number} where {due} was due")
        self.seen.append(Seen(float(sent_s), now_s, kind == "slow"))


async def _flat_out(bench: Bench, options: Options) -> None:
    source, sink = await bench.topic("events"), await bench.topic("enriched")
    client = Client(bench, source, sink, options)
    await client.open()
    await client.fill(int(20_000 * (options.seconds + _WARM_UP_SECONDS)))
    async with bench.worker(options.guarantee, source, sink, "benchmarks.enrich:topology") as supervisor:
        await running(supervisor, 1)
        async with anyio.create_task_group() as group:
            group.start_soon(client.read)
            await anyio.sleep(_WARM_UP_SECONDS)
            before, begun = len(client.seen), time.perf_counter()
            await anyio.sleep(options.seconds)
            rate = (len(client.seen) - before) / (time.perf_counter() - begun)
            latest(supervisor)
            group.cancel_scope.cancel()
    await client.close()
    bench.say(f"flat out          {rate:9,.0f} records/s")


async def _steady(bench: Bench, options: Options, slow_share: float) -> None:
    source, sink = await bench.topic("events"), await bench.topic("enriched")
    client = Client(bench, source, sink, options)
    await client.open()
    async with bench.worker(options.guarantee, source, sink, "benchmarks.enrich:topology") as supervisor:
        await running(supervisor, 1)
        async with anyio.create_task_group() as readers:
            readers.start_soon(client.read)
            async with anyio.create_task_group() as writers:
                writers.start_soon(client.write, slow_share)
                await anyio.sleep(_WARM_UP_SECONDS)
                begun = time.perf_counter()
                await anyio.sleep(options.seconds)
                ended = time.perf_counter()
                writers.cancel_scope.cancel()
            await _until_all_seen(client)
            latest(supervisor)
            readers.cancel_scope.cancel()
    await client.close()
    _say_steady(bench, client, (begun, ended), slow_share)


async def _until_all_seen(client: Client) -> None:
    """Slow calls of one key may be several in a row.

    Raises:
        StreamsError: results are missing.
    """
    give_up = time.monotonic() + 60
    while len(client.seen) < client.sent:
        if time.monotonic() > give_up:
            raise StreamsError(f"{client.sent - len(client.seen)} results are missing")
        await anyio.sleep(0.05)


def _say_steady(bench: Bench, client: Client, window: tuple[float, float], slow_share: float) -> None:
    begun, ended = window
    quick = [each for each in client.seen if not each.slow]
    rate = sum(begun <= each.read_s < ended for each in quick) / (ended - begun)
    sent = sum(begun <= each.sent_s < ended for each in quick) / (ended - begun)
    ms = sorted(each.ms for each in quick if begun <= each.sent_s < ended)
    bench.say(
        f"{slow_share:4.0%} take {SLOW_S:.0f} s     {rate:9,.0f} records/s of the others, {sent:,.0f} written, "
        f"p50 {percentile(ms, 0.5):.0f} ms, p99 {percentile(ms, 0.99):.0f} ms"
    )


async def _measure(options: Options, bootstrap_servers: str, console: Console) -> None:
    async with connected(bootstrap_servers, "benchmark") as connection:
        bench = Bench(connection, bootstrap_servers, console, 1, ())
        await _flat_out(bench, options)
        await _steady(bench, options, 0.0)
        await _steady(bench, options, options.slow_share)


def main(
    seconds: Annotated[float, typer.Option(help="Length of each run.")] = 10.0,
    rate: Annotated[int, typer.Option(help="Records per second of the steady runs.")] = 5_000,
    keys: Annotated[int, typer.Option(min=1, help="Different keys.")] = 100_000,
    call_ms: Annotated[float, typer.Option(help="How long a call takes.")] = 20.0,
    concurrency: Annotated[int, typer.Option(help="Calls at a time.")] = 200,
    slow_share: Annotated[float, typer.Option(help="Of the calls, those that take 2 s.")] = 0.01,
    guarantee: Annotated[str, typer.Option()] = "exactly_once_v2",
    bootstrap_servers: Annotated[str | None, typer.Option(help="Use this Kafka instead of starting one.")] = None,
) -> None:
    """Measure an operator that awaits a slow service."""
    os.environ[CALL_VARIABLE], os.environ[CONCURRENCY_VARIABLE] = str(call_ms), str(concurrency)
    with session(bootstrap_servers) as address:
        run_async(_measure, Options(seconds, rate, keys, slow_share, guarantee), address, Console())


if __name__ == "__main__":
    typer.run(main)
