"""The requests of a transaction, one by one: what the coordinator and the partitions say to each, also out of turn."""

from __future__ import annotations

import pytest

from streamlib.errors import ErrorCode
from streamlib.records import TopicPartition
from tests.ports.cluster import Cluster
from tests.ports.everywhere import on_every_cluster
from tests.ports.members import sole_member
from tests.ports.raw import REFUSED, RawProducer, in_transaction, new_producer, settled
from tests.ports.reading import log_end, markers_written, read, read_stable, stable_end

TOO_LONG_MS = 10**8  # above the broker's transaction.max.timeout.ms


# --- InitProducerId


@on_every_cluster
async def test_new_id_begins_at_epoch_0(cluster: Cluster) -> None:
    one, other = await new_producer(cluster), await new_producer(cluster)
    assert (one.epoch, other.epoch) == (0, 0)
    assert one.producer_id != other.producer_id


@on_every_cluster
async def test_init_keeps_the_producer_id_and_raises_the_epoch(cluster: Cluster) -> None:
    older = await new_producer(cluster)
    newer = await RawProducer(cluster, older.transactional_id).start()
    assert (newer.producer_id, newer.epoch) == (older.producer_id, older.epoch + 1)


@on_every_cluster
async def test_init_while_a_transaction_is_open_aborts_it_first(cluster: Cluster) -> None:
    older, partition = await in_transaction(cluster)
    newer = RawProducer(cluster, older.transactional_id)
    assert await newer.init() == ErrorCode.CONCURRENT_TRANSACTIONS
    await newer.start()
    # One epoch to fence the older, one for the newer.
    assert (newer.producer_id, newer.epoch) == (older.producer_id, older.epoch + 2)
    assert await stable_end(cluster, partition) == await log_end(cluster, partition) == 2
    assert await read(cluster, partition) == []


@on_every_cluster
async def test_plain_producers_get_ids_of_their_own(cluster: Cluster) -> None:
    one, other = await RawProducer(cluster).start(), await RawProducer(cluster).start()
    assert (one.epoch, other.epoch) == (0, 0)
    assert one.producer_id != other.producer_id


@on_every_cluster
@pytest.mark.parametrize("timeout_ms", [0, TOO_LONG_MS])
async def test_transaction_timeout_has_its_limits(cluster: Cluster, timeout_ms: int) -> None:
    producer = RawProducer(cluster, cluster.name("tx"))
    assert await producer.init(timeout_ms=timeout_ms) == ErrorCode.INVALID_TRANSACTION_TIMEOUT


@on_every_cluster
async def test_holder_of_the_epoch_gets_the_next_one_and_again_when_it_repeats(cluster: Cluster) -> None:
    producer = await new_producer(cluster)
    repeating = producer.twin()
    assert await producer.init(go_on=True) == ErrorCode.NONE
    assert await repeating.init(go_on=True) == ErrorCode.NONE
    assert producer.epoch == repeating.epoch == 1


@on_every_cluster
async def test_holder_of_the_epoch_leaves_its_open_transaction_behind(cluster: Cluster) -> None:
    producer, partition = await in_transaction(cluster)
    assert await producer.init(go_on=True) == ErrorCode.CONCURRENT_TRANSACTIONS
    # Before KIP-890 it fences itself with its first attempt.
    expected = {2: ErrorCode.NONE, 1: ErrorCode.PRODUCER_FENCED}
    assert await settled(cluster, lambda: producer.init(go_on=True)) == expected[cluster.transaction_version]
    assert producer.epoch == {2: 1, 1: 0}[cluster.transaction_version]
    assert await read(cluster, partition) == []


@on_every_cluster
@pytest.mark.parametrize(("more_id", "more_epoch"), [(1000, 0), (0, 5)])
async def test_holder_of_another_id_or_a_later_epoch_is_fenced(cluster: Cluster, more_id: int, more_epoch: int) -> None:
    producer = await new_producer(cluster)
    producer.producer_id += more_id
    producer.epoch += more_epoch
    assert await producer.init(go_on=True) == ErrorCode.PRODUCER_FENCED


@on_every_cluster
async def test_holder_of_an_epoch_that_the_coordinator_never_gave_begins_anew(cluster: Cluster) -> None:
    producer = RawProducer(cluster, cluster.name("tx"))
    producer.producer_id, producer.epoch = 10**9, 7
    assert await producer.init(go_on=True) == ErrorCode.NONE
    assert producer.epoch == 0
    assert producer.producer_id != 10**9


# --- EndTxn


@on_every_cluster
async def test_end_gives_a_new_epoch_since_kip_890(cluster: Cluster) -> None:
    producer, _ = await in_transaction(cluster)
    for commit in (True, False):
        before = producer.epoch
        await producer.finish(commit=commit)
        assert producer.epoch == before + {2: 1, 1: 0}[cluster.transaction_version]
        await producer.write(await cluster.partition(), "b")


