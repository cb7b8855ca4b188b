"""What a topology becomes on topics of given sizes."""

from __future__ import annotations

import pytest

from streamlib.engine.plan import make_plan, sink_topics, source_topics
from streamlib.errors import TopologyError
from streamlib.records import TaskId, TopicPartition
from streamlib.topology import operators as op
from streamlib.topology.nodes import Node, RepartitionTopic
from streamlib.topology.topology import Topology
from tests.engine.support import build, processor, sink, source, timestamped


def regrouped(partitions: int | None = None) -> Topology:
    """in -> words-repartition -> count -> out."""
    return build(
        [
            source("first", "in"),
            processor("rekey", op.SelectKey(lambda k, v: v), "first"),
            sink("rekey", "words-repartition", "through"),
            source("second", "words-repartition"),
            processor("count", op.StreamCount("counts"), "second", "counts"),
            processor("stream", op.TableToStream(), "count"),
            sink("stream"),
        ],
        [timestamped("counts", changelog_config={"retention.ms": "1"}), timestamped("unused", changelog=False)],
        [RepartitionTopic(name="words-repartition", partitions=partitions)],
    )


def test_topics_named_by_the_user_are_those_that_must_exist() -> None:
    assert source_topics(regrouped()) == ("in",)
    assert sink_topics(regrouped()) == ("out",)


def test_a_missing_topic_is_named() -> None:
    with pytest.raises(TopologyError, match="do not exist: in: create"):
        make_plan(regrouped(), "app", {})


def test_a_plan_knows_tasks_inputs_and_internal_topics() -> None:
    plan = make_plan(regrouped(), "app", {"in": 2})
    assert plan.tasks == (TaskId(0, 0), TaskId(0, 1), TaskId(1, 0), TaskId(1, 1))
    assert plan.topics == {"in", "app-words-repartition"}
    assert plan.repartition_topics == {"app-words-repartition": 2}
    assert plan.changelog_topics == {"app-counts-changelog": (2, {"cleanup.policy": "compact", "retention.ms": "1"})}
    assert plan.partition_counts == {"in": 2, "app-words-repartition": 2}
    assert plan.inputs(TaskId(1, 1)) == (TopicPartition("app-words-repartition", 1),)
    assert plan.changelogs(TaskId(1, 1)) == {TopicPartition("app-counts-changelog", 1): "counts"}
    assert plan.changelogs(TaskId(0, 0)) == {}
    assert [spec.name for spec in plan.stores(TaskId(1, 0))] == ["counts"]
    assert all(plan.task_of(partition) == task for task in plan.tasks for partition in plan.inputs(task))


def test_an_explicit_partition_count_holds() -> None:
    plan = make_plan(regrouped(5), "app", {"in": 2})
    assert plan.repartition_topics == {"app-words-repartition": 5}
    assert len(plan.tasks) == 2 + 5


def test_a_repartition_topic_is_read_from_the_start() -> None:
    plan = make_plan(regrouped(), "app", {"in": 2})
    assert plan.offset_reset(TopicPartition("app-words-repartition", 0)) == "earliest"
    assert plan.offset_reset(TopicPartition("in", 0)) is None
    latest = build([source(offset_reset="latest"), sink("source")])
    assert make_plan(latest, "app", {"in": 1}).offset_reset(TopicPartition("in", 0)) == "latest"


def chain() -> list[Node]:
    return [
        source("s0", "in"),
        sink("s0", "a-repartition", "k0"),
        source("s1", "a-repartition"),
        sink("s1", "b-repartition", "k1"),
        source("s2", "b-repartition"),
        sink("s2", "out", "k2"),
    ]


def test_chains_of_repartition_topics_take_the_size_of_what_feeds_the_first() -> None:
    topology = build(chain(), (), [RepartitionTopic(name="b-repartition"), RepartitionTopic(name="a-repartition")])
    plan = make_plan(topology, "app", {"in": 3})
    assert plan.repartition_topics == {"app-a-repartition": 3, "app-b-repartition": 3}


def test_the_largest_source_counts() -> None:
    nodes = [source("s", "in", "more"), sink("s", "a-repartition", "k"), source("t", "a-repartition")]
    topology = build(nodes, (), [RepartitionTopic(name="a-repartition")])
    plan = make_plan(topology, "app", {"in": 3, "more": 7})
    assert plan.repartition_topics == {"app-a-repartition": 7}
    assert plan.inputs(TaskId(0, 5)) == (TopicPartition("more", 5),)


