"""One member's conversation with the coordinator of a streams group, which assigns the tasks itself (KIP-1071).

There is one request, the heartbeat, and it carries everything: who joins says what the topology is, who owns tasks says
which, and the answer has the member's epoch and, if they changed, its tasks. Behind the port `Group` that becomes:

    join        a heartbeat that claims the tasks held; leaving one out is the acknowledgement of its revocation
    sync        no request: the tasks as they were told last
    heartbeat   one without tasks, so that nothing counts as given back; REBALANCE_IN_PROGRESS if it tells of a change

An answer that was lost may have told of a change, and the coordinator says each once
(`GroupMetadataManager.streamsGroupHeartbeat`: tasks are in the answer when they changed, or when a member joins). So
whoever missed an answer joins again, and then looks up with StreamsGroupDescribe what it was told. No other request
moves a member on, so after an answered heartbeat the description is the truth.

A member that joins at epoch 0 counts as owning nothing, even if the coordinator knows it. That is only said when it is
so: a task that is still held here would get a second owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from itertools import groupby
from typing import Any

import msgspec

from streamlib.engine.plan import Plan
from streamlib.errors import ErrorCode, KafkaError, StreamsError, TopologyError, UnsupportedBrokerError
from streamlib.kafka.client import KafkaClient, Response
from streamlib.kafka.errors import check_code, error_row
from streamlib.kafka.group import KafkaGroup
from streamlib.records import GroupMetadata, HostInfo, OffsetAndMetadata, TaskId, TopicPartition
from streamlib.runtime.assignor import PROTOCOL, Instructions
from streamlib.runtime.ports import Assignment, JoinResult, MemberTasks, Subscription
from streamlib.topology.nodes import SinkNode

_HEARTBEAT = "StreamsGroupHeartbeat"
_DESCRIBE = "StreamsGroupDescribe"
_LEAVE_EPOCH = -1
_NO_HOSTS = -1  # the epoch of who has never heard where stores can be asked for
_TRIES_PER_SESSION = 3
# Brokers hear of new topics one after the other, and create those that are missing; what lasts longer does not mend.
TOPICS_PATIENCE_S = 30.0

# What the coordinator says about the group besides (StreamsGroupHeartbeatResponse.Status).
STALE_TOPOLOGY = 0
MISSING_SOURCE_TOPICS = 1
INCORRECTLY_PARTITIONED_TOPICS = 2
MISSING_INTERNAL_TOPICS = 3
SHUTDOWN_APPLICATION = 4
_TOPICS_NOT_READY = frozenset({MISSING_SOURCE_TOPICS, INCORRECTLY_PARTITIONED_TOPICS, MISSING_INTERNAL_TOPICS})

_NEEDS = (
    "group_protocol='streams' needs brokers of Kafka 4.2 or newer with the feature streams.version (KIP-1071): upgrade "
    "the brokers, enable it with `kafka-features.sh upgrade --feature streams.version=1`, or use "
    "group_protocol='classic'"
)
_OTHER_TOPOLOGY = (
    "the brokers cannot change the topology of a streams group yet: use a new application_id, or stop all workers, and "
    "run one with group_protocol='classic' for a moment, which makes the brokers forget it and keep the offsets"
)


class StreamsMember(msgspec.Struct, frozen=True):
    """Who a member is.

    Args:
        member_id: chosen by the member, which keeps it for as long as it lives.
        process: the same for members that share a state directory; they never have the same task at the same time.
        tags: what else tells places apart (`client_tags`).
        endpoint: where others reach its HTTP server (`application_server`).
    """

    member_id: str
    process: str
    tags: Mapping[str, str] = {}
    endpoint: HostInfo | None = None


class Told(msgspec.Struct, frozen=True):
    """The tasks of this member, as the coordinator said last."""

    active: frozenset[TaskId] = frozenset()
    standby: frozenset[TaskId] = frozenset()
    warmup: frozenset[TaskId] = frozenset()


class KafkaStreamsGroup:
    """Implements `streamlib.runtime.ports.Group` for members of a streams group."""

    def __init__(
        self,
        client: KafkaClient,
        plan: Plan,
        member: StreamsMember,
        *,
        session_timeout_ms: int,
        rebalance_timeout_ms: int,
    ) -> None:
        """`session_timeout_ms` bounds how long one thing is tried; the session itself is a setting of the brokers."""
        self._client = client
        self._plan = plan
        self._member = member
        self._session_timeout_ms = session_timeout_ms
        self._rebalance_timeout_ms = rebalance_timeout_ms
        self._group_id = plan.application_id
        self._where = f"group {self._group_id}"
        self._lane = ("streams", self._group_id)
        # Committed offsets are those of any group.
        self._offsets = KafkaGroup(
            client,
            self._group_id,
            instance_id=None,
            session_timeout_ms=session_timeout_ms,
            rebalance_timeout_ms=rebalance_timeout_ms,
            protocol=PROTOCOL,
        )
        self._epoch = 0  # of this member, as heard last; 0 before it has joined
        self._told = Told()
        self._given: Told | None = None  # what `sync` has returned
        self._unheard = False  # an answer was missed: the coordinator may have told more than `_told`
        self._not_ready_since_s: float | None = None  # the topics, as far as the coordinator can see
        self._hosts: tuple[MemberTasks, ...] = ()  # of members that have an endpoint, which it tells with heartbeats
        self._hosts_given: tuple[MemberTasks, ...] = ()  # what `sync` or `heartbeat` has returned of that
        self._hosts_epoch = _NO_HOSTS  # which state of it; the coordinator tells of others

    async def join(self, member_id: str, subscription: Subscription) -> JoinResult:
        """Claim what is held, in a new membership if there was none, or it was lost."""
        if subscription.generation < 0:
            assert not subscription.owned, "who joins anew has let go of everything"
            self._epoch, self._told, self._given = 0, Told(), None
            self._hosts_epoch = _NO_HOSTS  # a coordinator that has moved counts anew
        owned = frozenset(self._plan.task_of(partition) for partition in subscription.owned)
        await self._client.retrying(lambda: self._claim(owned), deadline_ms=self._session_timeout_ms)
        return JoinResult(self._epoch, self._member.member_id, leads=False, consecutive=False)

    async def sync(self, generation: int, member_id: str, assignments: Mapping[str, Assignment]) -> Assignment:
        """What the coordinator has said. It does not say who else is there."""
        told, before = self._told, self._given
        self._given, self._hosts_given = told, self._hosts
        instructions = Instructions(
            follow_up=told != before,  # others may have to let go before we hear of the rest
            standby=sorted(told.standby),
            warmup=sorted(told.warmup),
            tasks=len(self._plan.tasks),
            moving=len(told.active ^ (before or Told()).active),
            hosts=list(self._hosts),
        )
        partitions = tuple(p for task in sorted(told.active) for p in self._plan.inputs(task))
        return Assignment(partitions, msgspec.json.encode(instructions))

    async def heartbeat(self, generation: int, member_id: str) -> tuple[MemberTasks, ...] | None:
        """Say that the member is alive, and hear whether anything has changed, here or elsewhere."""
        if not self._unheard:
            await self._beat_once()
        if self._unheard or self._epoch != generation or self._told != self._given:
            raise KafkaError(ErrorCode.REBALANCE_IN_PROGRESS, _HEARTBEAT, self._where)
        changed, self._hosts_given = self._hosts != self._hosts_given, self._hosts
        return self._hosts if changed else None

    async def leave(self, member_id: str) -> None:
        """Leave at once; that the coordinator does not know the member any more is fine."""

        async def once() -> None:
            response = await self._ask(_HEARTBEAT, self._who | {"member_epoch": _LEAVE_EPOCH})
            if response.error_code not in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.GROUP_ID_NOT_FOUND):
                check_code(response.error_code, _HEARTBEAT, self._where, response.error_message)

        await self._client.retrying(once, deadline_ms=self._session_timeout_ms)

    async def fetch_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """See `KafkaGroup.fetch_offsets`."""
        return await self._offsets.fetch_offsets(partitions)

    async def commit_offsets(self, group: GroupMetadata, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit outside of a transaction.

        The refusal of an old epoch gets the name that it has inside of one, and in other groups.
        """
        try:
            await self._offsets.commit_offsets(group, offsets)
        except KafkaError as error:
            if error.code != ErrorCode.STALE_MEMBER_EPOCH:
                raise
            raise KafkaError(ErrorCode.ILLEGAL_GENERATION, error.api, error.where, str(error)) from error

    async def close(self) -> None:
        """Drop the connections; does not leave the group."""
        self._client.disconnect(self._lane)
        await self._offsets.close()

    @property
    def _who(self) -> dict[str, Any]:
        who = {"group_id": self._group_id, "member_id": self._member.member_id}
        return who | {"endpoint_information_epoch": self._hosts_epoch}

    async def _claim(self, owned: frozenset[TaskId]) -> None:
        # Standbys are followed as told. Who missed an answer may have been told of others, and claims none: a claim of
        # what is not assigned (any more) costs the membership where an epoch was missed, too.
        followed = Told() if self._unheard else self._told
        tasks = {
            "active_tasks": _nested(owned),
            "standby_tasks": _nested(followed.standby),
            "warmup_tasks": _nested(followed.warmup),
        }
        await self._beat(tasks if self._epoch else tasks | self._introduction)
        if self._unheard:
            await self._look_up()

    async def _beat_once(self) -> None:
        """Not again with the same bytes: the coordinator may have moved on with the first ones."""
        try:
            await self._beat({})
        except KafkaError as error:
            if not error_row(error.code).retriable:
                raise
            self._client.complaints.warn(error.code, self._now_s() * 1000, "%s; joining again", error)

    async def _beat(self, what: Mapping[str, Any]) -> None:
        joins = self._epoch == 0
        missed, self._unheard = self._unheard, True  # until the answer is there
        response = await self._ask(_HEARTBEAT, self._who | {"member_epoch": self._epoch, **what})
        self._check(response, joins=joins)
        self._epoch = response.member_epoch
        if response.active_tasks is not None:
            self._told, missed = self._tasks_in(response), False
        self._unheard = missed
        if response.partitions_by_user_endpoint is not None:
            self._hosts = tuple(sorted(map(self._host_in, response.partitions_by_user_endpoint), key=_endpoint))
        self._hosts_epoch = response.endpoint_information_epoch
        self._look_at(response.status or ())

    async def _look_up(self) -> None:
        response = await self._ask(_DESCRIBE, {"group_ids": [self._group_id], "include_authorized_operations": False})
        group = response.groups[0]
        check_code(group.error_code, _DESCRIBE, self._where, group.error_message)
        found = next((member for member in group.members if member.member_id == self._member.member_id), None)
        if found is None or found.member_epoch != self._epoch:
            raise KafkaError(ErrorCode.FENCED_MEMBER_EPOCH, _DESCRIBE, self._where, "the member is not as it was told")
        self._told, self._unheard = self._tasks_in(found.assignment), False

    async def _ask(self, api: str, body: Mapping[str, Any]) -> Response:
        node = await self._client.coordinator(self._group_id, "group")
        timeout_ms = max(self._session_timeout_ms // _TRIES_PER_SESSION, 1)
        return await self._client.call(api, body, node=node, lane=self._lane, where=self._where, timeout_ms=timeout_ms)

    @property
    def _introduction(self) -> dict[str, Any]:
        endpoint = self._member.endpoint
        return {
            "rebalance_timeout_ms": self._rebalance_timeout_ms,
            "topology": described(self._plan),
            "process_id": self._member.process,
            "client_tags": _pairs(self._member.tags),
            "user_endpoint": None if endpoint is None else {"host": endpoint.host, "port": endpoint.port},
        }

    def _check(self, response: Response, *, joins: bool) -> None:
        said = response.error_message or ""
        match response.error_code:
            case ErrorCode.UNSUPPORTED_VERSION:
                raise UnsupportedBrokerError(_HEARTBEAT, _NEEDS)
            case ErrorCode.INVALID_REQUEST if "opology" in said:
                raise TopologyError(f"{self._where} runs another topology ({said}): {_OTHER_TOPOLOGY}")
            case ErrorCode.GROUP_ID_NOT_FOUND if joins:
                raise KafkaError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, _HEARTBEAT, self._where, _not_streams(said))
            case code:
                check_code(code, _HEARTBEAT, self._where, said or None)

    def _look_at(self, status: Collection[Any]) -> None:
        """Raise what does not pass by itself; wait for topics, but not for ever."""
        for each in status:
            if each.status_code == STALE_TOPOLOGY:
                raise TopologyError(f"{self._where}: {each.status_detail} {_OTHER_TOPOLOGY}")
            if each.status_code == SHUTDOWN_APPLICATION:
                raise StreamsError(f"{self._where} is told to stop: {each.status_detail}")
        problems = [each.status_detail for each in status if each.status_code in _TOPICS_NOT_READY]
        now_s = self._now_s()
        if not problems:
            self._not_ready_since_s = None
            return
        since_s = self._not_ready_since_s = self._not_ready_since_s or now_s
        if now_s - since_s > TOPICS_PATIENCE_S:
            raise TopologyError(
                f"{self._where} gets no tasks, its topics are not as the topology needs them: {'; '.join(problems)}"
            )
        self._client.complaints.warn("topics", now_s * 1000, "no tasks yet: %s", "; ".join(problems))

    def _tasks_in(self, lists: Any) -> Told:
        told = Told(_flat(lists.active_tasks), _flat(lists.standby_tasks), _flat(lists.warmup_tasks))
        if unknown := told.active - frozenset(self._plan.tasks):
            raise TopologyError(
                f"{self._where} was given task {min(unknown)}, which did not exist when this worker started: a source "
                "topic has got more partitions. Start the workers again"
            )
        return told

    def _host_in(self, told: Any) -> MemberTasks:
        """Partitions are told; tasks are what they belong to here, if they belong to any."""
        endpoint = str(HostInfo(told.user_endpoint.host, told.user_endpoint.port))
        active, standby = self._tasks_of(told.active_partitions), self._tasks_of(told.standby_partitions)
        return MemberTasks(endpoint=endpoint, active=active, standby=standby)

    def _tasks_of(self, topics: Iterable[Any]) -> tuple[TaskId, ...]:
        known = (each for each in topics if each.topic in self._plan.topics)
        read = (TopicPartition(each.topic, number) for each in known for number in each.partitions)
        return tuple(sorted(set(map(self._plan.task_of, read))))

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()


