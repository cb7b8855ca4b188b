"""Topics that a pattern takes in may come and go while the application runs, and all may get more partitions."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from streamlib.engine.plan import Plan, make_plan, sink_topics, source_topics
from streamlib.errors import KafkaError, TopologyError
from streamlib.records import TopicPartition
from streamlib.runtime.ports import Admin
from streamlib.runtime.wakeup import Wakeup

log = logging.getLogger(__name__)

LOOKS_TO_BELIEVE = 3


class TopicWatch:
    """Looks from time to time whether the topics are still those that the plan was made for.

    `outdated` then turns true and `on_change` is set: the worker ends, and begins again with a new plan. Where tasks
    have stores, that stops the application if partitions were added, because its changelogs do not fit any more
    (as in Kafka Streams' `InternalTopicManager`).
    """

    def __init__(self, plan: Plan, admin: Admin, interval_ms: int, on_change: Wakeup) -> None:
        self._plan = plan
        self._admin = admin
        self._interval_ms = interval_ms
        self._on_change = on_change
        self._named = {*source_topics(plan.topology), *sink_topics(plan.topology)}
        self._missing = 0  # looks in a row that did not find all topics of the plan
        self._look = Wakeup()  # earlier than after the interval
        self.outdated = False

    def assigned(self, partitions: Iterable[TopicPartition]) -> bool:
        """Whether the plan does not know of some of these: the leader of the group knows of more than we do."""
        self.outdated = self.outdated or any(map(self._is_new, partitions))
        return self.outdated

    def heard_of(self, topics: Iterable[str]) -> None:
        """Look at once if another member reads topics that the plan does not know of."""
        if self._plan.has_patterns and not self._plan.topics.issuperset(topics):
            self._look.set()

    def may_be_unknown(self, partitions: Iterable[TopicPartition]) -> bool:
        """Whether the leader of the group may not have found these yet, which a pattern takes in."""
        known = self._named.union(self._plan.repartition_topics)
        return self._plan.has_patterns and known.isdisjoint(partition.topic for partition in partitions)

    async def run(self) -> None:
        """Look, until something has changed."""
        while not self.outdated:
            await self._look.wait(self._interval_ms)
            try:
                found = make_plan(self._plan.topology, self._plan.application_id, await self._counts())
            except (KafkaError, TopologyError) as error:
                log.warning("cannot look whether topics have changed: %s", error)
                continue
            grown = [topic for topic in self._named if self._has_grown(topic, found)]
            if grown or self._differs(found.topics):
                changed = sorted({*grown, *(found.topics ^ self._plan.topics)})
                log.warning("topics have changed, or have more partitions: %s", ", ".join(changed))
                self.outdated = True
                self._on_change.set()

    def _is_new(self, partition: TopicPartition) -> bool:
        """A topic that nobody named is another topology's, which no new plan changes; the worker refuses it."""
        if partition.topic not in self._plan.topics:
            return self._plan.has_patterns
        return partition.partition >= self._plan.partition_counts[partition.topic]

    async def _counts(self) -> dict[str, int]:
        named = await self._admin.partition_counts(self._named)
        return {**await self._admin.topics(), **named} if self._plan.has_patterns else named

    def _has_grown(self, topic: str, found: Plan) -> bool:
        """A count that is lower is that of a broker that does not know all yet."""
        before = self._plan.partition_counts.get(topic, 0)
        return 0 < before < found.partition_counts.get(topic, 0)

    def _differs(self, found: frozenset[str]) -> bool:
        """A topic that is there is there. One that is missing may only be unknown to the broker that was asked."""
        self._missing = self._missing + 1 if self._plan.topics - found else 0
        return bool(found - self._plan.topics) or self._missing >= LOOKS_TO_BELIEVE
