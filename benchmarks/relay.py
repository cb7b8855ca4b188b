"""The bare client at the work of a keyed count's worker: the floor of its latency.

    fetch -> count in a dict -> produce counts and changelog -> offsets -> EndTxn -> the next fetch

The requests of exactly once are all there, those of a group member too; there is no engine, no store, no serde. It
never rejoins: it is to be alone in its group.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence

from anyio import create_task_group, sleep

from benchmarks.common import run_async
from streamlib.cli.client import connected
from streamlib.kafka.connection import Connection
from streamlib.kafka.group import KafkaGroup
from streamlib.kafka.reading import partitions_of
from streamlib.partitioning import partition_for
from streamlib.records import FetchedBatch, GroupMetadata, OffsetAndMetadata, OutRecord, TopicPartition
from streamlib.runtime.ports import Assignment, Subscription

TAKE_BYTES = 4 << 20
BEAT_SECONDS = 3


class Relay:
    """Counts what comes into one topic, as what goes into the other and its changelog."""

    def __init__(self, connection: Connection, source: str, sink: str, changelog: str, partitions: int) -> None:
        self._inputs = partitions_of(source, partitions)
        self._outputs = partitions_of(sink, partitions)
        self._changelogs = partitions_of(changelog, partitions)
        self._name = connection.application_id
        self._fetcher = connection.fetcher()
        self._group = connection.group()
        self._producers = [connection.producer(f"{self._name}-{number}") for number in (0, 1)]
        self._counts: dict[bytes, int] = defaultdict(int)

    async def run(self) -> None:
        """Until it is cancelled."""
        for producer in self._producers:
            await producer.init()
        metadata = GroupMetadata(self._name, *await _join(self._group, self._inputs), None)
        self._fetcher.add(dict.fromkeys(self._inputs, 0))
        async with create_task_group() as beside:
            beside.start_soon(_beat, self._group, metadata)
            print("running", flush=True)
            while True:
                await self._fetcher.wait()
                await self._relay(metadata, self._fetcher.take(TAKE_BYTES))

    async def _relay(self, metadata: GroupMetadata, batches: Sequence[FetchedBatch]) -> None:
        producer = self._producers[0]
        producer.begin()
        for partition, records in self._counted(batches).items():
            producer.send(partition, records)
        offsets = {batch.partition: OffsetAndMetadata(batch.next_offset) for batch in batches}
        await producer.add_offsets(metadata, offsets)  # once all is acknowledged
        await producer.end(commit=True)
        self._producers.reverse()

    def _counted(self, batches: Sequence[FetchedBatch]) -> dict[TopicPartition, list[OutRecord]]:
        counted: dict[TopicPartition, list[OutRecord]] = defaultdict(list)
        for batch in batches:
            for record in batch.records():
                key = record.key or b""
                self._counts[key] += 1
                out = (key, self._counts[key].to_bytes(8, "big"), record.timestamp, ())
                counted[self._outputs[partition_for(key, len(self._outputs))]].append(out)
                counted[self._changelogs[batch.partition.partition]].append(out)
        return counted


async def _join(group: KafkaGroup, inputs: Sequence[TopicPartition]) -> tuple[int, str]:
    joined = await group.join("", Subscription(topics=(inputs[0].topic,)))
    await group.sync(joined.generation, joined.member_id, {joined.member_id: Assignment(tuple(inputs))})
    return joined.generation, joined.member_id


async def _beat(group: KafkaGroup, metadata: GroupMetadata) -> None:
    while True:
        await sleep(BEAT_SECONDS)
        await group.heartbeat(metadata.generation, metadata.member_id)


async def main(bootstrap_servers: str, name: str, source: str, sink: str, partitions: int) -> None:
    """Run one, in the group `name`."""
    async with connected(bootstrap_servers, name) as connection:
        await connection.admin().create_topic(f"{name}-changelog", partitions)
        await Relay(connection, source, sink, f"{name}-changelog", partitions).run()


if __name__ == "__main__":
    run_async(main, *sys.argv[1:5], int(sys.argv[5]))
