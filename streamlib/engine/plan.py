"""What an application consists of on a given cluster: tasks, their partitions, internal topics, changelogs.

task        subtopology x partition: as many as the largest topic that the subtopology reads; none of one that fills
            global stores, whose topics every worker reads whole
internal    topics are called <application id>-<name>; repartition topics carry records from task to task,
topics      changelogs keep the stores
partitions  of a repartition topic: as said; else as its co-partitioned topics have; else as the largest topic
            that feeds it; of a retry topic: as its subtopology has tasks, each of which writes to itself
            (Kafka Streams' `RepartitionTopics`, `CopartitionedTopicsEnforcer`)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

import msgspec

from streamlib.engine.places import Places
from streamlib.errors import TopologyError
from streamlib.policies import ErrorPolicies
from streamlib.records import TaskId, TopicPartition
from streamlib.topology.nodes import Node, OffsetReset, ProcessorNode, SinkNode, SourceNode, StoreSpec
from streamlib.topology.topology import Topology

_INTERNAL_TOPICS = (
    r".+-(changelog|repartition|retry-\d+)|.+-subscription-(registration|response)-topic|"
    r"KTABLE-FK-JOIN-SUBSCRIPTION-(REGISTRATION|RESPONSE)-\d+-topic"
)
"""What comes after the application id in the names of internal topics, those of older topologies among them."""


def is_internal(application_id: str, topic: str) -> bool:
    """Whether a topic is called as an application's own topics are.

    Those of an application whose name begins with this one and a hyphen are called so, too.

    >>> is_internal("shop", "shop-totals-changelog"), is_internal("shop", "shop-orders")
    (True, False)
    """
    return re.fullmatch(f"{re.escape(application_id)}-({_INTERNAL_TOPICS})", topic) is not None


def source_topics(topology: Topology) -> tuple[str, ...]:
    """The topics that have to exist before the application can run, in the order they appear."""
    topics = (
        topic
        for node in topology.nodes.values()
        if isinstance(node, SourceNode)
        for topic in node.topics
        if topic not in topology.repartition_topics
    )
    return tuple(dict.fromkeys(topics))


def source_patterns(topology: Topology) -> tuple[str, ...]:
    """The patterns that name topics to read. `make_plan` reads those of the topics it is told of that match."""
    nodes = topology.nodes.values()
    return tuple(node.pattern for node in nodes if isinstance(node, SourceNode) and node.pattern is not None)


def matches(pattern: str, topic: str) -> bool:
    """Whether a pattern takes a topic in: all of its name has to match, and it is none of Kafka's own."""
    return not topic.startswith("__") and re.fullmatch(pattern, topic) is not None


def sink_topics(topology: Topology) -> tuple[str, ...]:
    """The topics by name that the topology writes to, without its own. `make_plan` takes their partition counts too;
    records for a topic whose count it was not given wait until the task learns it."""
    topics = (node.topic for node in topology.nodes.values() if isinstance(node, SinkNode))
    names = (topic for topic in topics if isinstance(topic, str) and topic not in topology.repartition_topics)
    return tuple(dict.fromkeys(names))


def dead_letter_topics(topology: Topology, policies: ErrorPolicies) -> set[str]:
    """The topics that records may go to that fail.

    Raises:
        ConfigError: a dead letter has nowhere to go.
    """
    nodes = topology.nodes.values()
    return policies.dead_letter_topics(
        node.on_deserialization_error if isinstance(node, SourceNode) else node.on_error for node in nodes
    )


def make_plan(topology: Topology, application_id: str, partition_counts: Mapping[str, int]) -> Plan:
    """Plan an application on topics with these partition counts.

    Raises:
        TopologyError: a topic is missing, or topics that are joined or merged by key differ in partitions.
    """
    if missing := [topic for topic in source_topics(topology) if topic not in partition_counts]:
        raise TopologyError(
            f"topics that the topology reads do not exist: {', '.join(missing)}: create them before the application "
            "starts, with the partitions they should keep"
        )
    plan = Plan(topology, application_id, partition_counts)
    for group in plan.copartition_groups:
        _check_copartitioned(group, plan)
    return plan


