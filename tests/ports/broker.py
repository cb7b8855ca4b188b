"""Tests on a real broker."""

from __future__ import annotations

import asyncio
import uuid

from streamlib.testing.plugin import KafkaTarget
from tests.ports.cluster import GROUP_MIN_SESSION_TIMEOUT_MS, Cluster, opened
from tests.ports.everywhere import Body, in_time

_SHORT_SESSION_MS = 1_500
"""Brokers that are started for tests allow 500 (`streamlib.testing.broker.properties`); a busy machine needs more."""


def run_on_broker(target: KafkaTarget, body: Body) -> None:
    """In real time, over real connections."""

    shortest_session_ms = GROUP_MIN_SESSION_TIMEOUT_MS if target.broker is None else _SHORT_SESSION_MS

    async def test() -> None:
        cluster = Cluster(target.bootstrap_servers, lambda: None, uuid.uuid4().hex[:8], shortest_session_ms)
        async with opened(cluster):
            await in_time(body, cluster)

    asyncio.run(test())
