"""What the demo, the benchmarks and others do as clients of a cluster: write at a steady pace, read all there is."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio

from streamlib.config import StreamsConfig
from streamlib.kafka.connection import Connection
from streamlib.kafka.reading import StalledError, read_batches
from streamlib.records import FetchedRecord, OutRecord, TopicPartition
from streamlib.testing.broker import Broker
from streamlib.testing.broker.jars import Progress

TICK_SECONDS = 0.01


@contextmanager
def cluster(
    bootstrap_servers: str | None, progress: Progress | None = None, *, optimise: bool = False
) -> Iterator[str]:
    """The address of the cluster that was given, or of one that lives as long as the block."""
    if bootstrap_servers is not None:
        yield bootstrap_servers
        return
    with Broker.start(progress=progress, optimise=optimise) as broker:
        yield broker.bootstrap_servers


@asynccontextmanager
async def connected(bootstrap_servers: str, client_id: str) -> AsyncIterator[Connection]:
    """A connection for the time of the block."""
    async with opened(StreamsConfig(application_id=client_id, bootstrap_servers=bootstrap_servers)) as connection:
        yield connection


@asynccontextmanager
async def opened(config: StreamsConfig) -> AsyncIterator[Connection]:
    """A connection as an application with these settings has it, for the time of the block."""
    connection = await Connection.open(config)
    try:
        yield connection
    finally:
        with anyio.CancelScope(shield=True):
            await connection.close()


async def paced(rate: float, count: int) -> AsyncIterator[range]:
    """Numbers from 0 to `count`, as many at a time as are due at `rate` per second; never more than `rate`."""
    begun = time.monotonic()
    done = 0
    while done < count:
        due = min(count, int((time.monotonic() - begun) * rate) + 1)
        if due > done:
            yield range(done, due)
            done = due
        await anyio.sleep(TICK_SECONDS)


async def read_committed(connection: Connection, partitions: Iterable[TopicPartition]) -> AsyncIterator[FetchedRecord]:
    """Every committed record from the start to the present end, in order within a partition.

    Raises:
        StalledError: the end did not come within a minute.
    """
    admin = connection.admin()
    ends = await admin.list_offsets(partitions, "latest_stable")
    positions = await admin.list_offsets(partitions, "earliest")
    async for batch in read_batches(connection, positions, ends):
        for record in batch.records():
            yield record


async def settled(progress: Callable[[], tuple[bool, int]], *, quiet_s: float = 1.0, patience_s: float = 60.0) -> None:
    """Return when `progress` has said (finished, a count) with the same count for `quiet_s`.

    Raises:
        StalledError: the count stood still for `patience_s`, and it was not finished.
    """
    last, since = -1, time.monotonic()
    while True:
        finished, count = progress()
        now = time.monotonic()
        if count != last:
            last, since = count, now
        elif finished and now - since >= quiet_s:
            return
        elif now - since >= patience_s:
            raise StalledError(f"no progress for {patience_s:.0f} s after {count:,} records")
        await anyio.sleep(0.1)


def text_record(key: str | None, value: bytes) -> OutRecord:
    """A record of now."""
    return (None if key is None else key.encode(), value, time.time_ns() // 1_000_000, ())