class Plan:
    """See the module. Everything is derived when it is first asked for, and does not change."""

    def __init__(self, topology: Topology, application_id: str, partition_counts: Mapping[str, int]) -> None:
        self.topology = topology = topology.checked()
        self.application_id = application_id
        places = Places(topology, application_id)
        nodes = places.nodes(_with_matching_topics(topology, application_id, partition_counts))
        self.copartition_groups = _named_groups(topology.copartition_groups, nodes)
        self.subtopologies: tuple[Mapping[str, Node], ...] = tuple(
            {name: nodes[name] for name in each.nodes} for each in topology.subtopologies()
        )
        self._global = frozenset(each.id for each in topology.subtopologies() if each.is_global)
        counts = _Counts(topology, self.copartition_groups, self.subtopologies, partition_counts)
        self.partition_counts: dict[str, int] = {
            **partition_counts,
            **{self.full_name(topic): counts.of(topic) for topic in topology.repartition_topics},
        }
        """Partitions of every topic whose number is known, by full name."""
        self._stores = places.stores()
        self.preparations: tuple[Callable[[], None], ...] = tuple(places.preparations)
        """What serdes want done before anything is processed; each may block, for some seconds at most."""

    def full_name(self, topic: str) -> str:
        """A topic's name in Kafka: internal ones begin with the application id."""
        return f"{self.application_id}-{topic}" if topic in self.topology.repartition_topics else topic

    @cached_property
    def tasks(self) -> tuple[TaskId, ...]:
        """All tasks, in order."""
        return tuple(
            TaskId(number, partition)
            for number, nodes in self._with_tasks
            for partition in range(self._task_count(nodes))
        )

    @cached_property
    def topics(self) -> frozenset[str]:
        """All topics that tasks read, by full name."""
        return frozenset(topic for _, nodes in self._with_tasks for topic in self._topics_of(nodes))

    @cached_property
    def global_nodes(self) -> Mapping[str, Node]:
        """The nodes that fill global stores, in the order they were added."""
        return {name: node for number in sorted(self._global) for name, node in self.subtopologies[number].items()}

    @cached_property
    def global_stores(self) -> tuple[StoreSpec, ...]:
        """Stores that every worker has a whole copy of."""
        return self._stores_of(self.global_nodes)

    @cached_property
    def global_inputs(self) -> tuple[TopicPartition, ...]:
        """What every worker reads whole, for its global stores."""
        return tuple(
            TopicPartition(topic, partition)
            for topic in _source_topics_of(self.global_nodes)
            for partition in range(self.partition_counts[topic])
        )

    @property
    def has_patterns(self) -> bool:
        """Whether some topics are found by a pattern, so that there may be others at another time."""
        return bool(source_patterns(self.topology))

    @property
    def _with_tasks(self) -> list[tuple[int, Mapping[str, Node]]]:
        return [(number, nodes) for number, nodes in enumerate(self.subtopologies) if number not in self._global]

    @cached_property
    def repartition_topics(self) -> dict[str, int]:
        """Full name -> partitions."""
        return {name: self.partition_counts[name] for name in map(self.full_name, self.topology.repartition_topics)}

    @cached_property
    def changelog_topics(self) -> dict[str, tuple[int, dict[str, str]]]:
        """Full name -> partitions and topic configuration."""
        return {
            self._changelog(spec): (self._task_count(nodes), spec.topic_config)
            for nodes in self.subtopologies
            for spec in self._stores_of(nodes)
            if spec.changelog
        }

    @cached_property
    def fingerprint(self) -> str:
        """The same for two members that run the same topology: what they are made of, as far as it can be compared."""
        lines = [self.application_id]
        for number, nodes in enumerate(self.subtopologies):
            lines.append(f"subtopology {number}")
            lines.extend(_describe(node) for node in nodes.values())
            lines.extend(f"store {spec.name} {spec.kind} {spec.changelog}" for spec in self._stores_of(nodes))
        lines.extend(f"repartition {name} {count}" for name, count in sorted(self.repartition_topics.items()))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def inputs(self, task_id: TaskId) -> tuple[TopicPartition, ...]:
        """The partitions a task reads: those with its number, of the topics that have so many."""
        return tuple(
            TopicPartition(topic, task_id.partition)
            for topic in self._topics_of(self.subtopologies[task_id.subtopology])
            if task_id.partition < self.partition_counts[topic]
        )

    def task_of(self, partition: TopicPartition) -> TaskId:
        """The task that reads a partition."""
        return TaskId(self._subtopology_of[partition.topic], partition.partition)

    def nodes(self, task_id: TaskId) -> Mapping[str, Node]:
        """A task's nodes in the order they were added."""
        return self.subtopologies[task_id.subtopology]

    def stores(self, task_id: TaskId) -> tuple[StoreSpec, ...]:
        """A task's stores."""
        return self._stores_of(self.subtopologies[task_id.subtopology])

    @cached_property
    def store_names(self) -> frozenset[str]:
        """All stores, global ones among them."""
        return frozenset(spec.name for nodes in self.subtopologies for spec in self._stores_of(nodes))

    def tasks_of_store(self, name: str) -> tuple[StoreSpec, tuple[TaskId, ...]] | None:
        """A store and the tasks that have a part of it, by partition; no task for a global one. None: there is none."""
        for number, nodes in enumerate(self.subtopologies):
            for spec in self._stores_of(nodes):
                if spec.name == name:
                    return spec, tuple(task for task in self.tasks if task.subtopology == number)
        return None

    def changelogs(self, task_id: TaskId) -> dict[TopicPartition, str]:
        """Changelog partition -> store."""
        return {
            TopicPartition(self._changelog(spec), task_id.partition): spec.name
            for spec in self.stores(task_id)
            if spec.changelog
        }

    def offset_reset(self, partition: TopicPartition) -> OffsetReset | None:
        """Where to start without a committed offset; None if the topology leaves it to the configuration.

        Repartition topics are always read from the start: what is in them was written by this application.
        """
        if partition.topic in self.repartition_topics:
            return "earliest"
        return self._offset_resets.get(partition.topic)

    @cached_property
    def _offset_resets(self) -> dict[str, OffsetReset]:
        return {
            self.full_name(topic): node.offset_reset
            for nodes in self.subtopologies
            for node in nodes.values()
            if isinstance(node, SourceNode) and node.offset_reset is not None
            for topic in node.topics
        }

    @cached_property
    def _subtopology_of(self) -> dict[str, int]:
        return {topic: number for number, nodes in self._with_tasks for topic in self._topics_of(nodes)}

    def _topics_of(self, nodes: Mapping[str, Node]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(self.full_name, _source_topics_of(nodes))))

    def _task_count(self, nodes: Mapping[str, Node]) -> int:
        return max((self.partition_counts[topic] for topic in self._topics_of(nodes)), default=0)

    def _stores_of(self, nodes: Mapping[str, Node]) -> tuple[StoreSpec, ...]:
        names = dict.fromkeys(
            store for node in nodes.values() if isinstance(node, ProcessorNode) for store in node.stores
        )
        return tuple(self._stores[name] for name in names)

    def _changelog(self, spec: StoreSpec) -> str:
        return f"{self.application_id}-{spec.changelog_topic}"


