"""Membership in a streams group against a real coordinator (KIP-1071)."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import msgspec
import pytest

from streamlib import StreamsBuilder
from streamlib.config import StreamsConfig
from streamlib.engine.plan import Plan
from streamlib.errors import (
    ConfigError,
    ConnectionFailedError,
    ErrorCode,
    KafkaError,
    StreamsError,
    TopologyError,
    UnsupportedBrokerError,
)
from streamlib.kafka.admin import KafkaAdmin
from streamlib.kafka.client import ClientSettings, KafkaClient
from streamlib.kafka.connection import Connection
from streamlib.kafka.group import KafkaGroup
from streamlib.kafka.streams_group import KafkaStreamsGroup, StreamsMember, described
from streamlib.records import GroupMetadata, HostInfo, OffsetAndMetadata, TaskId, TopicPartition
from streamlib.runtime.assignor import Instructions, instructions_of
from streamlib.runtime.ports import Assignment, MemberTasks, Subscription
from streamlib.runtime.wiring import plan_and_prepare
from streamlib.testing.plugin import KafkaTarget, KafkaTargets
from streamlib.topology.topology import Topology

UniqueName = Callable[[str], str]
PATIENCE_S = 20
GROUP_RESOURCE = 32

pytestmark = pytest.mark.broker


class Member:
    """One member with connections of its own: what it holds, and what it was told last."""

    def __init__(
        self, client: KafkaClient, plan: Plan, member_id: str, process: str, endpoint: HostInfo | None = None
    ) -> None:
        self.client = client
        who = StreamsMember(member_id, process, endpoint=endpoint)
        self.group = KafkaStreamsGroup(client, plan, who, session_timeout_ms=4_000, rebalance_timeout_ms=20_000)
        self.hosts: tuple[MemberTasks, ...] = ()
        self.id = member_id
        self.plan = plan
        self.epoch = -1
        self.held: frozenset[TaskId] = frozenset()
        self.told: frozenset[TaskId] = frozenset()
        self.instructions = Instructions()

    async def join(self) -> None:
        """Claim what it holds and hear what it is told; it does not take on or give back anything."""
        owned = tuple(p for task in sorted(self.held) for p in self.plan.inputs(task))
        joined = await self.group.join("", Subscription((), owned, self.epoch))
        assert (joined.member_id, joined.leads, joined.consecutive) == (self.id, False, False)
        self.epoch = joined.generation
        assignment = await self.group.sync(self.epoch, self.id, {})
        self.told = frozenset(map(self.plan.task_of, assignment.partitions))
        assert set(assignment.partitions) == {p for task in self.told for p in self.plan.inputs(task)}
        self.instructions = instructions_of(assignment)
        self.hosts = tuple(self.instructions.hosts)

    async def beat(self) -> int:
        return await refusal(self._beat())

    async def _beat(self) -> None:
        hosts = await self.group.heartbeat(self.epoch, self.id)
        self.hosts = self.hosts if hosts is None else hosts

    async def obey(self) -> None:
        """One round of what a worker does: beat, join if there is news, take on, give back."""
        if self.epoch < 0 or await self.beat() == ErrorCode.REBALANCE_IN_PROGRESS:
            await self.join()
        if self.held - self.told:
            self.held &= self.told
            await self.join()
        self.held = self.told

    @property
    def who(self) -> GroupMetadata:
        return GroupMetadata(self.plan.application_id, self.epoch, self.id, None)


class Bench:
    """An application on the broker, and its members."""

    def __init__(self, client: KafkaClient, admin: KafkaAdmin, name: str) -> None:
        self.client = client
        self.admin = admin
        self.name = name
        self.members: list[Member] = []

    async def plan(self, topology: Topology, partitions: int = 4, *topics: str) -> Plan:
        for topic in topics or ("in",):
            await self.admin.create_topic(f"{self.name}-{topic}", partitions)
        config = StreamsConfig(application_id=self.name)
        return await plan_and_prepare(topology, config, self.admin)

    async def member(
        self,
        plan: Plan,
        member_id: str | None = None,
        process: str | None = None,
        endpoint: HostInfo | None = None,
    ) -> Member:
        client = await KafkaClient.connect(self.client.settings)
        self.members.append(Member(client, plan, member_id or uuid.uuid4().hex, process or uuid.uuid4().hex, endpoint))
        return self.members[-1]

    async def until(self, holds: Callable[[], bool], *members: Member) -> None:
        """Let the members obey, each in its turn; nobody may ever hold what another one holds."""
        with anyio.fail_after(PATIENCE_S):
            while not holds():
                for member in members:
                    await member.obey()
                    held = [task for each in members for task in each.held]
                    assert len(held) == len(set(held)), "a task with two owners"
                await anyio.sleep(0.02)

    async def settle(self, *members: Member) -> None:
        """Until all tasks are held."""
        plan = members[0].plan
        fair = len(plan.tasks) // len(members)
        await self.until(
            lambda: sum(len(m.held) for m in members) == len(plan.tasks) and min(len(m.held) for m in members) >= fair,
            *members,
        )


@pytest.fixture
async def bench(streams_kafka: KafkaTarget, unique_name: UniqueName) -> AsyncIterator[Bench]:
    settings = ClientSettings(bootstrap_servers=streams_kafka.bootstrap_servers, delivery_timeout_ms=20_000)
    client = await KafkaClient.connect(settings)
    bench = Bench(client, KafkaAdmin(client), unique_name("streams"))
    yield bench
    for member in bench.members:
        await member.client.close()
    await client.close()


def counter(name: str) -> Topology:
    builder = StreamsBuilder()
    builder.stream(f"{name}-in", key=str, value=str).group_by_key().count(store="counts")
    return builder.build()


def regrouped(name: str) -> Topology:
    """A count behind a repartition topic."""
    builder = StreamsBuilder()
    lines = builder.stream(f"{name}-in", key=str, value=str)
    lines.group_by(lambda _, word: word, key=str, value=str, name="word").count(store="counts")
    return builder.build()


async def refusal(request: Awaitable[object]) -> int:
    """The code that a request is refused with, 0 if it is not."""
    try:
        await request
    except KafkaError as error:
        return error.code
    return 0


async def describe(bench: Bench) -> Any:
    node = await bench.client.coordinator(bench.name, "group")
    body = {"group_ids": [bench.name], "include_authorized_operations": False}
    return (await bench.client.call("StreamsGroupDescribe", body, node=node)).groups[0]


async def test_a_sole_member_gets_every_task(bench: Bench) -> None:
    plan = await bench.plan(regrouped(bench.name))
    member = await bench.member(plan)
    await bench.settle(member)
    assert member.held == set(plan.tasks)
    assert await member.beat() == 0
    group = await describe(bench)
    assert group.group_state == "Stable"
    assert [each.member_id for each in group.members] == [member.id]
    assert {sub.subtopology_id for sub in group.topology.subtopologies} == {"0", "1"}


async def test_members_share_and_a_leaver_gives_back(bench: Bench) -> None:
    plan = await bench.plan(counter(bench.name))
    one, two, three = [await bench.member(plan) for _ in range(3)]
    await bench.settle(one)
    await bench.settle(one, two)
    await bench.settle(one, two, three)
    await two.group.leave(two.id)
    two.held = frozenset()
    await bench.settle(one, three)
    assert one.held | three.held == set(plan.tasks)
    await two.group.leave(two.id)  # once more is no error


async def test_members_hear_who_has_what(bench: Bench) -> None:
    """All of them, also one that has no endpoint; and nothing is said twice."""
    plan = await bench.plan(regrouped(bench.name))
    one = await bench.member(plan, endpoint=HostInfo("10.0.0.1", 8080))
    two = await bench.member(plan, endpoint=HostInfo("10.0.0.2", 8080))
    silent = await bench.member(plan)
    await bench.settle(one)
    await bench.until(lambda: one.hosts == (tasks_of(one),), one)
    await bench.settle(one, two, silent)
    everybody = (one, two, silent)
    await bench.until(lambda: all(each.hosts == (tasks_of(one), tasks_of(two)) for each in everybody), *everybody)
    assert await one.group.heartbeat(one.epoch, one.id) is None
    await two.group.leave(two.id)
    two.held = frozenset()
    await bench.settle(one, silent)
    await bench.until(lambda: silent.hosts == one.hosts == (tasks_of(one),), one, silent)


def tasks_of(member: Member) -> MemberTasks:
    endpoint = str(member.group._member.endpoint)
    return MemberTasks(endpoint=endpoint, active=tuple(sorted(member.held)))


async def test_a_task_is_free_when_a_claim_leaves_it_out_and_not_before(bench: Bench) -> None:
    plan = await bench.plan(counter(bench.name))
    one, two = await bench.member(plan), await bench.member(plan)
    await bench.settle(one)
    await two.join()
    with anyio.fail_after(PATIENCE_S):
        while one.told == one.held:
            if await one.beat() == ErrorCode.REBALANCE_IN_PROGRESS:
                await one.join()  # claims all that it holds: it works on it
    for _ in range(5):
        await one.beat()
        await one.join()
        await two.obey()
        assert not two.held
    one.held = one.told
    await one.join()
    await bench.settle(one, two)
    assert len(two.held) == 2


async def test_offsets_carry_the_members_epoch(bench: Bench) -> None:
    plan = await bench.plan(counter(bench.name))
    one, two = await bench.member(plan), await bench.member(plan)
    await bench.settle(one)
    first = one.who
    inputs = [TopicPartition(f"{bench.name}-in", number) for number in range(4)]
    offsets = {partition: OffsetAndMetadata(7, "text") for partition in inputs}
    await one.group.commit_offsets(first, offsets)
    assert await one.group.fetch_offsets(inputs) == offsets
    await bench.settle(one, two)
    (moved, *_), (kept, *_) = ([p for task in m.held for p in plan.inputs(task)] for m in (two, one))
    await one.group.commit_offsets(first, {kept: OffsetAndMetadata(8)})  # no race while the epoch moves
    for late, partition in ((first, moved), (one.who._replace(generation=one.epoch + 1), kept)):
        again = one.group.commit_offsets(late, {partition: OffsetAndMetadata(9)})
        assert await refusal(again) == ErrorCode.ILLEGAL_GENERATION
    unknown = one.who._replace(member_id="nobody")
    assert await refusal(one.group.commit_offsets(unknown, offsets)) == ErrorCode.UNKNOWN_MEMBER_ID
    assert (await one.group.fetch_offsets([moved]))[moved].offset == 7


async def test_a_silent_member_is_forgotten_and_cannot_commit(bench: Bench) -> None:
    plan = await bench.plan(counter(bench.name))
    one, two = await bench.member(plan), await bench.member(plan)
    await bench.settle(one, two)
    two.held = frozenset()  # for the bench: what it says of itself no longer counts
    await bench.until(lambda: len(one.held) == 4, one)
    offsets = {TopicPartition(f"{bench.name}-in", 0): OffsetAndMetadata(1)}
    assert await refusal(two.group.commit_offsets(two.who, offsets)) == ErrorCode.UNKNOWN_MEMBER_ID
    assert await two.beat() == ErrorCode.UNKNOWN_MEMBER_ID
    two.epoch = -1
    await bench.settle(one, two)


async def test_a_member_that_comes_back_has_its_tasks_at_once(bench: Bench) -> None:
    plan = await bench.plan(counter(bench.name))
    one, two = await bench.member(plan), await bench.member(plan)
    await bench.settle(one, two)
    again = await bench.member(plan, two.id)
    await again.join()
    assert again.told == two.held


async def test_an_epoch_that_is_not_the_coordinators_is_fenced(bench: Bench) -> None:
    plan = await bench.plan(counter(bench.name))
    member = await bench.member(plan)
    await bench.settle(member)
    member.group._epoch += 5
    assert await member.beat() == ErrorCode.FENCED_MEMBER_EPOCH
    member.held, member.epoch = frozenset(), -1
    await bench.settle(member)


@pytest.mark.parametrize("round_trip", range(8))
async def test_an_answer_that_is_lost_is_made_up_for(
    bench: Bench, round_trip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = await bench.plan(regrouped(bench.name), 2)
    one, two = await bench.member(plan), await bench.member(plan)
    await bench.settle(one)
    for member in (one, two):
        lose_answer(member, round_trip, monkeypatch)
    await bench.settle(one, two)
    assert not one.group._unheard
    await two.group.leave(two.id)
    two.held = frozenset()
    lose_answer(one, round_trip, monkeypatch)
    await bench.settle(one)


def lose_answer(member: Member, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator does what the n-th heartbeat from now asks for, and the member never hears of it."""
    call, left = member.client.call, nth

    async def lossy(api: str, body: Any, **options: Any) -> Any:
        nonlocal left
        answer = await call(api, body, **options)
        if api == "StreamsGroupHeartbeat" and body["member_epoch"] >= 0:
            left -= 1
            if left == -1:
                raise ConnectionFailedError(api, "", "the answer was lost on purpose")
        return answer

    monkeypatch.setattr(member.client, "call", lossy)


