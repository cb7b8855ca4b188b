"""Topics that are seen late, seen wrongly, or go away while the application runs."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from streamlib import TopologyError
from streamlib.errors import ErrorCode
from streamlib.kafka.protocol.schema import Api
from streamlib.records import GroupMetadata, OffsetAndMetadata, TopicPartition
from tests.errors.application import Running, Site, until_spent
from tests.errors.injection import Faults, altered
from tests.errors.together import Case, Verdicts, cases, cases_of
from tests.exactly_once.harness import PARTITIONS, numbered
from tests.exactly_once.topologies import by_pattern

SHORT: dict[str, Any] = {"delivery_timeout_ms": 3000, "request_timeout_ms": 1500}


def no_partitions(body: Any, api: Api) -> None:
    """As a broker answers that has heard of the topic, and of nothing in it."""
    for topic in body.topics:
        topic.partitions = []


def unknown(body: Any, api: Api) -> None:
    for topic in body.topics:
        topic.error_code, topic.partitions = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, []


def asks_for_topics(body: Any) -> bool:
    """The first request of a client asks for brokers only."""
    return bool(body["topics"])


async def a_topic_that_a_broker_has_not_heard_of_yet_is_asked_for_again(ground: Site, seen: Any) -> None:
    faults = Faults()
    faults.add("Metadata", altered(seen), times=2, when=asks_for_topics)
    worker = await ground.running(faults)
    await ground.finish(worker)


async def a_topic_that_stays_unknown_is_named(ground: Site, seen: Any) -> None:
    faults = Faults()
    faults.add("Metadata", altered(seen), times=None, when=asks_for_topics)
    worker = ground.start(faults)
    await worker.ended()
    assert isinstance(worker.error, TopologyError)
    assert ground.bench.sink in str(worker.error)


async def partitions_that_vanish_from_the_metadata_for_a_while_are_not_believed_to_have_gone(
    ground: Site, seen: Any
) -> None:
    """Leaders move meanwhile, so the metadata is asked for, and the transactions go on."""
    faults = Faults()
    worker = await ground.running(faults)
    faults.forget()
    fault = faults.add("Metadata", altered(seen), times=None, when=asks_for_topics)
    for _ in range(4):
        faults.cut_all()
        await ground.produce(numbered(4))
        assert await ground.until_all_committed(worker), worker.error
    assert fault.hits
    faults.heal()
    await ground.finish(worker)


async def a_pattern_s_topic_that_vanishes_from_the_metadata_for_a_while_is_read_on(ground: Site, seen: Any) -> None:
    """What a pattern matches is looked up from time to time; one answer is not enough to believe that it is less."""
    faults = Faults()
    await ground.bench.create_topic(f"{ground.bench.source}-more")
    worker = await ground.running(faults, metadata_max_age_ms=200)
    for _ in range(3):
        fault = faults.add("Metadata", altered(seen), times=2, when=lambda body: body["topics"] is None)
        await ground.produce(numbered(4))
        assert await until_spent(fault, worker), worker.error
        await asyncio.sleep(0.5)  # a look that finds it
        assert worker.alive, worker.error
        faults.heal()
        await ground.produce(numbered(4))
        assert await ground.until_all_committed(worker), worker.error
    await ground.finish(worker)


async def a_source_that_is_deleted_stops_the_worker_and_is_named(ground: Site) -> None:
    worker = await ground.running(Faults(), **SHORT)
    await ground.bench.connection.admin().delete_topics([ground.bench.source])
    await worker.ended()
    assert_names_topic(worker, ground.bench.source)


async def a_sink_that_is_deleted_stops_the_worker_and_is_named(ground: Site) -> None:
    worker = await ground.running(Faults(), **SHORT)
    admin = ground.bench.connection.admin()
    await admin.delete_topics([ground.bench.sink])
    while ground.bench.sink in await admin.topics():  # the answer comes before the broker lets go of it
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    await ground.produce(numbered(8))
    await worker.ended()
    assert_names_topic(worker, ground.bench.sink)
    assert sum((await ground.bench.committed()).values()) == 8
    await ground.bench.create_topic(ground.bench.sink)
    again = ground.start()
    assert await ground.until_all_committed(again), again.error
    assert await again.stop() is None
    counts = sorted((str(record.key), record.value) for record in await ground.bench.read())
    assert counts == [(key, count) for key in "abcd" for count in (3, 4)], "the state knows of what was deleted"


def assert_names_topic(worker: Running, topic: str) -> None:
    assert worker.refusal.code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    for part in (topic, "check that the topic exists"):
        assert part in str(worker.refusal)


async def a_source_that_is_deleted_and_made_anew_is_read_from_its_start(ground: Site) -> None:
    """The broker forgets the committed offsets with the topic."""
    worker = await ground.running(Faults())
    admin = ground.bench.connection.admin()
    await admin.delete_topics([ground.bench.source])
    await asyncio.sleep(0.5)
    await admin.create_topic(ground.bench.source, PARTITIONS)
    await ground.bench.produce(numbered(4))
    assert await ground.until_all_committed(worker), worker.error
    assert await worker.stop() is None
    counts = sorted((str(record.key), record.value) for record in await ground.bench.read())
    assert counts == [(key, count) for key in "abcd" for count in (1, 2, 3)]


async def a_committed_offset_beyond_the_end_of_the_log_goes_by_the_reset_policy(ground: Site) -> None:
    """What is left of a log after an unclean election is shorter than what was read of it."""
    worker = await ground.running(Faults(), group_instance_id=None)  # one that leaves the group when it stops
    assert await worker.stop() is None
    admin, group = ground.bench.connection.admin(), ground.bench.connection.group()
    await admin.delete_topics([ground.bench.source])
    await admin.create_topic(ground.bench.source, PARTITIONS)
    read = {TopicPartition(ground.bench.source, number): OffsetAndMetadata(4) for number in range(PARTITIONS)}
    await group.commit_offsets(GroupMetadata(ground.bench.name, -1, "", None), read)
    await ground.bench.produce(numbered(4))
    again = ground.start()
    assert await ground.until_all_committed(again), again.error
    assert await again.stop() is None
    counts = sorted((str(record.key), record.value) for record in await ground.bench.read())
    assert counts == [(key, count) for key in "abcd" for count in (1, 2, 3)]


def only_the_source(change: Any) -> Any:
    """The other topics of a pattern stay as they are."""

    def changed(body: Any, api: Api) -> None:
        topics = body.topics
        body.topics = [topic for topic in topics if topic.name.endswith("-in")]
        change(body, api)
        body.topics = topics

    changed.__name__ = f"{change.__name__}_but_the_others"
    return changed


CASES = [
    *(
        msgspec.structs.replace(case, topology=by_pattern)
        for case in cases_of(
            a_pattern_s_topic_that_vanishes_from_the_metadata_for_a_while_is_read_on,
            no_partitions,
            unknown,
            only_the_source(no_partitions),
            only_the_source(unknown),
        )
    ),
    *cases_of(a_topic_that_a_broker_has_not_heard_of_yet_is_asked_for_again, no_partitions, unknown),
    *cases_of(a_topic_that_stays_unknown_is_named, no_partitions, unknown),
    *cases_of(
        partitions_that_vanish_from_the_metadata_for_a_while_are_not_believed_to_have_gone, no_partitions, unknown
    ),
    *cases(
        a_source_that_is_deleted_stops_the_worker_and_is_named,
        a_sink_that_is_deleted_stops_the_worker_and_is_named,
        a_source_that_is_deleted_and_made_anew_is_read_from_its_start,
        a_committed_offset_beyond_the_end_of_the_log_goes_by_the_reset_policy,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_topics(case: Case, verdicts: Verdicts) -> None:
    verdicts.check(case)
