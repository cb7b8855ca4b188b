"""What a test of this suite holds in its hands: a cluster, whatever stands behind it.

Behind it are real connections to brokers, or others to the model; everything above the connections is the product's.
Time passes on the event loop of whoever runs the test: real for brokers, virtual for the model.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from streamlib.config import StreamsConfig
from streamlib.kafka.admin import KafkaAdmin
from streamlib.kafka.client import KafkaClient
from streamlib.kafka.connection import Connection
from streamlib.kafka.pool import Pool
from streamlib.records import TopicPartition

TRANSACTIONS_BEFORE_KIP_890 = 1
"""What we call a cluster whose level of transactions is 0 or 1: they are the same to a client."""

GROUP_MIN_SESSION_TIMEOUT_MS = 6_000
"""The default of Kafka's brokers."""

_MARGIN_MS = 100
_SETTINGS: Mapping[str, Any] = {
    "session_timeout_ms": 30_000,
    "max_poll_interval_ms": 30_000,
    "heartbeat_interval_ms": 100,
    "request_timeout_ms": 15_000,
    "delivery_timeout_ms": 15_000,
    "transaction_timeout_ms": 10_000,
}
"""Long enough that nothing times out by chance, short enough that a test that hangs says so."""


class Cluster:
    """A cluster under test, and the connections a test has made to it; the first one is the test's own.

    Args:
        bootstrap_servers: the address.
        new_pool: makes the connections of one client; None for real ones.
        prefix: is part of each name, so that the tests of many runs share a cluster.
        shortest_session_ms: what its groups allow.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        new_pool: Callable[[], Pool | None],
        prefix: str,
        shortest_session_ms: int = GROUP_MIN_SESSION_TIMEOUT_MS,
    ) -> None:
        self.short_ms = shortest_session_ms + _MARGIN_MS  # a session, or a rebalance, that a test waits for
        self._bootstrap_servers = bootstrap_servers
        self._new_pool = new_pool
        self._prefix = prefix
        self._numbers = itertools.count()
        self.connections: list[Connection] = []

    async def connect(self, **config: Any) -> Connection:
        """A new connection, as of a process of its own, with these settings of `StreamsConfig`.

        Members of one group have one `application_id`; without it, the connection has one to itself.
        """
        named = {"application_id": config.get("application_id") or self.name("app")}
        settings = StreamsConfig(bootstrap_servers=self._bootstrap_servers, **{**_SETTINGS, **config, **named})
        self.connections.append(await Connection.open(settings, self._new_pool()))
        return self.connections[-1]

    @property
    def client(self) -> KafkaClient:
        """The test's own client, for requests made by hand."""
        return self.connections[0].client

    @property
    def admin(self) -> KafkaAdmin:
        """Of the test's own client."""
        return self.connections[0].admin()

    @property
    def transaction_version(self) -> int:
        """2 with KIP-890 (Kafka 4), 1 before it (Kafka 3): the key of what the two do differently."""
        return max(self.client.transaction_version, TRANSACTIONS_BEFORE_KIP_890)

    def name(self, prefix: str) -> str:
        """A name for a topic, a group or a transactional id that nobody has used."""
        return f"{prefix}-{self._prefix}-{next(self._numbers)}"

    async def topic(self, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """A new topic; returns its name."""
        name = self.name("topic")
        await self.admin.create_topic(name, partitions, config)
        return name

    async def partition(self, config: Mapping[str, str] | None = None) -> TopicPartition:
        """The only partition of a new topic."""
        return TopicPartition(await self.topic(config=config), 0)

    async def passes(self, ms: float) -> None:
        """Let so much time pass."""
        await asyncio.sleep(ms / 1000)

    async def close(self) -> None:
        """Close what is left open."""
        for connection in reversed(self.connections):
            await connection.close()


@asynccontextmanager
async def opened(cluster: Cluster) -> AsyncIterator[Cluster]:
    """With a first connection, and closed at the end."""
    try:
        await cluster.connect()
        yield cluster
    finally:
        await cluster.close()
