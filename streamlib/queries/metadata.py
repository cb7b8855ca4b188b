"""Who has which stores, and who has a key: Kafka Streams' `StreamsMetadata` and `KeyQueryMetadata`.

It is what the group told this worker last. Where a task is moving, the members hear of it one after the other: who is
asked may have just let go of it, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from streamlib.engine.plan import Plan
from streamlib.errors import InvalidStateStoreError, SerializationError, UnknownStateStoreError
from streamlib.partitioning import partition_for
from streamlib.records import HostInfo, TaskId, TopicPartition
from streamlib.runtime.ports import MemberTasks
from streamlib.topology.nodes import SinkNode, StoreSpec

StorePartitioner: TypeAlias = Callable[[Any, int], int]
"""Where the rows of a store are: f(key, partition count) -> partition."""


class Known(Protocol):
    """What a worker knows of itself and of the others (`LocalStores`)."""

    @property
    def plan(self) -> Plan: ...
    @property
    def me(self) -> MemberTasks: ...
    @property
    def others(self) -> tuple[MemberTasks, ...]: ...


class StreamsMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """One worker of the application, and what it has.

    Attributes:
        worker_id: what it is called in its transactional ids and metrics; empty if it does not say.
        host_info: where its HTTP server is; None if it has no `application_server`.
        is_local: whether it is the one that was asked.
        active_tasks: the tasks assigned to it, as in `0_3`; it may still be restoring them.
        state_store_names: the stores of these.
        topic_partitions: what these read.
        standby_tasks: the tasks of which it keeps copies.
        standby_state_store_names: the stores of these.
        standby_topic_partitions: what these would read.

    >>> StreamsMetadata(worker_id="w1", host_info=HostInfo("10.1.2.3", 8080), active_tasks=("0_3",)).is_local
    False
    """

    worker_id: str = ""
    host_info: HostInfo | None = None
    is_local: bool = False
    active_tasks: tuple[str, ...] = ()
    state_store_names: tuple[str, ...] = ()
    topic_partitions: tuple[TopicPartition, ...] = ()
    standby_tasks: tuple[str, ...] = ()
    standby_state_store_names: tuple[str, ...] = ()
    standby_topic_partitions: tuple[TopicPartition, ...] = ()


class KeyQueryMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Who has a key.

    Attributes:
        partition: the partition of the store that the key is in.
        active: the worker that keeps it up to date; None while its task is on its way, or if that one is not known.
        standbys: those that have copies.

    >>> KeyQueryMetadata(partition=3).active_host is None
    True
    """

    partition: int
    active: StreamsMetadata | None = None
    standbys: tuple[StreamsMetadata, ...] = ()

    @property
    def active_host(self) -> HostInfo | None:
        """Where to ask for it; None if that is not known."""
        return None if self.active is None else self.active.host_info

    @property
    def standby_hosts(self) -> tuple[HostInfo, ...]:
        """Where to ask for copies."""
        return tuple(each.host_info for each in self.standbys if each.host_info is not None)


def streams_metadata(known: Known) -> tuple[StreamsMetadata, ...]:
    """All workers that are known; the one that is asked first."""
    others = (_metadata(known.plan, each, is_local=False) for each in known.others)
    return (_metadata(known.plan, known.me, is_local=True), *others)


def key_metadata(known: Known, name: str, key: Any, partitioner: StorePartitioner | None = None) -> KeyQueryMetadata:
    """Who has a key of a store.

    Raises:
        UnknownStateStoreError: there is no such store.
        InvalidStateStoreError: it is global, which every worker has all of; or its keys are placed by a partitioner of
            the topology's, so that one has to be given.
        SerializationError: it is no key of this store.
    """
    plan, task = known.plan, task_of_key(known.plan, name, key, partitioner)
    me = known.me
    members = (me, *known.others)
    active = next((each for each in members if task in each.active), None)
    return KeyQueryMetadata(
        partition=task.partition,
        active=None if active is None else _metadata(plan, active, is_local=active is me),
        standbys=tuple(_metadata(plan, each, is_local=each is me) for each in members if task in each.standby),
    )


def find_store(plan: Plan, name: str) -> tuple[StoreSpec, tuple[TaskId, ...]]:
    """A store of the topology, and the tasks that have a part of it each; none has one of a global store.

    Raises:
        UnknownStateStoreError: there is none of this name.
    """
    if (found := plan.tasks_of_store(name)) is None:
        known = ", ".join(sorted(plan.store_names)) or "none at all"
        raise UnknownStateStoreError(f"the topology has no store {name!r}; it has {known}")
    return found


def task_of_key(plan: Plan, name: str, key: Any, partitioner: StorePartitioner | None = None) -> TaskId:
    """The task that has a key of a store, which is as `key_metadata`; raises what that does."""
    spec, tasks = find_store(plan, name)
    if not tasks:
        raise InvalidStateStoreError(f"store {name} is global: every worker has all of it, no key belongs to one")
    count = len(tasks)
    if partitioner is None:
        if (sink := own_partitioner(plan, tasks[0])) is not None:
            raise InvalidStateStoreError(
                f"store {name}: {sink} places its keys by a partitioner of its own, which also sees values: say "
                "partition=, or partitioner=, which is called with the key and the number of partitions"
            )
        partition = partition_for(encoded_key(spec, key), count)
    else:
        partition = partitioner(key, count)
        if not 0 <= partition < count:
            raise InvalidStateStoreError(f"store {name} has partitions 0 to {count - 1}; partitioner= says {partition}")
    return tasks[partition]


def encoded_key(spec: StoreSpec, key: Any) -> bytes:
    """A key as the store has it.

    Raises:
        SerializationError: it is no key of this store.
    """
    try:
        return spec.key.encode(key)
    except Exception as error:
        raise SerializationError(
            f"store {spec.name}: {key!r:.80} is no key of it: {error}; its keys are {spec.key.name}"
        ) from error


def own_partitioner(plan: Plan, task: TaskId) -> str | None:
    """The step that writes what a task reads to partitions of its own choice; None if there is none."""
    read = {partition.topic for partition in plan.inputs(task)}
    sinks = (node for nodes in plan.subtopologies for node in nodes.values() if isinstance(node, SinkNode))
    own = (sink for sink in sinks if sink.partitioner is not None and isinstance(sink.topic, str))
    return next((sink.name for sink in own if plan.full_name(str(sink.topic)) in read), None)


def _metadata(plan: Plan, member: MemberTasks, *, is_local: bool) -> StreamsMetadata:
    active, standby = _known(plan, member.active), _known(plan, member.standby)
    return StreamsMetadata(
        worker_id=member.worker,
        host_info=HostInfo.parse(member.endpoint) if member.endpoint else None,
        is_local=is_local,
        active_tasks=tuple(map(str, active)),
        state_store_names=_stores(plan, active),
        topic_partitions=tuple(partition for task in active for partition in plan.inputs(task)),
        standby_tasks=tuple(map(str, standby)),
        standby_state_store_names=_stores(plan, standby),
        standby_topic_partitions=tuple(partition for task in standby for partition in plan.inputs(task)),
    )


def _known(plan: Plan, tasks: Iterable[TaskId]) -> Sequence[TaskId]:
    """A member of another topology, in a rolling upgrade, may have tasks that are none here."""
    known = frozenset(plan.tasks)
    return [task for task in tasks if task in known]


def _stores(plan: Plan, tasks: Iterable[TaskId]) -> tuple[str, ...]:
    names = {spec.name for task in tasks for spec in plan.stores(task)}
    return tuple(sorted(names.union(spec.name for spec in plan.global_stores)))