def _endpoint(host: MemberTasks) -> str:
    return host.endpoint


def check_supported(client: KafkaClient) -> None:
    """Raise `UnsupportedBrokerError` if the brokers are too old for streams groups."""
    try:
        client.version(_HEARTBEAT)
    except UnsupportedBrokerError as error:
        raise UnsupportedBrokerError(_HEARTBEAT, _NEEDS) from error


def described(plan: Plan) -> dict[str, Any]:
    """The topology, as a new member tells it to the coordinator.

    Two members agree if these are equal, list by list, so everything is in order. Partition counts of repartition
    topics are said even where they follow from other topics: the coordinator works them out before it looks at which
    topics have to have as many as others, and comes to other numbers behind a join (measured on 4.3.1).
    """
    numbers = sorted({task.subtopology for task in plan.tasks})
    return {"epoch": 0, "subtopologies": [_subtopology(plan, number) for number in numbers]}


def _subtopology(plan: Plan, number: int) -> dict[str, Any]:
    inputs = sorted({p.topic for task in plan.tasks if task.subtopology == number for p in plan.inputs(task)})
    sources = [topic for topic in inputs if topic not in plan.repartition_topics]
    repartitions = [topic for topic in inputs if topic in plan.repartition_topics]
    first = TaskId(number, 0)
    changelogs = sorted(partition.topic for partition in plan.changelogs(first))
    sinks = {node.topic for node in plan.nodes(first).values() if isinstance(node, SinkNode)}
    return {
        "subtopology_id": str(number),
        "source_topics": sources,
        "source_topic_regex": [],
        "state_changelog_topics": [_topic(topic, 0, plan.changelog_topics[topic][1]) for topic in changelogs],
        "repartition_sink_topics": sorted(plan.full_name(t) for t in plan.topology.repartition_topics if t in sinks),
        "repartition_source_topics": [
            _topic(topic, plan.repartition_topics[topic], {"cleanup.policy": "delete", "retention.ms": "-1"})
            for topic in repartitions
        ],
        "copartition_groups": sorted(_copartitioned(plan, sources, repartitions), key=str),
    }


