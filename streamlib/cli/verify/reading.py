"""What is in the topics at a moment: inputs as far as they are processed, what waits between tasks, what is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TypeAlias

from streamlib.cli.screens import Step
from streamlib.cli.verify.moment import Moment
from streamlib.cli.verify.subject import Subject
from streamlib.kafka.connection import Connection
from streamlib.kafka.reading import read_batches
from streamlib.records import FetchedBatch, FetchedRecord, TopicPartition
from streamlib.verify.comparing import Kept
from streamlib.verify.history import Consumed, History, before
from streamlib.verify.judging import Written
from streamlib.verify.results import Place, Records, Shape

_Offsets: TypeAlias = Mapping[TopicPartition, int]


class Reader:
    """Reads the subject's partitions up to a moment; `step` is told of the progress, in offsets."""

    def __init__(self, connection: Connection, subject: Subject, moment: Moment, step: Step) -> None:
        self._connection = connection
        self._subject = subject
        self._moment = moment
        self._step = step

    async def history(self) -> History:
        """What is processed, and what waits between tasks."""
        plan, ends = self._subject.plan, self._moment.ends
        internal = [partition for partition in self._subject.read if partition.topic in plan.repartition_topics]
        own = [partition for partition in self._subject.read if partition.topic not in plan.repartition_topics]
        processed = {p: self.processed(p) for p in own} | {p: ends[p] for p in plan.global_inputs}
        batches = await self._batches("inputs", {p: self._moment.starts[p] for p in processed}, processed)
        waiting = await self._batches("repartition topics", {p: self.processed(p) for p in internal}, ends)
        return History(
            {partition: self._consumed(partition, end, batches[partition]) for partition, end in processed.items()},
            {partition: _records(each) for partition, each in waiting.items()},
            self._subject.partition_counts,
        )

    def processed(self, partition: TopicPartition) -> int:
        """Up to where; the log's start if nothing is, or if all of it is gone."""
        start, end = self._moment.starts[partition], self._moment.ends[partition]
        return max(start, min(self._moment.committed.get(partition, start), end))

    async def written(self, outputs: Sequence[TopicPartition], shapes: Mapping[str, Shape]) -> Written:
        """What is in the outputs and in the changelogs."""
        results, changes = Records(shapes), Records(shapes, only_last=True)
        await self._fill(results, "outputs", outputs)
        await self._fill(changes, "changelogs", self._subject.changelogs)
        return Written(
            results.lanes,
            changes.lanes,
            self._kept(outputs),
            self._moment.blocked,
            self._subject.partition_counts,
            self._subject.dead_letters,
        )

    async def _fill(self, records: Records, what: str, partitions: Iterable[TopicPartition]) -> None:
        ends = self._moment.ends
        async for batch in self._read(what, {p: self._moment.starts[p] for p in partitions}, ends):
            for record in before(batch, ends[batch.partition]).records():
                line = record.key, record.value, record.timestamp, record.headers
                records.add(batch.partition, line, Place(batch.partition, record.offset))

    def _consumed(self, partition: TopicPartition, end: int, batches: Sequence[FetchedBatch]) -> Consumed:
        start, plan = self._moment.starts[partition], self._subject.plan
        reset = plan.offset_reset(partition) or self._subject.config.auto_offset_reset
        return Consumed(
            start,
            end,
            self._moment.ends[partition],
            batches,
            latest=reset == "latest" and partition not in plan.global_inputs,
            # Ends of transactions have offsets, too: better one doubt too many.
            has_holes=partition.topic in self._subject.compacted and len(_records(batches)) < end - start,
        )

    def _kept(self, outputs: Iterable[TopicPartition]) -> dict[TopicPartition, Kept]:
        """What the broker has kept of partitions, if not all. Of changelogs only the last record of a key counts, which
        compaction keeps."""
        kept: dict[TopicPartition, Kept] = {}
        for partition in outputs:
            cut = self._moment.starts[partition] > 0
            if partition.topic in self._subject.compacted:
                kept[partition] = Kept.SOME if cut else Kept.LATEST
            elif cut:
                kept[partition] = Kept.TAIL
        return kept | {p: Kept.TAIL for p in self._subject.changelogs if self._moment.starts[p] > 0}

    async def _batches(self, what: str, starts: _Offsets, ends: _Offsets) -> dict[TopicPartition, list[FetchedBatch]]:
        found: dict[TopicPartition, list[FetchedBatch]] = defaultdict(list)
        async for batch in self._read(what, starts, ends):
            found[batch.partition].append(before(batch, ends[batch.partition]))
        return found

    async def _read(self, what: str, starts: _Offsets, ends: _Offsets) -> AsyncIterator[FetchedBatch]:
        advance = self._step(f"reading {what}", sum(max(ends[p] - start, 0) for p, start in starts.items()))
        positions = dict(starts)
        async for batch in read_batches(self._connection, starts, ends):
            advance(min(batch.next_offset, ends[batch.partition]) - positions[batch.partition])
            positions[batch.partition] = batch.next_offset
            yield batch


def _records(batches: Iterable[FetchedBatch]) -> list[FetchedRecord]:
    return [record for batch in batches for record in batch.records()]
