"""Repartition topics have no retention of their own: a record stays until its consumer says that it is done with it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import anyio

from streamlib.engine.plan import Plan
from streamlib.errors import KafkaError
from streamlib.records import TopicPartition
from streamlib.runtime.ports import Admin

log = logging.getLogger(__name__)


class Purger:
    """Deletes consumed records of repartition topics from time to time."""

    def __init__(self, plan: Plan, admin: Admin, interval_ms: int) -> None:
        self._topics = plan.repartition_topics
        self._admin = admin
        self._interval_ms = interval_ms
        self._consumed: dict[TopicPartition, int] = {}  # not purged yet

    def committed(self, low_water_marks: Mapping[TopicPartition, int]) -> None:
        """Nobody reads what is below these committed offsets again."""
        for partition, position in low_water_marks.items():
            if partition.topic in self._topics:
                self._consumed[partition] = position

    async def run(self) -> None:
        """Purge, for ever. What cannot be deleted now is, the next time."""
        while True:
            await anyio.sleep(self._interval_ms / 1000)
            consumed, self._consumed = self._consumed, {}
            if not consumed:
                continue
            try:
                await self._admin.delete_records(consumed)
            except KafkaError as error:
                log.warning("consumed records of repartition topics stay for now: %s", error)
                self._consumed = {**consumed, **self._consumed}