async def test_standbys_are_a_setting_of_the_group(bench: Bench) -> None:
    plan = await bench.plan(counter(bench.name))
    await set_group(bench, "streams.num.standby.replicas", "1")
    one, two = await bench.member(plan), await bench.member(plan)
    await bench.settle(one, two)
    await bench.until(lambda: all(len(member.instructions.standby) == 2 for member in (one, two)), one, two)
    assert set(one.instructions.standby) == two.held
    assert set(two.instructions.standby) == one.held
    lose = frozenset(one.instructions.standby)
    await two.group.leave(two.id)
    two.held = frozenset()
    await bench.settle(one)
    assert lose <= one.held
    assert one.instructions.standby == []


async def set_group(bench: Bench, name: str, value: str) -> None:
    change = {"name": name, "config_operation": 0, "value": value}
    resource = {"resource_type": GROUP_RESOURCE, "resource_name": bench.name, "configs": [change]}
    answer = await bench.client.call("IncrementalAlterConfigs", {"resources": [resource]})
    assert answer.responses[0].error_code == 0, answer.responses[0].error_message


async def test_another_topology_is_refused(bench: Bench) -> None:
    member = await bench.member(await bench.plan(counter(bench.name)))
    await bench.settle(member)
    other = await bench.member(await plan_and_prepare(regrouped(bench.name), config(bench), bench.admin))
    with pytest.raises(TopologyError, match="use a new application_id"):
        await other.join()