@on_every_cluster
async def test_end_reaches_all_partitions(cluster: Cluster) -> None:
    producer, topic = await new_producer(cluster), await cluster.topic(partitions=3)
    partitions = [TopicPartition(topic, number) for number in range(3)]
    for partition in partitions:
        await producer.write(partition, "a")
    await producer.finish(commit=True)
    for partition in partitions:
        assert await read(cluster, partition) == ["a"]
        assert await log_end(cluster, partition) == 2


@on_every_cluster
@pytest.mark.parametrize("commit", [True, False])
async def test_repeated_end_is_answered_like_the_first(cluster: Cluster, commit: bool) -> None:
    producer, partition = await in_transaction(cluster)
    repeating = producer.twin()
    await producer.finish(commit=commit)
    await repeating.finish(commit=commit)
    assert (repeating.producer_id, repeating.epoch) == (producer.producer_id, producer.epoch)
    assert await log_end(cluster, partition) == 2


@on_every_cluster
@pytest.mark.parametrize("commit", [True, False])
async def test_end_cannot_be_repeated_with_the_opposite_outcome(cluster: Cluster, commit: bool) -> None:
    producer, partition = await in_transaction(cluster)
    repeating = producer.twin()
    await producer.finish(commit=commit)
    code = await settled(cluster, lambda: repeating.end(commit=not commit))
    assert code == ErrorCode.INVALID_TXN_STATE
    assert await read(cluster, partition) == (["a"] if commit else [])


@on_every_cluster
async def test_empty_transaction_cannot_be_committed(cluster: Cluster) -> None:
    producer = await new_producer(cluster)
    assert await producer.end(commit=True) == ErrorCode.INVALID_TXN_STATE


@on_every_cluster
async def test_empty_transaction_can_be_aborted_since_kip_890(cluster: Cluster) -> None:
    producer = await new_producer(cluster)
    expected = {2: ErrorCode.NONE, 1: ErrorCode.INVALID_TXN_STATE}
    assert await producer.end(commit=False) == expected[cluster.transaction_version]
    assert producer.epoch == {2: 1, 1: 0}[cluster.transaction_version]


@on_every_cluster
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (True, True, {2: ErrorCode.INVALID_TXN_STATE, 1: ErrorCode.NONE}),
        (True, False, {2: ErrorCode.NONE, 1: ErrorCode.INVALID_TXN_STATE}),
        (False, True, {2: ErrorCode.INVALID_TXN_STATE, 1: ErrorCode.INVALID_TXN_STATE}),
        (False, False, {2: ErrorCode.NONE, 1: ErrorCode.NONE}),
    ],
)
async def test_end_without_a_transaction_after_one(
    cluster: Cluster, first: bool, second: bool, expected: dict[int, int]
) -> None:
    """Before KIP-890 a coordinator cannot tell it from a repetition."""
    producer, _ = await in_transaction(cluster)
    await producer.finish(commit=first)
    before = producer.epoch
    assert await settled(cluster, lambda: producer.end(commit=second)) == expected[cluster.transaction_version]
    raised = cluster.transaction_version == 2 and not second
    assert producer.epoch == before + raised


@on_every_cluster
async def test_end_of_an_epoch_that_is_still_to_come_is_fenced(cluster: Cluster) -> None:
    producer, partition = await in_transaction(cluster)
    ahead = producer.twin()
    ahead.epoch += 1
    assert await ahead.end(commit=True) == ErrorCode.PRODUCER_FENCED
    await producer.finish(commit=True)
    assert await read(cluster, partition) == ["a"]


@on_every_cluster
async def test_coordinator_knows_which_producer_has_the_id(cluster: Cluster) -> None:
    producer, partition = await in_transaction(cluster)
    other = producer.twin()
    other.producer_id += 1000
    assert await other.end(commit=True) == ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert await other.add_partitions(partition) == {partition: ErrorCode.INVALID_PRODUCER_ID_MAPPING}


@on_every_cluster
async def test_coordinator_does_not_know_an_id_that_was_never_initialised(cluster: Cluster) -> None:
    producer, partition = RawProducer(cluster, cluster.name("tx")), await cluster.partition()
    producer.producer_id, producer.epoch = 10**9, 0
    assert await producer.end(commit=True) == ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert await producer.add_partitions(partition) == {partition: ErrorCode.INVALID_PRODUCER_ID_MAPPING}


# --- what goes into a transaction


@on_every_cluster
async def test_first_produce_is_part_of_the_transaction_by_itself_since_kip_890(cluster: Cluster) -> None:
    producer, partition = await new_producer(cluster), await cluster.partition()
    expected = {2: (ErrorCode.NONE, 0), 1: (ErrorCode.TRANSACTION_ABORTABLE, REFUSED)}
    written = await settled(cluster, lambda: producer.produce(partition, "a"))
    assert written == expected[cluster.transaction_version]
    assert await log_end(cluster, partition) == {2: 1, 1: 0}[cluster.transaction_version]


