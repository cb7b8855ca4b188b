"""The application that is verified: its plan on this cluster, and the topics that belong to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import msgspec

from streamlib.cli.errors import UsageError
from streamlib.config import StreamsConfig
from streamlib.engine.plan import Plan, dead_letter_topics, sink_topics
from streamlib.kafka.admin import KafkaAdmin
from streamlib.kafka.reading import partitions_of
from streamlib.records import TopicPartition
from streamlib.runtime.wiring import plan_on
from streamlib.topology import operators as op
from streamlib.topology.nodes import ProcessorNode, SinkNode, SourceNode
from streamlib.topology.topology import Topology
from streamlib.verify.replay import Outcome
from streamlib.verify.shapes import changelogs, is_comparable


class Subject(msgspec.Struct, frozen=True):
    """See the module.

    Attributes:
        config: the application's.
        plan: on the partitions there are.
        partition_counts: of its topics; of all topics there are, if a function chooses where records go.
        compacted: those of them whose older records may be compacted away.
        append_time: those of them whose timestamps the broker sets.
    """

    config: StreamsConfig
    plan: Plan
    partition_counts: Mapping[str, int]
    compacted: frozenset[str]
    append_time: frozenset[str]

    @classmethod
    async def of(cls, topology: Topology, config: StreamsConfig, admin: KafkaAdmin) -> Self:
        """Ask the cluster; nothing is created.

        Raises:
            TopologyError: a topic is missing that is not internal.
            UsageError: the application has never run there, or with another topology; or it awaits functions.
        """
        _check_that_nothing_is_awaited(topology)
        plan = await plan_on(topology, config, admin)
        counts = {**plan.partition_counts, **await _internal_topics(plan, admin)}
        if _chooses_topics(topology):
            others = await admin.topics()
            counts = {**{name: count for name, count in others.items() if not name.startswith("__")}, **counts}
        policies = await admin.topic_config(counts, "cleanup.policy")
        times = await admin.topic_config(counts, "message.timestamp.type")
        return cls(
            config,
            plan,
            counts,
            frozenset(name for name, policy in policies.items() if "compact" in (policy or "")),
            frozenset(name for name, kind in times.items() if kind == "LogAppendTime"),
        )

    @property
    def read(self) -> list[TopicPartition]:
        """All that tasks read."""
        return [partition for task in self.plan.tasks for partition in self.plan.inputs(task)]

    @property
    def dead_letters(self) -> frozenset[str]:
        """Where records go that fail."""
        return frozenset(dead_letter_topics(self.plan.topology, self.config.error_policies))

    def outputs(self, outcomes: Iterable[Outcome] = ()) -> list[TopicPartition]:
        """All that is written to and not internal, as far as it exists; with what functions have chosen in replays."""
        chosen = (topic for outcome in outcomes for topic in outcome.results.topics)
        names = dict.fromkeys((*sink_topics(self.plan.topology), *sorted(self.dead_letters), *chosen))
        return self._partitions(name for name in names if name in self.partition_counts)

    @property
    def changelogs(self) -> list[TopicPartition]:
        """Those that can be compared."""
        return self._partitions(topic for topic, spec in changelogs(self.plan).items() if is_comparable(spec))

    @property
    def own(self) -> list[TopicPartition]:
        """All partitions that the application reads or writes, as far as it is known."""
        internal = self._partitions((*self.plan.repartition_topics, *self.plan.changelog_topics))
        return sorted({*self.read, *self.plan.global_inputs, *self.outputs(), *internal})

    @property
    def partitions(self) -> list[TopicPartition]:
        """All partitions that may be of interest."""
        return sorted({*self.own, *self._partitions(self.partition_counts)})

    @property
    def notes(self) -> Sequence[str]:
        """What is left out."""
        numbered = sorted(topic for topic, spec in changelogs(self.plan).items() if not is_comparable(spec))
        return [f"{topic} is not compared: its rows are numbered as they come" for topic in numbered]

    def _partitions(self, topics: Iterable[str]) -> list[TopicPartition]:
        return [each for topic in topics for each in partitions_of(topic, self.partition_counts[topic])]


def _chooses_topics(topology: Topology) -> bool:
    return any(isinstance(node, SinkNode) and not isinstance(node.topic, str) for node in topology.nodes.values())


async def _internal_topics(plan: Plan, admin: KafkaAdmin) -> dict[str, int]:
    """The partitions of the internal topics, which have to be there."""
    wanted = {**plan.repartition_topics, **{name: count for name, (count, _) in plan.changelog_topics.items()}}
    counts = await admin.partition_counts(wanted)
    if missing := sorted(wanted.keys() - counts.keys()):
        raise UsageError(
            f"application {plan.application_id} has not run here with this topology: its internal topics are missing, "
            f"{', '.join(missing)}; is --application-id right?"
        )
    if wrong := [
        f"{name} has {counts[name]}, not {wanted[name]}" for name in sorted(wanted) if counts[name] != wanted[name]
    ]:
        raise UsageError(f"internal topics do not fit the topology, the partitions differ: {', '.join(wrong)}")
    return counts


def _check_that_nothing_is_awaited(topology: Topology) -> None:
    """Calls are not repeated only to look at what there is; those of peek and foreach are left out in any case."""
    for node in topology.nodes.values():
        if isinstance(node, SourceNode) and node.retries is not None:
            raise UsageError(
                f"node {node.retries} has retry topics: when and how often its function failed cannot be had again, so "
                "an application with such nodes cannot be verified"
            )
        if not isinstance(node, ProcessorNode) or isinstance(node.operator, op.Peek | op.Foreach):
            continue
        if getattr(node.operator, "calls", None) is not None:
            raise UsageError(
                f"node {node.name} awaits a function: what it returned cannot be had without calling it again, so an "
                "application with such nodes cannot be verified"
            )