def test_topics_that_feed_each_other_need_a_number() -> None:
    nodes = [
        source("s1", "a-repartition"),
        sink("s1", "b-repartition", "k1"),
        source("s2", "b-repartition"),
        sink("s2", "a-repartition", "k2"),
    ]
    topology = build(nodes, (), [RepartitionTopic(name="a-repartition"), RepartitionTopic(name="b-repartition")])
    with pytest.raises(TopologyError, match="depend on each other"):
        make_plan(topology, "app", {})


def joined(*repartition: RepartitionTopic) -> Topology:
    """`in`, rekeyed, is joined with the table of `rows`."""
    nodes = [
        source("s", "in"),
        sink("s", "a-repartition", "k"),
        source("left", "a-repartition"),
        source("right", "rows"),
        processor("table", op.TableSource("rows"), "right", "rows"),
        processor("join", op.StreamTableJoin("table", lambda a, b: a), "left", "rows"),
        sink("join"),
    ]
    return build(nodes, [timestamped("rows")], repartition, [("a-repartition", "rows")])


def test_a_repartition_topic_follows_what_it_is_joined_with() -> None:
    plan = make_plan(joined(RepartitionTopic(name="a-repartition")), "app", {"in": 8, "rows": 3})
    assert plan.repartition_topics == {"app-a-repartition": 3}


def test_an_explicit_count_that_does_not_fit_the_join_is_refused() -> None:
    topology = joined(RepartitionTopic(name="a-repartition", partitions=4))
    with pytest.raises(TopologyError, match=r"app-a-repartition \(4 partitions\) and rows \(3 partitions\)"):
        make_plan(topology, "app", {"in": 8, "rows": 3})


def test_topics_that_are_joined_need_the_same_partitions() -> None:
    nodes = [
        source("left", "in"),
        source("right", "rows"),
        processor("table", op.TableSource("rows"), "right", "rows"),
        processor("join", op.StreamTableJoin("table", lambda a, b: a), "left", "rows"),
    ]
    topology = build(nodes, [timestamped("rows")], (), [("in", "rows")])
    with pytest.raises(
        TopologyError, match=r"in \(2 partitions\) and rows \(3 partitions\).*\.repartition\(partitions=3\) between in"
    ):
        make_plan(topology, "app", {"in": 2, "rows": 3})


def test_repartition_topics_joined_with_each_other_take_the_larger_size() -> None:
    nodes = [
        source("s1", "in"),
        sink("s1", "a-repartition", "k1"),
        source("s2", "more"),
        sink("s2", "b-repartition", "k2"),
        source("left", "a-repartition"),
        source("right", "b-repartition"),
        processor("table", op.StreamToTable("rows"), "right", "rows"),
        processor("join", op.StreamTableJoin("table", lambda a, b: a), "left", "rows"),
    ]
    repartition = [RepartitionTopic(name="a-repartition"), RepartitionTopic(name="b-repartition")]
    topology = build(nodes, [timestamped("rows")], repartition, [("a-repartition", "b-repartition")])
    plan = make_plan(topology, "app", {"in": 2, "more": 6})
    assert set(plan.repartition_topics.values()) == {6}


def test_the_fingerprint_is_the_topologys_and_stays() -> None:
    plan = make_plan(regrouped(), "app", {"in": 2})
    assert plan.fingerprint == make_plan(regrouped(), "app", {"in": 2, "out": 9}).fingerprint
    others = [make_plan(regrouped(3), "app", {"in": 2}), make_plan(regrouped(), "other", {"in": 2})]
    assert plan.fingerprint not in {other.fingerprint for other in others}


def test_counts_spread_through_joins_that_share_a_topic() -> None:
    nodes = [
        source("s1", "in"),
        sink("s1", "a-repartition", "k1"),
        sink("s1", "b-repartition", "k2"),
        source("a", "a-repartition"),
        source("b", "b-repartition"),
        source("rows", "rows"),
    ]
    repartition = [RepartitionTopic(name="a-repartition"), RepartitionTopic(name="b-repartition")]
    groups = [("b-repartition", "a-repartition"), ("a-repartition", "rows")]
    plan = make_plan(build(nodes, (), repartition, groups), "app", {"in": 9, "rows": 4})
    assert plan.repartition_topics == {"app-a-repartition": 4, "app-b-repartition": 4}