@on_every_cluster
@pytest.mark.parametrize(
    ("version", "expected"), [(11, ErrorCode.TRANSACTION_ABORTABLE), (9, ErrorCode.INVALID_TXN_STATE)]
)
async def test_older_produce_needs_its_partition_added(cluster: Cluster, version: int, expected: int) -> None:
    producer, partition = await new_producer(cluster), await cluster.partition()
    written = await settled(cluster, lambda: producer.produce(partition, "a", version=version))
    assert written == (expected, REFUSED)
    assert await log_end(cluster, partition) == 0
    assert await producer.end(commit=True) == ErrorCode.INVALID_TXN_STATE


@on_every_cluster
async def test_partition_may_be_added_twice(cluster: Cluster) -> None:
    producer, partition = await new_producer(cluster), await cluster.partition()
    for _ in range(2):
        assert await producer.add_partitions(partition) == {partition: ErrorCode.NONE}


@on_every_cluster
async def test_no_partition_is_added_if_one_does_not_exist(cluster: Cluster) -> None:
    producer, there = await new_producer(cluster), await cluster.partition()
    missing = TopicPartition(there.topic, 7)
    assert await producer.add_partitions(there, missing) == {
        there: ErrorCode.OPERATION_NOT_ATTEMPTED,
        missing: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }
    assert await producer.end(commit=True) == ErrorCode.INVALID_TXN_STATE


@on_every_cluster
async def test_next_transaction_waits_for_the_markers_of_the_one_before(cluster: Cluster) -> None:
    """It may have to ask again, or the broker may wait by itself; what it asks is accepted in the end."""
    producer, partition = await in_transaction(cluster)
    for number in range(5):
        await producer.finish(commit=True)
        await producer.write(partition, str(number))
    await producer.finish(commit=True)
    assert await read(cluster, partition) == ["a", "0", "1", "2", "3", "4"]


@on_every_cluster
async def test_transactions_of_two_ids_are_open_at_once(cluster: Cluster) -> None:
    partition, one, other = await cluster.partition(), await new_producer(cluster), await new_producer(cluster)
    await one.write(partition, "one")
    await other.write(partition, "other")
    await other.finish(commit=True)
    # Both are behind the first record of the one that is still open.
    assert await read_stable(cluster, partition) == []
    await one.finish(commit=False)
    assert await read(cluster, partition) == ["other"]


# --- fencing


async def overtaken(cluster: Cluster) -> tuple[RawProducer, TopicPartition]:
    """A producer whose id somebody else has taken over, and the partition it had written to."""
    older, partition = await in_transaction(cluster)
    await RawProducer(cluster, older.transactional_id).start()
    return older, partition


@on_every_cluster
async def test_overtaken_producer_gets_its_epoch_refused_by_partitions(cluster: Cluster) -> None:
    older, partition = await overtaken(cluster)
    assert await older.produce(partition, "b") == (ErrorCode.INVALID_PRODUCER_EPOCH, REFUSED)
    elsewhere = await cluster.partition()
    assert (await older.produce(elsewhere, "b")).offset == REFUSED
    assert (await read(cluster, partition), await log_end(cluster, elsewhere)) == ([], 0)


@on_every_cluster
async def test_overtaken_producer_is_fenced_by_the_coordinator(cluster: Cluster) -> None:
    older, partition = await overtaken(cluster)
    assert await older.add_partitions(partition) == {partition: ErrorCode.PRODUCER_FENCED}
    assert await older.add_group(cluster.name("group")) == ErrorCode.PRODUCER_FENCED
    assert await older.end(commit=True) == ErrorCode.PRODUCER_FENCED
    assert await older.end(commit=False) == ErrorCode.PRODUCER_FENCED
    assert await older.init(go_on=True) == ErrorCode.PRODUCER_FENCED


@on_every_cluster
async def test_overtaken_producer_gets_its_epoch_refused_by_groups(cluster: Cluster) -> None:
    member, (older, partition) = await sole_member(cluster), await overtaken(cluster)
    assert await older.commit_offset(member.who, partition, 1) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert await member.port.fetch_offsets([partition]) == {}


@on_every_cluster
@pytest.mark.parametrize("commit", [True, False])
async def test_write_that_comes_after_the_end_is_refused(cluster: Cluster, commit: bool) -> None:
    """So nothing of it becomes part of a transaction that nobody ends, or of the next one."""
    producer, partition = await in_transaction(cluster)
    late = producer.twin()
    await producer.finish(commit=commit)
    await markers_written(cluster, partition)
    expected = {2: ErrorCode.INVALID_PRODUCER_EPOCH, 1: ErrorCode.TRANSACTION_ABORTABLE}
    assert await late.produce(partition, "late") == (expected[cluster.transaction_version], REFUSED)
    assert await late.produce(partition, "a", sequence=0) == (expected[cluster.transaction_version], REFUSED)
    assert await log_end(cluster, partition) == await stable_end(cluster, partition) == 2


