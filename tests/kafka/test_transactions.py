"""What a real cluster tells of open transactions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from streamlib.kafka.admin import KafkaAdmin
from streamlib.kafka.client import KafkaClient
from streamlib.kafka.producer import KafkaProducer, ProducerSettings
from streamlib.kafka.transactions import KafkaTransactions
from streamlib.records import TopicPartition

UniqueName = Callable[[str], str]


@pytest.fixture
def transactions(client: KafkaClient) -> KafkaTransactions:
    return KafkaTransactions(client)


@pytest.fixture
async def producer(client: KafkaClient, unique_name: UniqueName) -> AsyncIterator[KafkaProducer]:
    """In a transaction."""
    producer = KafkaProducer(client, unique_name("producer"), ProducerSettings(transaction_timeout_ms=60_000))
    await producer.init()
    producer.begin()
    yield producer
    await producer.close()


async def test_an_open_transaction_is_told_by_partition_and_by_coordinator(
    transactions: KafkaTransactions, producer: KafkaProducer, admin: KafkaAdmin, unique_name: UniqueName
) -> None:
    topic = unique_name("open")
    await admin.create_topic(topic, 2)
    written, untouched = TopicPartition(topic, 0), TopicPartition(topic, 1)
    producer.send(written, [(b"k", b"v", 1, ())])
    await producer.flush()
    (found,) = await transactions.open_at([written, untouched])
    assert (found.partition, found.start_offset) == (written, 0)
    assert found.last_timestamp_ms > 0
    name = producer.transactional_id
    assert name is not None
    assert await transactions.list_ids(producer_ids=[found.producer_id]) == [name]
    (known,) = await transactions.describe([name])
    assert (known.state, known.complete, known.timeout_ms) == ("Ongoing", False, 60_000)
    assert (known.producer_id, known.partitions) == (found.producer_id, frozenset({written}))
    assert known.start_ms > 0
    await producer.end(commit=True)
    assert name not in await transactions.list_ids(states=["Ongoing"])


async def test_what_no_coordinator_knows_is_left_out(transactions: KafkaTransactions, unique_name: UniqueName) -> None:
    assert await transactions.describe([unique_name("never")]) == []
    assert await transactions.list_ids(producer_ids=[1 << 60]) == []