def _with_matching_topics(
    topology: Topology, application_id: str, partition_counts: Mapping[str, int]
) -> dict[str, Node]:
    """The nodes, with the topics in place of the patterns. What another source reads by name stays with it."""
    named = set(source_topics(topology))
    unnamed = [topic for topic in sorted(partition_counts) if topic not in named]
    others = [topic for topic in unnamed if not is_internal(application_id, topic)]

    def resolved(node: Node) -> Node:
        if not isinstance(node, SourceNode) or node.pattern is None:
            return node
        pattern = node.pattern
        return msgspec.structs.replace(node, topics=tuple(topic for topic in others if matches(pattern, topic)))

    return {name: resolved(node) for name, node in topology.nodes.items()}


def _named_groups(groups: Iterable[frozenset[str]], nodes: Mapping[str, Node]) -> list[frozenset[str]]:
    """Co-partitioned topics, with those that a pattern stands for in its place."""
    sources = [node for node in nodes.values() if isinstance(node, SourceNode)]
    matching = {node.pattern: node.topics for node in sources if node.pattern is not None}
    return [frozenset(topic for each in group for topic in matching.get(each, (each,))) for group in groups]


class _Counts:
    """Partition counts of repartition topics, by the names the topology uses."""

    def __init__(
        self,
        topology: Topology,
        copartition_groups: Iterable[frozenset[str]],
        subtopologies: Iterable[Mapping[str, Node]],
        known: Mapping[str, int],
    ) -> None:
        self._topology = topology
        self._subtopologies = tuple(subtopologies)
        self._known = {
            **known,
            **{t.name: t.partitions for t in topology.repartition_topics.values() if t.partitions is not None},
        }
        self._groups = _merged(copartition_groups)
        self._under_way: list[str] = []

    def of(self, topic: str) -> int:
        if topic in self._known:
            return self._known[topic]
        if topic in self._under_way:
            raise TopologyError(
                f"the partitions of {', '.join(self._under_way)} depend on each other: "
                f"give one of them a number, .repartition(partitions=)"
            )
        self._under_way.append(topic)
        count = self._derive(topic)
        self._under_way.pop()
        for each in self._free_group(topic):
            self._known[each] = count
        return count

    def _derive(self, topic: str) -> int:
        if given := [self._known[each] for each in self._group(topic) if each in self._known]:
            return max(given)  # if they differ, `_check_copartitioned` says so
        return max(self._fed_by(each) for each in self._free_group(topic))

    def _free_group(self, topic: str) -> set[str]:
        """The topics that get their count together with `topic`."""
        return {each for each in self._group(topic) if each not in self._known}

    def _group(self, topic: str) -> frozenset[str]:
        """All that have to have as many partitions as `topic`."""
        return next((group for group in self._groups if topic in group), frozenset({topic}))

    def _fed_by(self, topic: str) -> int:
        """Partitions of the largest topic that feeds a repartition topic."""
        writers = [nodes for nodes in self._subtopologies if _writes(nodes, topic)]
        feeding = [each for nodes in writers for each in _source_topics_of(nodes, but_retries=True)]
        if not feeding:
            raise TopologyError(f"nothing writes to {topic}: give it a number, .repartition(partitions=)")
        return max(self.of(each) for each in feeding)


