"""An application's topics as lists of text, written by hand or by its own tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from streamlib import StreamsBuilder, StreamsConfig
from streamlib.engine.plan import Plan, make_plan, sink_topics, source_topics
from streamlib.records import FetchedRecord, TopicPartition
from streamlib.verify.comparing import Kept
from streamlib.verify.doubts import Doubts
from streamlib.verify.effects import without_effects
from streamlib.verify.history import Consumed, History, Part
from streamlib.verify.judging import Judge, Written
from streamlib.verify.replay import TRIALS, Replay, Trial
from streamlib.verify.report import TopicReport
from streamlib.verify.results import Content, Lanes, Place, Records, Result
from streamlib.verify.shapes import shapes
from tests.engine.support import Fetched

Line: TypeAlias = tuple[str | None, str | None] | tuple[str | None, str | None, int]
"""Key, value, and the time in ms if it is not the offset in seconds."""

Define: TypeAlias = Callable[[StreamsBuilder], object]

IN = TopicPartition("in", 0)
OUT = TopicPartition("out", 0)


def results(*values: str | None, start: int = 0, at_ms: Sequence[int] = ()) -> list[Result]:
    """Results of one lane, from an offset on."""
    return [
        Result(Content(_raw(value), at_ms[n] if at_ms else 0, ()), Place(OUT, start + n))
        for n, value in enumerate(values)
    ]


def fetched(lines: Iterable[Line], start: int = 0) -> list[FetchedRecord]:
    """Records of one partition."""
    return [
        Fetched(start + n, line[2] if len(line) == 3 else 1000 * (start + n), _raw(line[0]), _raw(line[1]))
        for n, line in enumerate(lines)
    ]


class Application:
    """A topology over inputs that are given as a whole, and what a run of it has written: at first, what it should.

    Args:
        define: adds to a builder; it reads `in` or what `inputs` says.
        inputs: the lines of each partition.
        counts: partitions of topics that have not one.
        config: settings besides the application's id.
    """

    def __init__(
        self,
        define: Define,
        inputs: Mapping[TopicPartition, Sequence[Line]],
        counts: Mapping[str, int] | None = None,
        **config: Any,
    ) -> None:
        builder = StreamsBuilder()
        define(builder)
        topology = without_effects(builder.build())
        names = dict.fromkeys((*source_topics(topology), *sink_topics(topology)), 1)
        self.plan: Plan = make_plan(topology, "app", {**names, **(counts or {})})
        self.config = StreamsConfig(application_id="app", **config)
        self.inputs = {p: self._consumed(p, fetched(lines)) for p, lines in inputs.items()}
        self.pending: dict[TopicPartition, list[FetchedRecord]] = {}
        self.kept: dict[TopicPartition, Kept] = {}
        self.blocked: frozenset[TopicPartition] = frozenset()
        self.from_beginning = False
        self.shapes = shapes(self.plan, self.config)
        self.output: dict[TopicPartition, list[Fetched]] = {}
        self.changelog: Lanes = {}
        self.run(TRIALS[0])

    def _consumed(self, partition: TopicPartition, records: Sequence[FetchedRecord]) -> Consumed:
        end = records[-1].offset + 1 if records else 0
        return Consumed(0, end, end, [Part(partition, end, records)] if records else [])

    def run(self, trial: Trial) -> None:
        """Have it written what a replay writes."""
        outcome = self._replay.run(trial)
        if outcome.failure is not None:
            raise outcome.failure
        self.output, self.changelog = {}, outcome.changes.lanes
        for lane, lane_results in outcome.results.lanes.items():
            records = self.output.setdefault(TopicPartition(lane.topic, max(lane.partition, 0)), [])
            for result in lane_results:
                value, timestamp, headers = result.content
                records.append(Fetched(len(records), timestamp, lane.key, value, headers))

    @property
    def _history(self) -> History:
        return History(self.inputs, self.pending, self.plan.partition_counts)

    @property
    def _replay(self) -> Replay:
        return Replay(self.plan, self.config, self._history, self.shapes)

    def written(self) -> Written:
        outputs = Records(self.shapes)
        for partition, records in self.output.items():
            for record in records:
                line = record.key, record.value, record.timestamp, record.headers
                outputs.add(partition, line, Place(partition, record.offset))
        return Written(outputs.lanes, self.changelog, self.kept, self.blocked, self.plan.partition_counts)

    def verify(self) -> dict[str, TopicReport]:
        """The reports by topic."""
        outcomes = [self._replay.run(trial) for trial in TRIALS]
        cached = self.config.statestore_cache_max_bytes > 0
        doubts = Doubts(self.plan, self._history, outcomes, from_beginning=self.from_beginning, cached=cached)
        return {report.topic: report for report in Judge(self.plan, outcomes, doubts, self.written()).topics()}

    def processed(self, partition: TopicPartition, count: int) -> None:
        """Only so many records of an input are processed."""
        records = list(self.inputs[partition].batches[0].records())[:count]
        end = self.inputs[partition].log_end
        consumed = self._consumed(partition, records)
        self.inputs[partition] = msgspec.structs.replace(consumed, log_end=end)


def faults(report: TopicReport) -> dict[str, int]:
    """What is certainly wrong, and of how many keys it cannot be told."""
    counts = {
        "missing": report.missing,
        "duplicates": report.duplicates,
        "unexpected": report.unexpected,
        "different": report.different,
        "undecided": report.undecided,
    }
    return {kind: count for kind, count in counts.items() if count}


def _raw(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
