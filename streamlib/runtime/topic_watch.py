"""Topics that a pattern takes in may come and go while the application runs."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import anyio

from streamlib.engine.plan import Plan, make_plan
from streamlib.errors import KafkaError, TopologyError
from streamlib.runtime.ports import Admin
from streamlib.runtime.wakeup import Wakeup

log = logging.getLogger(__name__)

LOOKS_TO_BELIEVE = 3


class TopicWatch:
    """Looks from time to time whether the patterns of a topology match other topics than the plan knows of.

    `outdated` then turns true and `on_change` is set: the worker ends, and begins again with a new plan.
    """

    def __init__(self, plan: Plan, admin: Admin, interval_ms: int, on_change: Wakeup) -> None:
        self._plan = plan
        self._admin = admin
        self._interval_ms = interval_ms
        self._on_change = on_change
        self._missing = 0  # looks in a row that did not find all topics of the plan
        self.outdated = False

    def assigned(self, topics: Iterable[str]) -> bool:
        """Whether these topics are none of the plan's: the leader of the group knows of more than we do."""
        self.outdated = self.outdated or not self._plan.topics.issuperset(topics)
        return self.outdated

    async def run(self) -> None:
        """Look, until something has changed."""
        while not self.outdated:
            await anyio.sleep(self._interval_ms / 1000)
            try:
                counts = await self._admin.topics()
                found = make_plan(self._plan.topology, self._plan.application_id, counts).topics
            except (KafkaError, TopologyError) as error:
                log.warning("cannot look for topics that match: %s", error)
                continue
            if self._differs(found):
                log.info("topics that match have changed: %s", ", ".join(sorted(found ^ self._plan.topics)))
                self.outdated = True
                self._on_change.set()

    def _differs(self, found: frozenset[str]) -> bool:
        """A topic that is there is there. One that is missing may only be unknown to the broker that was asked."""
        self._missing = self._missing + 1 if self._plan.topics - found else 0
        return bool(found - self._plan.topics) or self._missing >= LOOKS_TO_BELIEVE