async def test_a_group_that_all_have_left_takes_the_other_protocol_and_then_another_topology(bench: Bench) -> None:
    """As `docs/pages/streams-protocol.md` says: offsets, with what belongs to them, stay."""
    member = await bench.member(await bench.plan(counter(bench.name)))
    await bench.settle(member)
    inputs = [TopicPartition(f"{bench.name}-in", number) for number in range(4)]
    offsets = {partition: OffsetAndMetadata(7, "time") for partition in inputs}
    await member.group.commit_offsets(member.who, offsets)
    await member.group.leave(member.id)

    other = await bench.member(await plan_and_prepare(regrouped(bench.name), config(bench), bench.admin))
    with pytest.raises(TopologyError):
        await other.join()

    classic = classic_member(bench)
    joined = await classic.join("", Subscription((f"{bench.name}-in",)))
    await classic.sync(joined.generation, joined.member_id, {joined.member_id: Assignment(())})
    assert await classic.fetch_offsets(inputs) == offsets
    await classic.leave(joined.member_id)

    await bench.settle(other)
    assert await other.group.fetch_offsets(inputs) == offsets


def classic_member(bench: Bench) -> KafkaGroup:
    return KafkaGroup(
        bench.client,
        bench.name,
        instance_id=None,
        session_timeout_ms=10_000,
        rebalance_timeout_ms=10_000,
        protocol="test",
    )


