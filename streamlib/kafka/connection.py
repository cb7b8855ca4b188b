"""One connection to a cluster, and the ports of a worker made from it."""

from __future__ import annotations

import uuid
from typing import Self

from streamlib.config import StreamsConfig
from streamlib.engine.plan import Plan
from streamlib.kafka.admin import KafkaAdmin
from streamlib.kafka.client import ClientSettings, KafkaClient
from streamlib.kafka.fetcher import FetcherSettings, KafkaFetcher
from streamlib.kafka.group import KafkaGroup
from streamlib.kafka.pool import Pool
from streamlib.kafka.producer import KafkaProducer, ProducerSettings
from streamlib.kafka.streams_group import KafkaStreamsGroup, StreamsMember, check_supported
from streamlib.kafka.transactions import KafkaTransactions
from streamlib.records import HostInfo
from streamlib.runtime.assignor import PROTOCOL, Place

_UNKNOWN_TOPIC_TIMEOUT_MS = 30_000


class Connection:
    """Makes ports that share one client: its metadata, its coordinators, its connections."""

    def __init__(self, config: StreamsConfig, client: KafkaClient) -> None:
        self._config = config
        self.client = client
        self._fetchers: list[KafkaFetcher] = []  # they read on until they are closed

    @classmethod
    async def open(cls, config: StreamsConfig, pool: Pool | None = None) -> Self:
        """Connect and check that the brokers are new enough; over real connections unless there is a `pool` of others.

        Raises:
            ConnectionFailedError: nobody answers at `bootstrap_servers`.
            TlsError: there is no trust between us and the brokers, or no TLS.
            KafkaError: they refuse our credentials.
            UnsupportedBrokerError: the brokers are older than 2.5, or than what `group_protocol` needs.
        """
        settings = ClientSettings(
            bootstrap_servers=config.bootstrap_servers,
            client_id=config.client_id or config.application_id,
            request_timeout_ms=config.request_timeout_ms,
            retry_backoff_ms=config.retry_backoff_ms,
            delivery_timeout_ms=config.delivery_timeout_ms,
            security=config.security,
        )
        connection = cls(config, await KafkaClient.connect(settings, pool))
        if config.group_protocol == "streams":
            try:
                check_supported(connection.client)
            except BaseException:
                await connection.close()
                raise
        return connection

    @property
    def application_id(self) -> str:
        """Whose connection it is."""
        return self._config.application_id

    def group(self) -> KafkaGroup:
        """This worker's membership."""
        config = self._config
        return KafkaGroup(
            self.client,
            config.application_id,
            instance_id=config.group_instance_id,
            session_timeout_ms=config.session_timeout_ms,
            rebalance_timeout_ms=config.max_poll_interval_ms,
            protocol=PROTOCOL,
        )

    def streams_group(self, plan: Plan, place: Place, member_id: str | None) -> KafkaStreamsGroup:
        """This worker's membership where the brokers assign (KIP-1071); without an id, it gets a new one."""
        return KafkaStreamsGroup(
            self.client,
            plan,
            StreamsMember(
                member_id or str(uuid.uuid4()),
                place.process,
                place.tags,
                HostInfo.parse(place.endpoint) if place.endpoint else None,
            ),
            session_timeout_ms=self._config.session_timeout_ms,
            rebalance_timeout_ms=self._config.max_poll_interval_ms,
        )

    def admin(self) -> KafkaAdmin:
        """Topics and offsets of the cluster."""
        return KafkaAdmin(self.client, replication_factor=self._config.replication_factor)

    def producer(self, transactional_id: str | None) -> KafkaProducer:
        """A producer; transactional with an id."""
        config = self._config
        settings = ProducerSettings(
            transaction_timeout_ms=config.transaction_timeout_ms,
            buffer_memory_bytes=config.buffer_memory,
            batch_bytes=config.batch_size,
            max_request_bytes=config.max_request_size,
            compression=config.compression_type,
        )
        return KafkaProducer(self.client, transactional_id, settings)

    def fetcher(self, *, read_committed: bool = True) -> KafkaFetcher:
        """A reader of committed records, or of all there are."""
        config = self._config
        settings = FetcherSettings(
            buffer_bytes=config.max_partition_fetch_bytes,
            buffers_bytes=config.input_buffer_max_bytes // 2,
            response_max_bytes=config.fetch_max_bytes,
            max_wait_ms=config.fetch_max_wait_ms,
            unknown_topic_timeout_ms=min(config.delivery_timeout_ms, _UNKNOWN_TOPIC_TIMEOUT_MS),
            read_committed=read_committed,
        )
        fetcher = KafkaFetcher(self.client, settings)
        self._fetchers.append(fetcher)
        return fetcher

    def transactions(self) -> KafkaTransactions:
        """What the cluster knows of open transactions."""
        return KafkaTransactions(self.client)

    async def close(self) -> None:
        """Stop reading, then close every connection."""
        for fetcher in self._fetchers:
            await fetcher.close()
        await self.client.close()