def _copartitioned(plan: Plan, sources: list[str], repartitions: list[str]) -> Iterable[dict[str, Any]]:
    """Groups of more than one topic, as places in the lists of the subtopology."""
    for group in plan.copartition_groups:
        names = {plan.full_name(topic) for topic in group}
        if len(names) > 1 and names <= {*sources, *repartitions}:
            yield {
                "source_topics": [place for place, topic in enumerate(sources) if topic in names],
                "source_topic_regex": [],
                "repartition_source_topics": [place for place, topic in enumerate(repartitions) if topic in names],
            }


def _topic(name: str, partitions: int, config: Mapping[str, str]) -> dict[str, Any]:
    return {"name": name, "partitions": partitions, "replication_factor": 0, "topic_configs": _pairs(config)}


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in sorted(values.items())]


def _flat(lists: Iterable[Any]) -> frozenset[TaskId]:
    return frozenset(TaskId(int(each.subtopology_id), number) for each in lists for number in each.partitions)


def _nested(tasks: Collection[TaskId]) -> list[dict[str, Any]]:
    return [
        {"subtopology_id": str(number), "partitions": [task.partition for task in group]}
        for number, group in groupby(sorted(tasks), key=lambda task: task.subtopology)
    ]


def _not_streams(said: str) -> str:
    return (
        f"{said} Workers with group_protocol='classic', or another consumer, use this group id: stop them all, or "
        "choose another application_id"
    )
