"""Who has which stores, and who has a key, as far as a worker was told."""

from __future__ import annotations

import pytest

from streamlib import StreamsBuilder
from streamlib.config import StreamsConfig
from streamlib.engine.plan import Plan, make_plan
from streamlib.errors import ConfigError, InvalidStateStoreError, SerializationError, UnknownStateStoreError
from streamlib.queries.metadata import key_metadata, streams_metadata
from streamlib.records import HostInfo, TaskId, TopicPartition
from streamlib.runtime.ports import MemberTasks


class Known:
    """What a worker knows; as `LocalStores`."""

    def __init__(self, plan: Plan, me: MemberTasks, *others: MemberTasks) -> None:
        self.plan = plan
        self.me = me
        self.others = others


def counting() -> Plan:
    builder = StreamsBuilder()
    builder.stream("in", key=str, value=str).group_by_key().count(store="counts")
    builder.global_table("rates", key=str, value=float, store="rates")
    return make_plan(builder.build(), "app", {"in": 4, "rates": 1})


ME = MemberTasks("a", "worker-a", "10.0.0.1:8080", (TaskId(0, 0), TaskId(0, 1)))
OTHER = MemberTasks("b", "worker-b", "10.0.0.2:8080", (TaskId(0, 2),), (TaskId(0, 0),))
OLD = MemberTasks("c", active=(TaskId(0, 3),))


def test_every_member_is_told_with_what_it_has() -> None:
    me, other, old = streams_metadata(Known(counting(), ME, OTHER, OLD))
    assert (me.is_local, me.worker_id, me.host_info) == (True, "worker-a", HostInfo("10.0.0.1", 8080))
    assert (me.active_tasks, me.state_store_names) == (("0_0", "0_1"), ("counts", "rates"))
    assert me.topic_partitions == (TopicPartition("in", 0), TopicPartition("in", 1))
    assert (other.is_local, other.standby_tasks) == (False, ("0_0",))
    assert other.standby_topic_partitions == (TopicPartition("in", 0),)
    assert (old.host_info, old.worker_id, old.active_tasks) == (None, "", ("0_3",))


def test_a_key_is_where_kafkas_partitioner_puts_it() -> None:
    known = Known(counting(), ME, OTHER, OLD)
    found = {
        key: key_metadata(known, "counts", key) for key in ("ann", "bob", "cid", "dan", "eve", "flo", "gus", "hal")
    }
    assert {each.partition for each in found.values()} == {0, 1, 2, 3}
    for each in found.values():
        hosts = {0: ME, 1: ME, 2: OTHER, 3: OLD}
        endpoint = hosts[each.partition].endpoint
        assert each.active is not None
        assert each.active_host == (HostInfo.parse(endpoint) if endpoint else None)
        assert each.standby_hosts == ((HostInfo("10.0.0.2", 8080),) if each.partition == 0 else ())


def test_a_task_on_its_way_has_no_active() -> None:
    found = key_metadata(Known(counting(), MemberTasks("a")), "counts", "ann")
    assert (found.active, found.active_host, found.standbys) == (None, None, ())


def test_a_partitioner_that_is_given_decides() -> None:
    found = key_metadata(Known(counting(), ME, OTHER), "counts", "ann", lambda key, partitions: len(key) % partitions)
    assert found.partition == 3
    with pytest.raises(InvalidStateStoreError, match="partitions 0 to 3; partitioner= says 7"):
        key_metadata(Known(counting(), ME), "counts", "ann", lambda key, partitions: 7)


def test_keys_that_the_topology_places_by_itself_are_not_guessed() -> None:
    builder = StreamsBuilder()
    words = builder.stream("in", key=str, value=str).repartition(name="mine", partitioner=lambda *_: 0)
    words.group_by_key().count(store="counts")
    plan = make_plan(builder.build(), "app", {"in": 4})
    with pytest.raises(InvalidStateStoreError, match="by a partitioner of its own"):
        key_metadata(Known(plan, ME), "counts", "ann")
    assert key_metadata(Known(plan, ME), "counts", "ann", lambda key, partitions: 0).partition == 0


@pytest.mark.parametrize(
    ("store", "key", "error", "says"),
    [
        ("count", "ann", UnknownStateStoreError, "no store 'count'; it has counts, rates"),
        ("rates", "ann", InvalidStateStoreError, "is global"),
        ("counts", 7, SerializationError, "7 is no key of it: .*; its keys are string"),
    ],
)
def test_what_cannot_be_asked_is_said(store: str, key: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        key_metadata(Known(counting(), ME), store, key)


def test_tasks_of_another_topology_are_passed_over() -> None:
    """In a rolling upgrade, say."""
    _, other = streams_metadata(Known(counting(), ME, MemberTasks("b", active=(TaskId(7, 0), TaskId(0, 2)))))
    assert other.active_tasks == ("0_2",)


@pytest.mark.parametrize(
    "server", ["8080", "host", "host:", "host:0", "host:70000", "a b:80", "http://host:80", "::1:80"]
)
def test_a_server_is_a_host_and_a_port(server: str) -> None:
    with pytest.raises(ConfigError, match=r"application_server: .* is not HOST:PORT"):
        StreamsConfig(application_id="app", application_server=server)


@pytest.mark.parametrize("server", ["host:80", "10.0.0.1:65535", "[::1]:80", "a-b.c_d:1"])
def test_a_server_prints_as_it_was_said(server: str) -> None:
    assert str(HostInfo.parse(server)) == server
