"""All lanes of all topics: what is there against what should be there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from streamlib.engine.plan import Plan
from streamlib.records import TopicPartition
from streamlib.topology.nodes import SinkNode
from streamlib.verify.bindings import AS_A_SET, DETERMINED, Binding, Bindings
from streamlib.verify.comparing import Comparison, Difference, Kept, Trait, compare
from streamlib.verify.doubts import Doubt, Doubts
from streamlib.verify.replay import Outcome
from streamlib.verify.report import Example, Origin, TopicReport
from streamlib.verify.results import ANY_PARTITION, WHOLE, Lane, Lanes, Place, Result
from streamlib.verify.shapes import changelogs, is_comparable
from streamlib.verify.tally import Entry, Tally
from streamlib.verify.wording import Wording

_MOST_REASONS = 5


class Written(msgspec.Struct, frozen=True):
    """What is there.

    Attributes:
        outputs: of the topics that are written to.
        changelogs: the last record of each row.
        kept: what the broker has kept of a partition, if not all.
        blocked: partitions with an open transaction, behind which nothing can be seen.
        partition_counts: of all these topics.
        dead_letters: those of them that records go to which fail.
    """

    outputs: Lanes
    changelogs: Lanes
    kept: Mapping[TopicPartition, Kept] = {}
    blocked: frozenset[TopicPartition] = frozenset()
    partition_counts: Mapping[str, int] = {}
    dead_letters: frozenset[str] = frozenset()


class Judge:
    """Compares topic by topic; `examples` is how many records of each are told."""

    def __init__(
        self, plan: Plan, outcomes: Sequence[Outcome], doubts: Doubts, written: Written, examples: int = 5
    ) -> None:
        self._plan = plan
        self._outcomes = outcomes
        self._bindings = Bindings(plan, outcomes)
        self._doubts = doubts
        self._written = written
        self._examples = examples
        self._wording = Wording(plan)
        self._writers = _writers(plan, outcomes)
        self._changelogs = changelogs(plan)

    def topics(self) -> list[TopicReport]:
        """All that is written to: outputs, then repartition topics that hold what they should not, then changelogs."""
        outputs = [outcome.results.lanes for outcome in self._outcomes]
        changes = [self._comparable(outcome.changes.lanes) for outcome in self._outcomes]
        return [
            *self._compared("output", outputs, self._written.outputs),
            *self._repartition_topics(),
            *self._compared("changelog", changes, self._comparable(self._written.changelogs)),
        ]

    def _comparable(self, changes: Lanes) -> Lanes:
        return {lane: last for lane, last in changes.items() if is_comparable(self._changelogs[lane.topic])}

    def _compared(self, kind: str, outcomes: Sequence[Lanes], found: Lanes) -> list[TopicReport]:
        lanes: dict[str, list[Lane]] = defaultdict(list)
        for lane in dict.fromkeys(lane for each in (found, *outcomes) for lane in each):
            lanes[lane.topic].append(lane)
        for topic in _sinks(self._plan) if kind == "output" else ():
            lanes.setdefault(topic, [])
        return [self._compare(topic, kind, lanes[topic], outcomes, found) for topic in sorted(lanes)]

    def _compare(
        self, topic: str, kind: str, lanes: Sequence[Lane], outcomes: Sequence[Lanes], found: Lanes
    ) -> TopicReport:
        writers = self._writers.get(topic, set())
        doubts, binding = self._doubts.about(writers), self._binding(topic, kind)
        tally, log = Tally(), _Log(topic, self._written)
        for lane in lanes:
            expected, results = [outcome.get(lane, ()) for outcome in outcomes], found.get(lane, ())
            traits = binding & AS_A_SET if log.scatters(lane) else binding
            comparison = compare(expected, results, log.kept(lane), traits)
            tally.add(lane, comparison, certain=not doubts and not log.is_blocked(lane))
            tally.expected += len(expected[0])
            tally.found += len(results)
        return self._report(topic, kind, tally, doubts)

    def _repartition_topics(self) -> list[TopicReport]:
        """Records that wait there although nothing leads to them, in whichever order."""
        tallies: dict[str, Tally] = defaultdict(Tally)
        unexplained = [outcome.unexplained for outcome in self._outcomes]
        for partition, records in unexplained[0].items():
            writers = self._writers.get(partition.topic, set())
            certain = not self._doubts.about(writers) and self._bindings.mixed.isdisjoint(writers)
            for record in records:
                if all(record in other.get(partition, ()) for other in unexplained[1:]):
                    place = Place(partition, record.offset)
                    result = Result(WHOLE.content(record.value, record.timestamp, record.headers), place)
                    lane = Lane(partition.topic, partition.partition, record.key)
                    difference = Difference("unexpected", None, result)
                    tallies[lane.topic].add(lane, Comparison((Trait.ANY_ORDER,), (difference,)), certain)
                    tallies[lane.topic].found += 1
        return [
            self._report(topic, "repartition", tally, self._doubts.about(self._writers.get(topic, set())))
            for topic, tally in sorted(tallies.items())
        ]

    def _binding(self, topic: str, kind: str) -> Binding:
        """What counts of a topic if all replays agree on it."""
        if kind == "changelog":
            number = min(self._writers[topic])
            return self._bindings.of_changelog(number, self._changelogs[topic].name)
        if topic in self._written.dead_letters:
            return DETERMINED.intersection(*map(self._bindings.of_dead_letters, self._writers[topic]))
        return self._bindings.of_topic(topic)

    def _report(self, topic: str, kind: str, tally: Tally, doubts: Sequence[Doubt]) -> TopicReport:
        return TopicReport(
            topic=topic,
            kind=kind,
            expected=tally.expected,
            found=tally.found,
            missing=tally.kinds["missing"],
            duplicates=tally.kinds["duplicate"],
            unexpected=tally.kinds["unexpected"],
            different=tally.kinds["different"],
            undecided=tally.undecided,
            compared={name: count for name, count in tally.compared.items() if count},
            reasons=tuple(self._reasons(topic, tally, doubts)),
            examples=tuple(map(self._example, tally.first(self._examples))),
            unknown=any(doubt.final for doubt in doubts),
        )

    def _reasons(self, topic: str, tally: Tally, doubts: Sequence[Doubt]) -> Iterable[str]:
        """Why not all is compared record by record, or cannot be told."""
        texts = [doubt.text for doubt in doubts]
        yield from texts[:_MOST_REASONS]
        if len(texts) > _MOST_REASONS:
            yield f"and {len(texts) - _MOST_REASONS} more of the kind"
        if any(partition.topic == topic for partition in self._written.blocked):
            yield "an open transaction hides what was written after it"
        if any(name != Trait.IN_ORDER.value for name in tally.compared) or (tally.undecided and not doubts):
            yield self._why_not_in_order(topic)

    def _why_not_in_order(self, topic: str) -> str:
        if not self._bindings.mixed.isdisjoint(self._writers.get(topic, set())):
            return "records of several partitions meet, in an order that is not known"
        return "records without a key have no order among partitions, or results depend on caches, the clock or chance"

    def _example(self, entry: Entry) -> Example:
        lane, difference = entry.lane, entry.difference
        expected, found = difference.expected, difference.found
        partition = None if lane.partition == ANY_PARTITION else lane.partition
        offset, origin = None, expected.place if expected is not None and entry.origin_known else None
        if found is not None and found.place is not None:
            partition, offset = found.place.partition.partition, found.place.offset
        return Example(
            kind=difference.kind,
            certain=entry.certain,
            topic=lane.topic,
            partition=partition,
            offset=offset,
            key=self._wording.key(lane.topic, lane.key),
            expected=self._value(lane, expected if difference.kind != "duplicate" else None),
            found=self._value(lane, found),
            input=None if origin is None else Origin(*origin.partition, origin.offset),
            change=_change(expected, found) if difference.kind == "different" else None,
        )

    def _value(self, lane: Lane, result: Result | None) -> str | None:
        return None if result is None else self._wording.value(lane.topic, result.content.value)


class _Log:
    """What the broker has kept of one topic, and what it shows."""

    def __init__(self, topic: str, written: Written) -> None:
        self._several = written.partition_counts.get(topic, 1) > 1
        self._kept = {p.partition: how for p, how in written.kept.items() if p.topic == topic}
        self._blocked = {p.partition for p in written.blocked if p.topic == topic}

    def scatters(self, lane: Lane) -> bool:
        """Whether the lane's records are in several partitions, so that their order is not known."""
        return self._several and lane.partition == ANY_PARTITION

    def kept(self, lane: Lane) -> Kept:
        """What is kept of the lane."""
        if lane.partition == ANY_PARTITION:
            return next(iter(self._kept.values()), Kept.WHOLE)
        return self._kept.get(lane.partition, Kept.WHOLE)

    def is_blocked(self, lane: Lane) -> bool:
        """Whether there may be more of it behind an open transaction."""
        return bool(self._blocked) if lane.partition == ANY_PARTITION else lane.partition in self._blocked


