"""When a plan counts as outdated: topics that came, went or grew, as far as that can be believed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio
import pytest

from streamlib import StreamsBuilder
from streamlib.engine.plan import make_plan
from streamlib.errors import ErrorCode
from streamlib.records import TopicPartition
from streamlib.runtime.topic_watch import LOOKS_TO_BELIEVE, TopicWatch
from streamlib.runtime.wakeup import Wakeup
from tests.runtime.fakes import FakeAdmin, FakeBroker, Script, kafka_error, until


class Topics(FakeAdmin):
    """The cluster's topics; `looks` counts how often they were asked for."""

    def __init__(self, counts: dict[str, int]) -> None:
        super().__init__(Script(), FakeBroker())
        self.counts = counts
        self.looks = 0
        self.failure: Exception | None = None

    async def partition_counts(self, topics: Iterable[str]) -> dict[str, int]:
        self.looks += 1
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return {topic: self.counts[topic] for topic in topics if topic in self.counts}

    async def topics(self) -> dict[str, int]:
        return self.counts


@asynccontextmanager
async def watching(
    topics: Topics, source: str | re.Pattern[str] = "in", interval_ms: int = 1
) -> AsyncIterator[TopicWatch]:
    """A watch over a copy to `out` that looks every millisecond."""
    builder = StreamsBuilder()
    builder.stream(source).to("out")
    watch = TopicWatch(make_plan(builder.build(), "app", dict(topics.counts)), topics, interval_ms, Wakeup())
    async with anyio.create_task_group() as children:
        children.start_soon(watch.run)
        yield watch
        children.cancel_scope.cancel()


async def looked(topics: Topics, times: int = LOOKS_TO_BELIEVE + 1) -> None:
    """So many more looks, each of which was acted on."""
    wanted = topics.looks + times
    await until(lambda: topics.looks > wanted)


@pytest.mark.parametrize("topic", ["in", "out"])
async def test_a_topic_that_has_grown_makes_the_plan_outdated(topic: str) -> None:
    topics = Topics({"in": 2, "out": 2})
    async with watching(topics) as watch:
        await looked(topics)
        assert not watch.outdated
        topics.counts[topic] = 3
        await until(lambda: watch.outdated)


async def test_fewer_partitions_are_not_believed() -> None:
    """A broker that has just started does not know of all."""
    topics = Topics({"in": 2, "out": 2})
    async with watching(topics) as watch:
        topics.counts["in"] = 1
        await looked(topics)
        assert not watch.outdated


async def test_a_look_that_fails_is_repeated() -> None:
    topics = Topics({"in": 2, "out": 2})
    async with watching(topics) as watch:
        topics.failure = kafka_error(ErrorCode.NETWORK_EXCEPTION)
        await until(lambda: topics.failure is None)
        topics.counts["in"] = 3
        await until(lambda: watch.outdated)


async def test_other_topics_of_the_cluster_are_nobody_s_business() -> None:
    topics = Topics({"in": 2, "out": 2, "other": 2})
    async with watching(topics, re.compile("in.*")) as watch:
        topics.counts |= {"other": 5, "another": 1}
        await looked(topics)
        assert not watch.outdated
        topics.counts["in-2"] = 1
        await until(lambda: watch.outdated)


async def test_a_topic_of_a_pattern_has_gone_when_several_looks_say_so() -> None:
    topics = Topics({"in": 2, "in-2": 2, "out": 2})
    async with watching(topics, re.compile("in.*")) as watch:
        del topics.counts["in-2"]
        await until(lambda: watch.outdated)
        assert topics.looks >= LOOKS_TO_BELIEVE


@pytest.mark.parametrize(
    ("source", "partition", "outdated"),
    [
        ("in", TopicPartition("in", 1), False),
        ("in", TopicPartition("in", 2), True),
        ("in", TopicPartition("theirs", 0), False),  # another topology's: no new plan would have it
        (re.compile("in"), TopicPartition("theirs", 0), True),
    ],
    ids=str,
)
async def test_a_leader_that_knows_of_more_is_believed(
    source: str | re.Pattern[str], partition: TopicPartition, outdated: bool
) -> None:
    async with watching(Topics({"in": 2, "out": 2}), source) as watch:
        assert watch.assigned([TopicPartition("in", 0), partition]) is outdated


@pytest.mark.parametrize(
    ("source", "read", "looks"),
    [("in", "theirs", False), (re.compile("in.*"), "in-2", True), (re.compile("in.*"), "in", False)],
)
async def test_a_topic_that_another_member_reads_is_looked_for_at_once(
    source: str | re.Pattern[str], read: str, looks: bool
) -> None:
    topics = Topics({"in": 2, "out": 2})
    async with watching(topics, source, interval_ms=1_000_000) as watch:
        await anyio.sleep(0.01)
        topics.counts["in-2"] = 2
        watch.heard_of([read])
        await anyio.sleep(0.01)
        assert (topics.looks == 1) is looks
        assert watch.outdated is looks


async def test_only_what_a_pattern_finds_may_be_unknown_to_a_leader() -> None:
    async with watching(Topics({"in": 2, "in-2": 2, "out": 2}), re.compile("in.*")) as watch:
        assert watch.may_be_unknown([TopicPartition("in-2", 0)])
        assert not watch.may_be_unknown([TopicPartition("in-2", 0), TopicPartition("out", 0)])
    async with watching(Topics({"in": 2, "out": 2})) as watch:
        assert not watch.may_be_unknown([TopicPartition("in-2", 0)])