def _merged(groups: Iterable[frozenset[str]]) -> list[frozenset[str]]:
    """Groups that share a topic are one."""
    merged: list[frozenset[str]] = []
    for group in groups:
        touching = [each for each in merged if each & group]
        merged = [each for each in merged if not each & group]
        merged.append(group.union(*touching))
    return merged


def _writes(nodes: Mapping[str, Node], topic: str) -> bool:
    return topic in _retry_topics_of(nodes) or any(
        isinstance(node, SinkNode) and node.topic == topic for node in nodes.values()
    )


def _source_topics_of(nodes: Mapping[str, Node], *, but_retries: bool = False) -> list[str]:
    sources = [node for node in nodes.values() if isinstance(node, SourceNode)]
    return [topic for node in sources if not (but_retries and node.retries is not None) for topic in node.topics]


def _retry_topics_of(nodes: Mapping[str, Node]) -> list[str]:
    sources = [node for node in nodes.values() if isinstance(node, SourceNode)]
    return [topic for node in sources if node.retries is not None for topic in node.topics]


def _check_copartitioned(group: Iterable[str], plan: Plan) -> None:
    counts = {topic: plan.partition_counts[plan.full_name(topic)] for topic in sorted(group)}
    if len(set(counts.values())) <= 1:
        return
    shown = " and ".join(f"{plan.full_name(topic)} ({count} partitions)" for topic, count in counts.items())
    smallest, largest = min(counts.values()), max(counts.values())
    odd = next(topic for topic, count in counts.items() if count == smallest)
    raise TopologyError(
        f"{shown} are joined by key, so they need the same number of partitions: put "
        f".repartition(partitions={largest}) between {odd} and the join"
    )


def _describe(node: Node) -> str:
    match node:
        case SourceNode():
            return f"source {node.name} {node.pattern or ' '.join(node.topics)}"
        case ProcessorNode():
            kind = type(node.operator).__name__
            return f"processor {node.name} {kind} < {' '.join(node.parents)} | {' '.join(node.stores)}"
        case SinkNode():
            topic = node.topic if isinstance(node.topic, str) else "(chosen per record)"
            return f"sink {node.name} {topic} < {' '.join(node.parents)}"
