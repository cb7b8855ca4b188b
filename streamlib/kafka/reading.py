"""Reads topics from one offset to another, outside of any group."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import anyio

from streamlib.errors import StreamsError
from streamlib.kafka.connection import Connection
from streamlib.records import FetchedBatch, TopicPartition


class StalledError(StreamsError):
    """Something that should have come did not."""


def partitions_of(topic: str, count: int) -> list[TopicPartition]:
    """All partitions of a topic."""
    return [TopicPartition(topic, number) for number in range(count)]


async def read_batches(
    connection: Connection, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> AsyncIterator[FetchedBatch]:
    """Committed records from some offsets on until all ends are reached; batches may go beyond them.

    Raises:
        StalledError: nothing came for a minute.
    """
    positions = {partition: start for partition, start in starts.items() if start < ends[partition]}
    fetcher = connection.fetcher()
    fetcher.add(positions)
    try:
        while positions:
            with anyio.move_on_after(60) as patience:
                await fetcher.wait()
            if patience.cancelled_caught:
                raise StalledError(f"the broker sent no more of {min(positions)} within a minute")
            for batch in fetcher.take(4 << 20):
                if batch.partition not in positions:
                    continue  # past its end
                if batch.next_offset >= ends[batch.partition]:
                    del positions[batch.partition]
                    fetcher.remove([batch.partition])
                yield batch
    finally:
        with anyio.CancelScope(shield=True):
            await fetcher.close()
