"""A topic of dead letters as applications write it, and the topics around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import anyio
import msgspec

from streamlib.cli.client import connected, read_committed
from streamlib.engine.error_handling import dead_letter
from streamlib.errors import ProcessingError
from streamlib.kafka.connection import Connection
from streamlib.kafka.reading import partitions_of
from streamlib.records import FetchedRecord, Headers, OutRecord, TopicPartition

NOON_MS = 1_577_880_000_000
"""2020-01-01T12:00:00Z: long ago, so topics have to keep it."""

_KEPT = {"retention.ms": "-1"}


class Failed(msgspec.Struct):
    """A record that failed; `error` is why."""

    key: bytes | None
    value: bytes | None
    error: Exception
    offset: int = 0
    timestamp: int = NOON_MS
    headers: Headers = ()
    partition: int = 0


def letter_of(failed: Failed, source: str) -> OutRecord:
    """What an application writes for it."""
    try:
        raise ProcessingError("node map failed", node="map") from failed.error
    except ProcessingError as error:
        return dead_letter(
            TopicPartition(source, failed.partition), failed, error, {"node": error.node, "application": "shop"}
        )


class Topics(msgspec.Struct):
    """A topic of dead letters with two partitions, and the source with three."""

    servers: str
    connection: Connection
    dead: str
    source: str

    async def fail(self, *failed: Failed, partition: int = 0) -> None:
        """Write dead letters, and wait until they are there."""
        await self.write({TopicPartition(self.dead, partition): [letter_of(each, self.source) for each in failed]})

    async def write(self, records: Mapping[TopicPartition, Iterable[OutRecord]]) -> None:
        """Plain records."""
        producer = self.connection.producer(None)
        await producer.init()
        for partition, each in records.items():
            producer.send(partition, list(each))
        await producer.flush()
        await producer.close()

    async def replayed(self, topic: str = "", partitions: int = 3) -> dict[TopicPartition, list[FetchedRecord]]:
        """What is in the source, or another topic, by partition."""
        every = partitions_of(topic or self.source, partitions)
        await self._closed(every)
        return {each: found for each in every if (found := [r async for r in self._records(each)])}

    async def _closed(self, partitions: list[TopicPartition]) -> None:
        """A transaction is committed a moment before readers may go beyond it."""
        admin = self.connection.admin()
        with anyio.fail_after(60):
            while await admin.list_offsets(partitions, "latest_stable") != await admin.list_offsets(
                partitions, "latest"
            ):
                await anyio.sleep(0.01)

    async def _records(self, partition: TopicPartition) -> AsyncIterator[FetchedRecord]:
        async for record in read_committed(self.connection, [partition]):
            yield record


@asynccontextmanager
async def topics(servers: str, name: str) -> AsyncIterator[Topics]:
    """Made for the block, deleted after it."""
    async with connected(servers, "test") as connection:
        made = Topics(servers, connection, f"{name}-dead", f"{name}-source")
        admin = connection.admin()
        await admin.create_topic(made.dead, 2, _KEPT)
        await admin.create_topic(made.source, 3, _KEPT)
        yield made
        await admin.delete_topics([made.dead, made.source])