def _change(expected: Result | None, found: Result | None) -> str | None:
    """What differs if it is not the value."""
    if expected is None or found is None or expected.content.value != found.content.value:
        return None
    if expected.content.timestamp != found.content.timestamp:
        return f"timestamp {found.content.timestamp} instead of {expected.content.timestamp}"
    if expected.content.headers != found.content.headers:
        return f"headers {list(found.content.headers)} instead of {list(expected.content.headers)}"
    return None


def _sinks(plan: Plan) -> set[str]:
    """The topics by name that are written to, internal ones left out."""
    topics = (node.topic for node in plan.topology.nodes.values() if isinstance(node, SinkNode))
    return {topic for topic in topics if isinstance(topic, str) and topic not in plan.topology.repartition_topics}


def _writers(plan: Plan, outcomes: Sequence[Outcome]) -> dict[str, set[int]]:
    """For each topic the subtopologies that write to it, or may."""
    writers: dict[str, set[int]] = defaultdict(set)
    for number, nodes in enumerate(plan.subtopologies):
        for node in nodes.values():
            if isinstance(node, SinkNode) and isinstance(node.topic, str):
                writers[plan.full_name(node.topic)].add(number)
    for task in plan.tasks:
        for partition in plan.changelogs(task):
            writers[partition.topic].add(task.subtopology)
    for outcome in outcomes:
        for topic, numbers in outcome.writers.items():
            writers[topic] |= numbers
    return writers
