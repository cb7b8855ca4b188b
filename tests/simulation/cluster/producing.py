"""Producers by hand, for a cluster of three brokers without groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from streamlib.errors import ErrorCode
from streamlib.kafka.batches import BatchBuilder, next_sequence
from streamlib.records import TopicPartition
from streamlib.simulation.cluster.basics import Body, Handler
from streamlib.simulation.cluster.brokers import Brokers
from streamlib.simulation.cluster.coordinators import Coordinators
from streamlib.simulation.cluster.data_apis import DataApis
from streamlib.simulation.cluster.fetches import Fetches
from streamlib.simulation.cluster.topics import Topics
from streamlib.simulation.cluster.transactions import TransactionCoordinator
from tests.simulation.cluster.asking import Asked, ask
from tests.simulation.cluster.timers import HandTimers

NOW_MS = 5_000
_LARGE = 1 << 20
# As the product speaks to clusters of both kinds.
_VERSIONS: Mapping[int, Mapping[str, int]] = {2: {"Produce": 12, "EndTxn": 5}, 1: {"Produce": 11, "EndTxn": 4}}


def batch(
    *values: str | None,
    who: tuple[int, int] = (-1, -1),
    sequence: int = -1,
    transactional: bool = False,
    key: str = "k",
) -> bytes:
    """A batch as a producer (id and epoch) makes it; the records' key is `key` and a value of None a deletion."""
    builder = BatchBuilder(TopicPartition("any", 0), 0, transactional, _LARGE, _LARGE)
    builder.extend([(key.encode(), None if value is None else value.encode(), NOW_MS, ()) for value in values])
    return bytes(builder.build(*who, sequence))


class Written(NamedTuple):
    """What a leader answers to a batch."""

    code: ErrorCode
    offset: int


class Bench:
    """The parts of the model that data and transactions need; topic "t" has three partitions."""

    def __init__(self, version: int = 2) -> None:
        self.version = version
        self.timers = HandTimers()
        self.brokers = Brokers(3)
        self.topics = Topics(self.brokers)
        self.topics.create("t", 3)
        self.partitions = self.topics.partitions(["t"])
        self.coordinators = Coordinators(self.brokers, self.timers)
        self.group_markers: list[tuple[str, int, int, bool]] = []
        self.transactions = TransactionCoordinator(
            self.timers,
            self.topics,
            self.coordinators,
            lambda *marker: self.group_markers.append(marker),
            version=version,
        )
        self.handlers: dict[str, Handler] = {
            **self.transactions.handlers,
            **DataApis(self.topics, self.transactions).handlers,
            **Fetches(self.topics, self.timers).handlers,
        }

    def ask(self, api: str, body: Body, *, version: int | None = None, broker: int = 0) -> Asked:
        return ask(self.handlers, api, body, version=version, broker=broker)

    def leader(self, partition: TopicPartition) -> int:
        leader = self.topics.leader(partition)
        assert leader is not None
        return leader

    def values(self, partition: TopicPartition) -> list[str]:
        """What a reader of committed records sees."""
        return [(record.value or b"").decode() for record in self.topics.log(partition).committed_records()]

    def producer(self, transactional_id: str | None = "app", **init: Any) -> Producer:
        """One that is initialised."""
        producer = Producer(self, transactional_id)
        assert producer.init(**init) == ErrorCode.NONE
        return producer


class Producer:
    """Remembers its id, its epoch and the next sequence of each partition; what is refused is a return value."""

    def __init__(self, bench: Bench, transactional_id: str | None) -> None:
        self._bench = bench
        self.transactional_id = transactional_id
        self.who = (-1, -1)
        self.sequences: dict[TopicPartition, int] = {}

    def twin(self) -> Producer:
        """Another one that knows the same."""
        twin = Producer(self._bench, self.transactional_id)
        twin.who, twin.sequences = self.who, dict(self.sequences)
        return twin

    def init(self, *, timeout_ms: int = 10_000, go_on: bool = False) -> ErrorCode:
        body: dict[str, Any] = {"transactional_id": self.transactional_id, "transaction_timeout_ms": timeout_ms}
        if go_on:
            body |= {"producer_id": self.who[0], "producer_epoch": self.who[1]}
        answer = self._ask("InitProducerId", body).answer
        if answer.error_code == ErrorCode.NONE:
            self._adopt(answer.producer_id, answer.producer_epoch)
        return ErrorCode(answer.error_code)

    def produce(
        self, partition: TopicPartition, *values: str, sequence: int | None = None, version: int | None = None
    ) -> Written:
        """One batch; the next sequence goes on only if it is accepted and none is given."""
        expected = self.sequences.get(partition, 0)
        transactional = self.transactional_id is not None
        data = batch(
            *values, who=self.who, sequence=expected if sequence is None else sequence, transactional=transactional
        )
        topics = [{"name": partition.topic, "partition_data": [{"index": partition.partition, "records": data}]}]
        body = {"transactional_id": self.transactional_id, "acks": -1, "timeout_ms": 1, "topic_data": topics}
        version = version or _VERSIONS[self._bench.version]["Produce"]
        asked = self._bench.ask("Produce", body, version=version, broker=self._bench.leader(partition))
        [topic] = asked.answer.responses
        [answer] = topic.partition_responses
        if answer.error_code == ErrorCode.NONE and sequence is None:
            self.sequences[partition] = next_sequence(expected, len(values))
        return Written(ErrorCode(answer.error_code), answer.base_offset)

    def add_partitions(self, *partitions: TopicPartition) -> dict[TopicPartition, ErrorCode]:
        topics = [{"name": partition.topic, "partitions": [partition.partition]} for partition in partitions]
        answer = self._ask("AddPartitionsToTxn", {**self._owner, "topics": topics}).answer
        return {
            TopicPartition(topic.name, result.partition_index): ErrorCode(result.partition_error_code)
            for topic in answer.results_by_topic
            for result in topic.results_by_partition
        }

    def add_group(self, group_id: str) -> ErrorCode:
        return ErrorCode(self._ask("AddOffsetsToTxn", {**self._owner, "group_id": group_id}).code)

    def end(self, *, commit: bool, version: int | None = None) -> ErrorCode:
        version = version or _VERSIONS[self._bench.version]["EndTxn"]
        answer = self._ask("EndTxn", {**self._owner, "committed": commit}, version).answer
        if answer.error_code == ErrorCode.NONE and answer.producer_id >= 0:
            self._adopt(answer.producer_id, answer.producer_epoch)
        return ErrorCode(answer.error_code)

    def write(self, partition: TopicPartition, *values: str) -> int:
        """Records as part of the transaction; returns the offset of the first."""
        if self._bench.version < 2:
            assert set(self.add_partitions(partition).values()) == {ErrorCode.NONE}
        code, offset = self.produce(partition, *values)
        assert code == ErrorCode.NONE
        return offset

    @property
    def _owner(self) -> dict[str, Any]:
        producer_id, epoch = self.who
        return {"transactional_id": self.transactional_id, "producer_id": producer_id, "producer_epoch": epoch}

    def _ask(self, api: str, body: Body, version: int | None = None) -> Asked:
        coordinator = self._bench.coordinators.find("transaction", self.transactional_id or "")
        return self._bench.ask(api, body, version=version, broker=coordinator or 0)

    def _adopt(self, producer_id: int, epoch: int) -> None:
        if self.who != (producer_id, epoch):
            self.sequences.clear()
        self.who = (producer_id, epoch)