@on_every_cluster
async def test_write_that_comes_in_the_next_transaction_is_refused_since_kip_890(cluster: Cluster) -> None:
    """Before, it becomes part of that one, which is why the product takes a new epoch after a doubtful request."""
    producer, partition = await in_transaction(cluster)
    late = producer.twin()
    await producer.finish(commit=False)
    await producer.enlist(partition)
    if cluster.transaction_version == 2:
        await producer.write(partition, "b")
    expected = {2: ErrorCode.INVALID_PRODUCER_EPOCH, 1: ErrorCode.NONE}
    assert (await late.produce(partition, "late")).code == expected[cluster.transaction_version]
    await producer.finish(commit=True)
    assert await read(cluster, partition) == {2: ["b"], 1: ["late"]}[cluster.transaction_version]


# --- a transaction that took too long


SOON_MS = 500
"""A transaction's timeout: long enough for the requests of a test on a busy machine, and short enough to wait for."""


async def outlived(cluster: Cluster) -> tuple[RawProducer, TopicPartition]:
    """A producer whose open transaction has been aborted by the broker."""
    producer, partition = RawProducer(cluster, cluster.name("tx")), await cluster.partition()
    assert await settled(cluster, lambda: producer.init(timeout_ms=SOON_MS)) == ErrorCode.NONE
    await producer.write(partition, "slow")
    await markers_written(cluster, partition)
    # The coordinator books the end a moment after the markers are there.
    assert await settled(cluster, lambda: producer.add_group("nobody's")) == ErrorCode.PRODUCER_FENCED
    return producer, partition


@on_every_cluster
async def test_timeout_shuts_the_epoch_out(cluster: Cluster) -> None:
    producer, partition = await outlived(cluster)
    member = await sole_member(cluster)
    assert await producer.produce(partition, "late") == (ErrorCode.INVALID_PRODUCER_EPOCH, REFUSED)
    assert await producer.add_partitions(partition) == {partition: ErrorCode.PRODUCER_FENCED}
    assert await producer.add_group(member.group_id) == ErrorCode.PRODUCER_FENCED
    assert await producer.commit_offset(member.who, partition, 1) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert await read(cluster, partition) == []


@on_every_cluster
async def test_commit_after_the_timeout_is_refused(cluster: Cluster) -> None:
    producer, partition = await outlived(cluster)
    expected = {2: ErrorCode.INVALID_TXN_STATE, 1: ErrorCode.PRODUCER_FENCED}
    assert await producer.end(commit=True) == expected[cluster.transaction_version]
    assert await read(cluster, partition) == []


@on_every_cluster
async def test_abort_after_the_timeout_is_taken_for_the_brokers_own_since_kip_890(cluster: Cluster) -> None:
    producer, _ = await outlived(cluster)
    before = producer.epoch
    expected = {2: ErrorCode.NONE, 1: ErrorCode.PRODUCER_FENCED}
    assert await producer.end(commit=False) == expected[cluster.transaction_version]
    assert producer.epoch == before + {2: 1, 1: 0}[cluster.transaction_version]


@on_every_cluster
async def test_holder_of_the_epoch_recovers_from_the_timeout_since_kip_890(cluster: Cluster) -> None:
    producer, _ = await outlived(cluster)
    expected = {2: ErrorCode.NONE, 1: ErrorCode.PRODUCER_FENCED}
    assert await producer.init(go_on=True) == expected[cluster.transaction_version]


@on_every_cluster
async def test_init_after_the_timeout_goes_on_behind_the_brokers_epoch(cluster: Cluster) -> None:
    producer, partition = await outlived(cluster)
    before = producer.epoch
    await producer.start()
    assert producer.epoch == before + 2
    await producer.write(partition, "again")
    await producer.finish(commit=True)
    assert await read(cluster, partition) == ["again"]


@on_every_cluster
async def test_later_requests_do_not_prolong_a_transaction(cluster: Cluster) -> None:
    producer, partition = RawProducer(cluster, cluster.name("tx")), await cluster.partition()
    assert await settled(cluster, lambda: producer.init(timeout_ms=SOON_MS)) == ErrorCode.NONE
    await producer.write(partition, "first")
    for _ in range(20):
        if (await producer.produce(partition, "more")).code == ErrorCode.INVALID_PRODUCER_EPOCH:
            break
        await cluster.passes(100)
    else:
        pytest.fail("it went on")
    assert await read(cluster, partition) == []
