"""The cluster: who answers which request, and what may be done to it from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamlib.simulation.cluster.basics import Handler, Reply, Timers
from streamlib.simulation.cluster.brokers import Brokers
from streamlib.simulation.cluster.coordinators import Coordinators
from streamlib.simulation.cluster.data_apis import DataApis
from streamlib.simulation.cluster.fetches import Fetches
from streamlib.simulation.cluster.groups import Groups
from streamlib.simulation.cluster.offsets import Offsets
from streamlib.simulation.cluster.topics import Topics
from streamlib.simulation.cluster.transactions import TransactionCoordinator


class Cluster:
    """Some brokers that share logs, groups and transactions.

    Args:
        timers: its time.
        brokers: how many there are.
        transaction_version: 2 as from Kafka 4.0 on (KIP-890), 1 as before.
    """

    def __init__(self, timers: Timers, *, brokers: int = 3, transaction_version: int = 2) -> None:
        self.features: Mapping[str, int] = {"transaction.version": transaction_version}
        self.brokers = Brokers(brokers)
        self.topics = Topics(self.brokers)
        self.coordinators = Coordinators(self.brokers, timers)
        self.groups = Groups(timers, self.coordinators)
        self.transactions = TransactionCoordinator(
            timers, self.topics, self.coordinators, self._end_in_group, version=transaction_version
        )
        self.offsets = Offsets(self.coordinators, self.groups, self.transactions)
        data, fetches = DataApis(self.topics, self.transactions), Fetches(self.topics, timers)
        self._handlers: dict[str, Handler] = {}
        for part in (self.topics, self.coordinators, self.groups, self.offsets, self.transactions, data, fetches):
            self._handlers |= part.handlers

    def is_up(self, broker: int) -> bool:
        """Whether the broker answers."""
        return self.brokers.is_up(broker)

    def handle(self, broker: int, api: str, request: Any, version: int, reply: Reply) -> None:
        """Let a broker answer a decoded request, now or later."""
        self._handlers[api](broker, request, version, reply)

    # For the injection of faults

    def stop_broker(self, broker: int) -> None:
        """It answers nothing any more; others lead and coordinate what it did."""
        before = self._homes()
        self.brokers.stop(broker)
        self._moved(before)

    def start_broker(self, broker: int) -> None:
        """It is back, and leads and coordinates what it did."""
        before = self._homes()
        self.brokers.start(broker)
        self._moved(before)

    def move_leaders(self, by: int) -> None:
        """Every partition gets the broker `by` places on as its leader."""
        for partition in self.topics.partitions(self.topics.names()):
            self.topics.move_leader(partition, (self.topics.leader(partition) or 0) + by)
            self.topics.log(partition).wake()

    def move_coordinators(self, by: int, loading_ms: float) -> None:
        """Groups and transactional ids get other coordinators, which load for a while."""
        before = self._homes()
        for group_id in self.groups.names():
            self.coordinators.move("group", group_id, (before[group_id] or 0) + by, loading_ms)
        for name in self.transactions.names():
            home = self.coordinators.find("transaction", name) or 0
            self.coordinators.move("transaction", name, home + by, loading_ms)
        self._moved(before)

    def compact(self) -> None:
        """The log cleaner runs over all compacted topics."""
        for partition in self.topics.partitions(self.topics.names()):
            log = self.topics.log(partition)
            if log.compacted:
                log.compact()

    def _homes(self) -> dict[str, int | None]:
        """Who coordinates each group."""
        return {group_id: self.coordinators.find("group", group_id) for group_id in self.groups.names()}

    def _moved(self, before: Mapping[str, int | None]) -> None:
        """Groups whose coordinator is another one now know only what was written down; leaders may be others, too."""
        for group_id, home in before.items():
            if self.coordinators.find("group", group_id) != home:
                self.groups.moved(group_id)
        for partition in self.topics.partitions(self.topics.names()):
            self.topics.log(partition).wake()

    def _end_in_group(self, group_id: str, producer_id: int, epoch: int, commit: bool) -> None:
        self.offsets.end_transaction(group_id, producer_id, epoch, commit)
