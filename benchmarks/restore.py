"""Records and megabytes per second at which stores are restored from their changelogs, and the CPU time it takes.

A changelog is filled once for each number of partitions, in transactions, its keys in no order; each run then restores
all of it into a new folder, with nothing else to do. What counts is the time until the task might run: read, written,
and safe on disk. The CPU time is this process's, with RocksDB's own threads, without the broker's.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated

import anyio
import msgspec
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import run_async, session, write_json
from streamlib import StreamsBuilder, StreamsConfig
from streamlib.app import SystemClock
from streamlib.cli.client import connected
from streamlib.dsl.materialized import Materialized
from streamlib.engine.plan import Plan
from streamlib.engine.task import Task
from streamlib.errors import StreamsError
from streamlib.kafka.connection import Connection
from streamlib.kafka.reading import partitions_of
from streamlib.runtime.restore import Restorer
from streamlib.runtime.wakeup import Wakeup
from streamlib.runtime.wiring import plan_and_prepare
from streamlib.state_directory import LocalStateDirectory
from streamlib.topology.topology import Topology

STORES = ("rocksdb", "memory")
_SHUFFLE = 2_654_435_761  # odd and prime to most counts: visits all keys, far apart
_CHUNK = 1_000
_TRANSACTION = 100_000
_LONGEST_SECONDS = 600


class Options(msgspec.Struct, frozen=True):
    """What is measured."""

    keys: int
    value_bytes: int
    partitions: tuple[int, ...]
    rounds: int


class Run(msgspec.Struct, frozen=True):
    """One run's figures."""

    store: str
    partitions: int
    records: int
    seconds: float
    records_per_s: float
    mb_per_s: float
    cpu_s_per_million: float


def main(
    keys: Annotated[int, typer.Option(min=1000)] = 2_000_000,
    value_bytes: Annotated[int, typer.Option(min=1)] = 100,
    partitions: Annotated[str, typer.Option(help="How many at a time, one run for each.")] = "1,8",
    rounds: Annotated[int, typer.Option(min=1)] = 1,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Use this Kafka instead of starting one.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the figures here too.")] = None,
) -> None:
    """Measure how fast stores are restored, on disk and in memory."""
    options = Options(keys, value_bytes, tuple(int(count) for count in partitions.split(",")), rounds)
    console = Console()
    with session(bootstrap_servers) as address:
        runs = run_async(_measure_all, options, address, console)
    _print_table(console, options, runs)
    write_json(json, {"options": options, "runs": runs})


async def _measure_all(options: Options, bootstrap_servers: str, console: Console) -> list[Run]:
    runs = []
    for count in options.partitions:
        name = f"benchmark-restore-{uuid.uuid4().hex[:8]}"
        async with connected(bootstrap_servers, "benchmark") as connection:
            await connection.admin().create_topic(f"{name}-in", count)
            config = StreamsConfig(application_id=name, bootstrap_servers=bootstrap_servers)
            plans = {
                store: await plan_and_prepare(_topology(name, store), config, connection.admin()) for store in STORES
            }
            changelog = f"{name}-latest-changelog"
            console.print(f"writing {options.keys:,} rows to {count} changelog partitions ...", highlight=False)
            await _fill(connection, changelog, count, options)
            for _ in range(options.rounds):
                for store in STORES:
                    runs.append(await _measure(connection, plans[store], config, store, options))
                    console.print(f"{store}, {count} at a time: {runs[-1].records_per_s:,.0f} records/s")
            await connection.admin().delete_topics([changelog, f"{name}-in"])
    return runs


def _topology(name: str, store: str) -> Topology:
    builder = StreamsBuilder()
    materialized = Materialized(name="latest", persistent=store == "rocksdb")
    builder.stream(f"{name}-in", key=str, value=str).group_by_key().reduce(lambda _, new: new, store=materialized)
    return builder.build()


async def _fill(connection: Connection, changelog: str, count: int, options: Options) -> None:
    """Each key once, partition by partition; a transaction is over after so many records."""
    producer = connection.producer(f"{changelog}-filler")
    await producer.init()
    now_ms, partitions = time.time_ns() // 1_000_000, partitions_of(changelog, count)
    value = b"v" * options.value_bytes
    for begin in range(0, options.keys, _TRANSACTION):
        producer.begin()
        end = min(begin + _TRANSACTION, options.keys)
        for at in range(begin, end, _CHUNK):
            numbers = range(at, min(at + _CHUNK, end))
            rows = [(b"user-%d" % (number * _SHUFFLE % options.keys), value, now_ms, ()) for number in numbers]
            producer.send(partitions[at // _CHUNK % count], rows)
            await producer.wait_for_room()
        await producer.end(commit=True)
    await producer.close()


async def _measure(connection: Connection, plan: Plan, config: StreamsConfig, store: str, options: Options) -> Run:
    with _folder() as folder, LocalStateDirectory(msgspec.structs.replace(config, state_dir=folder)) as directory:
        tasks = [
            Task(plan, task_id, directory.open(task_id, plan.stores(task_id)), now_ms=SystemClock().now_ms)
            for task_id in plan.tasks
        ]
        done = Wakeup()
        async with _restorer(connection, done) as restorer:
            started_s, cpu_s = time.perf_counter(), time.process_time()
            bounds = await restorer.bounds(tasks)
            for task in tasks:
                restorer.begin(task, bounds)
            with anyio.fail_after(_LONGEST_SECONDS):
                while restorer.under_way:
                    await done.wait()
            seconds, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
        restored = sum(task.records_restored for task in tasks)
        for task in tasks:
            task.close()
    if restored != options.keys:
        raise StreamsError(f"{restored:,} of {options.keys:,} records were restored")
    row_bytes = options.value_bytes + len(f"user-{options.keys}")
    return Run(
        store=store,
        partitions=len(tasks),
        records=restored,
        seconds=seconds,
        records_per_s=restored / seconds,
        mb_per_s=restored * row_bytes / seconds / 1e6,
        cpu_s_per_million=cpu_s / restored * 1e6,
    )


@contextmanager
def _folder() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="streamlib-benchmark-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def _restorer(connection: Connection, done: Wakeup) -> AsyncIterator[Restorer]:
    """A restorer at work, as a worker has it."""
    fetcher = connection.fetcher()
    restorer = Restorer(fetcher, connection.admin(), SystemClock(), on_done=done)
    async with anyio.create_task_group() as children:
        children.start_soon(restorer.run)
        yield restorer
        children.cancel_scope.cancel()
    await fetcher.close()


def _print_table(console: Console, options: Options, runs: list[Run]) -> None:
    title = f"restoring {options.keys:,} rows of {options.value_bytes} bytes (medians)"
    table = Table(title=title, title_justify="left")
    for name in ("stores", "partitions", "records/s", "MB/s", "CPU s per million", "seconds"):
        table.add_column(name, justify="left" if name == "stores" else "right")
    for count in options.partitions:
        for store in STORES:
            own = [run for run in runs if (run.store, run.partitions) == (store, count)]
            table.add_row(
                store,
                str(count),
                f"{median([run.records_per_s for run in own]):,.0f}",
                f"{median([run.mb_per_s for run in own]):,.0f}",
                f"{median([run.cpu_s_per_million for run in own]):.2f}",
                f"{median([run.seconds for run in own]):.1f}",
            )
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
