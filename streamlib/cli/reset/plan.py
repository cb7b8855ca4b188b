"""What a reset is about to do. Nothing is changed.

Source of the rules: Kafka's `StreamsResetter`. Unlike it, topics that belong to another application are spared whose
name begins with this one's: `shop-eu` beside `shop`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from streamlib.cli.lag.standing import no_such_group
from streamlib.config import StreamsConfig
from streamlib.engine.plan import is_internal
from streamlib.errors import StreamsError
from streamlib.kafka.admin import KafkaAdmin
from streamlib.kafka.group_description import GroupDescription
from streamlib.kafka.reading import partitions_of
from streamlib.records import TopicPartition
from streamlib.runtime.wiring import plan_on
from streamlib.topology.topology import Topology


class ToOffset(msgspec.Struct, frozen=True):
    """This offset, or the nearest that there is."""

    offset: int


class ToTime(msgspec.Struct, frozen=True):
    """The first record of this time in ms since the epoch, or a later one; the end, if there is none."""

    timestamp_ms: int


Start: TypeAlias = Literal["earliest", "latest"] | ToOffset | ToTime
"""Where the inputs are read from afterwards."""


class StillRunningError(StreamsError):
    """The application has live workers."""


class Inputs(msgspec.Struct, frozen=True):
    """What a topology says of its topics; of internal ones only those that exist are deleted."""

    partitions: frozenset[TopicPartition]
    internal: frozenset[str]

    @classmethod
    async def of(cls, topology: Topology, config: StreamsConfig, admin: KafkaAdmin) -> Inputs:
        """Plan it on the topics there are.

        Raises:
            TopologyError: a topic is missing that is not internal.
        """
        plan = await plan_on(topology, config, admin)
        read = {partition for task in plan.tasks for partition in plan.inputs(task)}
        own = frozenset(partition for partition in read if partition.topic not in plan.repartition_topics)
        return cls(own, frozenset({*plan.repartition_topics, *plan.changelog_topics}))


class ResetPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is going to be done.

    Attributes:
        application_id: whose reset it is.
        committed: the offsets of inputs as they are.
        offsets: as they will be.
        topics: internal ones, to be deleted.
        state: the folder of local state on this host.
    """

    application_id: str
    committed: Mapping[TopicPartition, int]
    offsets: Mapping[TopicPartition, int]
    topics: tuple[str, ...]
    state: Path


async def make_plan(admin: KafkaAdmin, config: StreamsConfig, inputs: Inputs | None, start: Start) -> ResetPlan:
    """Ask the cluster.

    Args:
        admin: of the cluster.
        config: of the application.
        inputs: its topology's; None is those of which it has committed offsets.
        start: where to go.

    Raises:
        StillRunningError: the application has live workers.
        UsageError: nothing is known of such an application.
    """
    name = config.application_id
    check_stopped((await admin.describe_groups([name]))[name])
    committed = {partition: each.offset for partition, each in (await admin.committed_offsets(name)).items()}
    topics = internal_topics(name, await admin.topics(), await admin.list_groups(), inputs)
    if inputs is None and not committed and not topics:
        raise await no_such_group(admin, name)
    partitions = await _inputs(admin, name, committed) if inputs is None else inputs.partitions
    return ResetPlan(
        application_id=name,
        committed=committed,
        offsets=await _targets(admin, partitions, start),
        topics=topics,
        state=config.state_path / name,
    )


def check_stopped(group: GroupDescription) -> None:
    """Raise `StillRunningError` if there are members."""
    if not group.members:
        return
    who = ", ".join(sorted(f"{m.instance_id or m.client_id} on {m.host.removeprefix('/')}" for m in group.members))
    raise StillRunningError(
        f"application {group.group_id} is running: {who}; stop all its workers first. Workers that "
        "were killed, and static members that were stopped, are forgotten after session_timeout_ms"
    )


def internal_topics(
    application_id: str, topics: Iterable[str], groups: Iterable[str], inputs: Inputs | None = None
) -> tuple[str, ...]:
    """Those of the application, by their names; without those of applications whose name begins with this one's.

    >>> internal_topics("shop", ["shop-a-changelog", "shop-eu-a-changelog", "shop-orders"], ["shop", "shop-eu"])
    ('shop-a-changelog',)
    """
    others = tuple(f"{group}-" for group in groups if group.startswith(f"{application_id}-"))
    ours = frozenset() if inputs is None else inputs.internal
    return tuple(
        topic
        for topic in sorted(topics)
        if topic in ours or (is_internal(application_id, topic) and not topic.startswith(others))
    )


async def _inputs(admin: KafkaAdmin, name: str, committed: Iterable[TopicPartition]) -> frozenset[TopicPartition]:
    """All partitions of the topics that were read."""
    read = {partition.topic for partition in committed if not is_internal(name, partition.topic)}
    counts = await admin.partition_counts(read)
    return frozenset(each for topic, count in counts.items() for each in partitions_of(topic, count))


async def _targets(admin: KafkaAdmin, partitions: frozenset[TopicPartition], start: Start) -> dict[TopicPartition, int]:
    earliest = await admin.list_offsets(partitions, "earliest")
    latest = await admin.list_offsets(partitions, "latest")
    match start:
        case "earliest":
            return earliest
        case "latest":
            return latest
        case ToOffset(offset):
            return {each: min(max(offset, earliest[each]), latest[each]) for each in partitions}
        case ToTime(timestamp_ms):
            found = await admin.offsets_at_time(partitions, timestamp_ms)
            return {each: latest[each] if (at := found[each]) is None else at for each in partitions}