async def test_workers_of_the_classic_protocol_are_told_apart(bench: Bench) -> None:
    plan = await bench.plan(counter(bench.name))
    classic = classic_member(bench)
    joined = await classic.join("", Subscription((f"{bench.name}-in",)))
    await classic.sync(joined.generation, joined.member_id, {joined.member_id: Assignment(())})
    member = await bench.member(plan)
    with pytest.raises(KafkaError, match="use this group id") as refused:
        await member.join()
    assert refused.value.code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    await classic.leave(joined.member_id)
    await bench.settle(member)  # the group is empty, and becomes a streams group
    assert await refusal(classic.join("", Subscription((f"{bench.name}-in",)))) == ErrorCode.INCONSISTENT_GROUP_PROTOCOL


async def test_tasks_that_the_plan_does_not_have_are_an_error(bench: Bench) -> None:
    builder = StreamsBuilder()
    builder.stream(f"{bench.name}-in", key=str, value=str).foreach(lambda key, value: None)
    member = await bench.member(await bench.plan(builder.build(), 2))
    await bench.settle(member)
    await bench.admin.create_partitions(f"{bench.name}-in", 3)
    with pytest.raises(TopologyError, match="task 0_2, which did not exist"):
        await bench.until(lambda: False, member)


async def test_more_partitions_than_the_changelogs_have_end_all_work(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await bench.member(await bench.plan(counter(bench.name), 2))
    await bench.settle(member)
    await bench.admin.create_partitions(f"{bench.name}-in", 3)
    await bench.until(lambda: not member.held, member)
    monkeypatch.setattr("streamlib.kafka.streams_group.TOPICS_PATIENCE_S", 0)
    with pytest.raises(TopologyError, match=f"{bench.name}-counts-changelog"):
        await bench.until(lambda: False, member)


async def test_topics_that_are_missing_are_waited_for_but_not_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await bench.member(await bench.plan(counter(bench.name)))
    await bench.settle(member)
    await bench.admin.delete_topics([f"{bench.name}-in"])
    await bench.until(lambda: not member.held, member)
    monkeypatch.setattr("streamlib.kafka.streams_group.TOPICS_PATIENCE_S", 0)
    with pytest.raises(TopologyError, match=f"{bench.name}-in"):
        await bench.until(lambda: False, member)


async def test_whoever_is_told_to_shut_down_stops(bench: Bench) -> None:
    plan = await bench.plan(counter(bench.name))
    one, two = await bench.member(plan), await bench.member(plan)
    await bench.settle(one, two)
    node = await bench.client.coordinator(bench.name, "group")
    who = {"group_id": bench.name, "member_id": two.id, "member_epoch": two.epoch, "endpoint_information_epoch": -1}
    await bench.client.call("StreamsGroupHeartbeat", who | {"shutdown_application": True}, node=node)
    with pytest.raises(StreamsError, match="is told to stop"):
        await one.beat()


async def test_brokers_without_the_feature_are_told_from_old_ones(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await bench.member(await bench.plan(counter(bench.name)))
    call = member.client.call

    async def disabled(api: str, body: Any, **options: Any) -> Any:
        answer = await call(api, body, **options)
        if api == "StreamsGroupHeartbeat":
            answer.error_code = ErrorCode.UNSUPPORTED_VERSION
        return answer

    monkeypatch.setattr(member.client, "call", disabled)
    with pytest.raises(UnsupportedBrokerError, match=r"kafka-features\.sh upgrade --feature streams\.version=1"):
        await member.join()


async def test_an_old_broker_is_refused_before_anything_starts(
    kafka_brokers: KafkaTargets, bench: Bench, request: pytest.FixtureRequest
) -> None:
    old = next(v for v in (*request.config.getini("kafka_versions"), "3.9.2") if v.startswith("3."))
    classic = StreamsConfig(application_id=bench.name, bootstrap_servers=kafka_brokers(old).bootstrap_servers)
    with pytest.raises(UnsupportedBrokerError, match=r"Kafka 4\.2 or newer.*group_protocol='classic'"):
        await Connection.open(msgspec.structs.replace(classic, group_protocol="streams"))
    await (await Connection.open(classic)).close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group_instance_id": "w"}, "group_instance_id does not go with group_protocol='streams'"),
        (
            {"num_standby_replicas": 1},
            "kafka-configs.sh --alter --group app --add-config streams.num.standby.replicas=1",
        ),
        (
            {"rack_aware_assignment_tags": ("zone",), "client_tags": {"zone": "a"}},
            "rack_aware_assignment_tags does not go with",
        ),
        ({"group_protocol": "consumer"}, "group_protocol has to be 'classic' or 'streams', not 'consumer'"),
    ],
)
def test_what_the_brokers_decide_cannot_be_set(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        StreamsConfig.load({"application_id": "app", "group_protocol": "streams"} | settings, env={})
    assert message in str(raised.value)


def config(bench: Bench) -> StreamsConfig:
    return StreamsConfig(application_id=bench.name, bootstrap_servers=bench.client.settings.bootstrap_servers)


async def test_the_coordinator_takes_the_partitions_of_the_plan(bench: Bench) -> None:
    """By itself it would give the second repartition topic as many as the first input has, 5."""
    builder = StreamsBuilder()
    left = builder.stream(f"{bench.name}-in", key=str, value=str).select_key(lambda key, value: value, key=str)
    right = builder.table(f"{bench.name}-other", key=str, value=str)
    left.join(right, lambda a, b: a + b).group_by(lambda k, v: v, key=str, value=str, name="again").count(
        store="counts"
    )
    await bench.admin.create_topic(f"{bench.name}-other", 3)
    plan = await bench.plan(builder.build(), 5)
    member = await bench.member(plan)
    await bench.settle(member)
    told = described(plan)["subtopologies"]
    joined = next(sub for sub in told if f"{bench.name}-other" in sub["source_topics"])
    assert joined["copartition_groups"] == [
        {"source_topics": [0], "source_topic_regex": [], "repartition_source_topics": [0]}
    ]
    assert [topic["partitions"] for sub in told for topic in sub["repartition_source_topics"]] == [3, 3]
    group = await describe(bench)
    counts = {t.name: t.partitions for sub in group.topology.subtopologies for t in sub.repartition_source_topics}
    assert counts == plan.repartition_topics
