"""The input: records at a steady rate, in transactions of which some are aborted on purpose, through all faults.

What counts as input is what the topics hold in the end. This side only knows what it was told: which transactions
were committed, so that the verdict can hold the cluster itself to it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

KEYS = 60
WORDS = 50
TURN_S = 0.2
LATEST_S = 8  # an event may be this much older than the newest one: beyond the windows' grace
ABORTED = 0.05  # share of transactions

QUIET = logging.getLogger("tests.chaos.librdkafka")  # it complains of all that is broken on purpose
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False

INPUTS = ("events", "lines")


class Fed(msgspec.Struct):
    """What the feed knows: numbers of committed records, by topic."""

    committed: dict[str, set[str]]
    transactions: int = 0
    aborted: int = 0
    unknown: int = 0
    errors: Counter[str] = msgspec.field(default_factory=Counter)


class Feed:
    """Writes to the input topics from a thread of its own, from `start` until `stop`. Values are numbered."""

    def __init__(self, bootstrap_servers: str, prefix: str, rate: int, rng: random.Random) -> None:
        self.fed = Fed({topic: set() for topic in INPUTS})
        self._settings = {
            "bootstrap.servers": bootstrap_servers,
            "transactional.id": f"{prefix}feed",
            "partitioner": "murmur2_random",  # as Kafka's own
            "transaction.timeout.ms": 10_000,
            "reconnect.backoff.max.ms": 500,
            "retry.backoff.max.ms": 500,
            "topic.metadata.refresh.interval.ms": 5_000,
            "log_level": 0,
        }
        self._prefix = prefix
        self._rate = rate
        self._rng = rng
        self._number = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the transaction in hand is over."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        producer = self._new_producer()
        while not self._stopping.is_set():
            began_s = time.monotonic()
            try:
                self._transaction(producer)
            except KafkaException as error:
                producer = self._recover(producer, error.args[0])
            self._stopping.wait(TURN_S - (time.monotonic() - began_s))

    def _transaction(self, producer: Producer) -> None:
        producer.begin_transaction()
        sent = [self._send(producer) for _ in range(round(self._rate * TURN_S))]
        if self._rng.random() < ABORTED:
            _retried(producer.abort_transaction)
            self.fed.aborted += 1
            return
        _retried(producer.commit_transaction)
        self.fed.transactions += 1
        for topic, value in sent:
            self.fed.committed[topic].add(value)

    def _send(self, producer: Producer) -> tuple[str, str]:
        self._number += 1
        topic = self._rng.choices(INPUTS, weights=(4, 1))[0]
        words = (f"w{self._rng.randrange(WORDS)}" for _ in range(self._rng.randint(1, 4)))
        value = str(self._number) if topic == "events" else " ".join((f"n{self._number}", *words))
        timestamp_ms = time.time_ns() // 1_000_000 - round(self._rng.random() ** 4 * LATEST_S * 1000)
        key = f"k{self._rng.randrange(KEYS)}"
        producer.produce(self._prefix + topic, value.encode(), key.encode(), timestamp=timestamp_ms)
        return topic, value

    def _recover(self, producer: Producer, error: KafkaError) -> Producer:
        """The outcome of the transaction is not known to us, and need not be."""
        self.fed.unknown += 1
        self.fed.errors[str(error.name())] += 1
        if error.txn_requires_abort():
            try:
                _retried(producer.abort_transaction)
            except KafkaException as again:
                self.fed.errors[str(again.args[0].name())] += 1
            else:
                return producer
        return self._new_producer()

    def _new_producer(self) -> Producer:
        """One whose earlier life's open transaction is aborted."""
        while True:
            producer = Producer(self._settings, logger=QUIET)
            try:
                _retried(producer.init_transactions)
            except KafkaException as error:
                self.fed.errors[str(error.args[0].name())] += 1
                time.sleep(TURN_S)
            else:
                return producer


def _retried(step: Callable[[float], None]) -> None:
    """Once more with the same outcome as long as the client says that this is safe."""
    while True:
        try:
            return step(5)
        except KafkaException as error:
            if not error.args[0].retriable():
                raise
