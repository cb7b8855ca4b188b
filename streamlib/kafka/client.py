"""Requests to a Kafka cluster: versions, connections, metadata, coordinators, and one way to repeat.

`call` makes one request and repeats nothing; `retrying` repeats what the error table says may be repeated
with the same bytes. There is no background task but a refresh of old metadata, which the next call starts.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from typing import Any, Literal, Self, TypeAlias, TypeVar

import msgspec
from aiokafka.conn import collect_hosts
from aiokafka.errors import KafkaError as AioKafkaError

from streamlib.errors import ConnectionFailedError, ErrorCode, KafkaError, UnsupportedBrokerError
from streamlib.kafka.cluster import Address, ClusterView
from streamlib.kafka.connector import Connector
from streamlib.kafka.errors import Refresh, check_code, error_row
from streamlib.kafka.pool import ConnectionPool, Link, Pool
from streamlib.kafka.protocol.messages import APIS
from streamlib.kafka.protocol.primitives import DecodeError
from streamlib.kafka.protocol.request import Request
from streamlib.records import TopicPartition
from streamlib.runtime.complaints import Complaints
from streamlib.security import Security

log = logging.getLogger("streamlib.kafka")

T = TypeVar("T")

Response: TypeAlias = Any
"""A decoded response: a light record with one attribute for each field of the API's table."""

CoordinatorKind = Literal["group", "transaction"]

_COORDINATOR_KEY_TYPES: Mapping[str, int] = {"group": 0, "transaction": 1}
_NEEDED_VERSIONS: Mapping[str, tuple[int, str]] = {
    "OffsetFetch": (7, "2.5"),
    "TxnOffsetCommit": (3, "2.5"),
    "InitProducerId": (3, "2.5"),
}
_QUICK_BACKOFF_MS = 2
_JITTER = 0.2
# What passes sooner is not worth a line in the log: a leader that moves, a transaction that ends.
_WARN_AFTER_S = 1.0
# Denials so long after one another have nothing to do with each other.
_FORGET_DENIALS_S = 60.0
# How many answers in a row have to say that a topic we know has gone.
_ANSWERS_TO_BELIEVE = 3


class ClientSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the cluster. `delivery_timeout_ms` bounds all attempts at one thing together.

    `authentication_patience_ms` is how long brokers may refuse credentials that they have taken before: one that was
    restarted or replaced may load them late.
    """

    bootstrap_servers: str
    client_id: str = "streamlib"
    request_timeout_ms: int = 30_000
    connect_timeout_ms: int = 10_000
    connections_max_idle_ms: int = 540_000
    retry_backoff_ms: int = 50
    retry_backoff_max_ms: int = 1_000
    delivery_timeout_ms: int = 120_000
    metadata_max_age_ms: int = 300_000
    authentication_patience_ms: int = 600_000
    security: Security = Security()


class _Denials(msgspec.Struct):
    first_s: float
    last_s: float


class KafkaClient:
    """A cluster's client, shared by the ports of a worker."""

    def __init__(self, settings: ClientSettings, pool: Pool | None = None) -> None:
        """Use `connect`."""
        self.settings = settings
        self._pool = pool or _real_pool(settings)
        hosts = collect_hosts(settings.bootstrap_servers, randomize=False)
        self._view = ClusterView(Address(host, port) for host, port, _ in hosts)
        # The newest link of each node says what it can do now; after an upgrade there is a newer one.
        self._links: dict[int, Link] = {}
        self._denials: dict[int, _Denials] = {}  # by nodes that refuse our credentials
        self.complaints = Complaints(log)
        self._negotiated: dict[str, int] = {}
        self._coordinators: dict[tuple[str, CoordinatorKind], int] = {}
        self._topics: set[str] = set()
        self._refreshed_at_s = -math.inf  # of the loop's clock, which may begin at 0
        self._refresh_lock = asyncio.Lock()
        self._background_refresh: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, settings: ClientSettings, pool: Pool | None = None) -> Self:
        """Find the cluster, over real connections unless there is a `pool` of others.

        Raises:
            ConnectionFailedError: nobody answers at `bootstrap_servers` within `connect_timeout_ms` each.
            UnsupportedBrokerError: the brokers are older than 2.5.
        """
        client = cls(settings, pool)
        try:
            await client.refresh_metadata(())
        except BaseException:
            await client.close()
            raise
        return client

    async def close(self) -> None:
        """Close all connections; pending calls fail."""
        if self._background_refresh is not None:
            self._background_refresh.cancel()
            await asyncio.wait([self._background_refresh])
        await self._pool.close()

    # One request

    async def call(
        self,
        api: str,
        body: Mapping[str, Any],
        *,
        node: int | None = None,
        lane: Hashable = "default",
        max_version: int | None = None,
        where: str = "",
        timeout_ms: int | None = None,
    ) -> Response:
        """Make one request to a node (or to any) and wait for its answer, whatever error codes that holds.

        `timeout_ms` replaces `request_timeout_ms` for requests that the broker holds back. A timeout closes
        the connection of the lane: what comes behind it would wait, too. A cancelled call leaves the
        connection usable for others, but the broker answers it before it answers them: `disconnect` the
        lane of a long poll.

        Raises:
            ConnectionFailedError: no answer; the broker may or may not have done it.
            UnsupportedBrokerError: the cluster has no version of the request that we speak.
            EncodeError: the body has a field that the request does not have (a mistake in streamlib).
        """
        self._refresh_if_old()
        if node is None:
            node = self._any_node()
        timeout_s = (timeout_ms or self.settings.request_timeout_ms) / 1000
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(api, body, node, lane, max_version, where)
        except TimeoutError as error:
            self._pool.drop(node, lane)
            detail = f"broker {node} did not answer within {timeout_s:g} s"
            raise ConnectionFailedError(api, where, detail) from error

    def disconnect(self, lane: Hashable) -> None:
        """Close the lane's connections: after a cancelled long poll, the next request would wait for it."""
        self._pool.drop_lane(lane)

    def version(self, api: str) -> int:
        """The highest version of the request that we and all brokers seen so far speak.

        Raises:
            UnsupportedBrokerError: there is none.
        """
        if api in self._negotiated:
            return self._negotiated[api]
        ours = APIS[api]
        lowest, highest = ours.versions
        for link in self._links.values():
            theirs = link.versions.get(ours.key, (0, -1))
            lowest, highest = max(lowest, theirs[0]), min(highest, theirs[1])
        if lowest > highest:
            raise UnsupportedBrokerError(api, f"no common version: we speak {ours.versions}")
        self._negotiated[api] = highest
        return highest

    @property
    def transaction_version(self) -> int:
        """The cluster's level of transactions: 2 = KIP-890 (an epoch for each one), 0 and 1 = before."""
        newest = max(self._links.values(), key=lambda link: link.features_epoch, default=None)
        return newest.features.get("transaction.version", 0) if newest is not None else 0

    # Repeating

    async def retrying(self, attempt: Callable[[], Awaitable[T]], *, deadline_ms: int | None = None) -> T:
        """Repeat `attempt` while it raises what may be repeated with the same bytes, with growing pauses.

        What the error says is stale (leaders, coordinators) is asked for anew between two attempts. After
        `deadline_ms` (by default `delivery_timeout_ms`) the last error is raised; all other errors at once.
        """
        clock = asyncio.get_running_loop().time
        began_s = clock()
        limit_ms = self.settings.delivery_timeout_ms if deadline_ms is None else deadline_ms
        give_up_at_s = began_s + limit_ms / 1000
        complained = ""
        for tries in itertools.count():
            try:
                result = await attempt()
            except KafkaError as error:
                row = error_row(error.code)
                pause_s = self._backoff_s(tries, quick=row.quick)
                if not row.retriable or clock() + pause_s > give_up_at_s:
                    raise
                if clock() - began_s > _WARN_AFTER_S and self._complain(error, clock() - began_s):
                    complained = error.api
            else:
                if complained:
                    log.info("%s works again, after %.0f s", complained, clock() - began_s)
                return result
            await asyncio.sleep(pause_s)
            await self._refresh(row.refresh)
        raise AssertionError("unreachable")

    def _complain(self, error: KafkaError, elapsed_s: float) -> bool:
        now_ms = asyncio.get_running_loop().time() * 1000
        return self.complaints.warn(error.code, now_ms, "tried again for %.0f s: %s", elapsed_s, error)

    # Coordinators

    async def coordinator(self, key: str, kind: CoordinatorKind) -> int:
        """The node that coordinates the group or transactional id; remembered until forgotten.

        Raises:
            KafkaError: COORDINATOR_NOT_AVAILABLE for instance, which `retrying` repeats.
        """
        known = self._coordinators.get((key, kind))
        if known is not None and known in self._view.brokers:
            return known
        node = await self._find_coordinator(key, kind)
        if node not in self._view.brokers:
            await self.refresh_metadata(())
        self._coordinators[key, kind] = node
        return node

    def forget_coordinator(self, key: str, kind: CoordinatorKind) -> None:
        """Ask again next time."""
        self._coordinators.pop((key, kind), None)

    # Metadata

    @property
    def brokers(self) -> dict[int, Address]:
        """The cluster's brokers."""
        return self._view.brokers

    @property
    def controller(self) -> int | None:
        """Where requests that change topics go; any broker from 2.8 on takes them, too."""
        return self._view.controller

    def leader(self, partition: TopicPartition) -> int | None:
        """The partition's leader as last heard; None if there is none or `refresh_metadata` never asked."""
        return self._view.leader(partition)

    def check_topic(self, topic: str) -> None:
        """Raise what the last metadata refused the topic with: TOPIC_AUTHORIZATION_FAILED for instance.

        For topics without leaders; that a topic is unknown is no refusal, it may be new.
        """
        check_code(self._view.refusal(topic), "Metadata", f"topic {topic}")

    async def refresh_metadata(self, topics: Iterable[str]) -> None:
        """Ask for the leaders of these topics and of all that were asked for before.

        However many ask at the same time, there are two requests at most: one under way, one after it.

        Raises:
            ConnectionFailedError: no broker answers, neither the known ones nor at `bootstrap_servers`.
        """
        clock = asyncio.get_running_loop().time
        asked_at_s = clock()
        new = set(topics) - self._topics
        self._topics |= new
        async with self._refresh_lock:
            if self._refreshed_at_s >= asked_at_s and not new:
                return
            starts_at_s = clock()
            self._view.absorb(await self._ask_metadata(self._topics))
            self._refreshed_at_s = starts_at_s

    async def partition_counts(self, topics: Iterable[str]) -> dict[str, int]:
        """The number of partitions of each topic that exists, asked afresh.

        A topic that was there is only believed to have gone when several answers in a row say so: a broker
        that has just started may not know it yet.

        Raises:
            KafkaError: TOPIC_AUTHORIZATION_FAILED, INVALID_TOPIC_EXCEPTION.
        """
        wanted = sorted(set(topics))
        if not wanted:
            return {}
        for answers in itertools.count(1):
            counts = await self.retrying(lambda: self._ask_counts(wanted))
            gone = [topic for topic in wanted if self._view.count(topic) and topic not in counts]
            if not gone:
                return counts
            if answers == _ANSWERS_TO_BELIEVE:
                for topic in gone:
                    self._view.forget(topic)
                return counts
            await asyncio.sleep(self._backoff_s(answers, quick=False))
        raise AssertionError("unreachable")

    async def topics(self) -> dict[str, int]:
        """The number of partitions of every topic that may be seen, asked afresh."""
        return await self.retrying(lambda: self._ask_counts(None))

    async def _exchange(
        self,
        api: str,
        body: Mapping[str, Any],
        node: int,
        lane: Hashable,
        max_version: int | None,
        where: str,
    ) -> Response:
        expected = self.version(api)
        link = await self._link(api, node, lane, where)
        version = self.version(api)
        if version < expected:
            # The caller made the body for what the others speak; it has to look again.
            raise ConnectionFailedError(api, where, f"broker {node} is older than the others (v{version})")
        version = version if max_version is None else min(version, max_version)
        try:
            response = await link.connection.send(Request(APIS[api], version, body))
            return response.body(APIS[api], version)
        except (AioKafkaError, OSError) as error:
            raise ConnectionFailedError(api, where, f"broker {node}: {error}") from error
        except DecodeError as error:
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, api, where, f"broker {node}: {error}") from error

    async def _link(self, api: str, node: int, lane: Hashable, where: str) -> Link:
        address = self._view.address(node)
        if address is None:
            raise ConnectionFailedError(api, where, f"broker {node} is not in the cluster's metadata")
        try:
            link = await self._pool.link(node, lane, address)
        except KafkaError as error:
            if error.code == ErrorCode.SASL_AUTHENTICATION_FAILED:
                self._bear_with(node, error)
            raise
        known = self._links.get(node)
        if known is None or known.number < link.number:
            _check_age(link, address)
            self._learn(node, link)
        return link

    def _bear_with(self, node: int, refusal: KafkaError) -> None:
        """Brokers that took our credentials before may take them again: for a while, it counts as not reached.

        Raises:
            ConnectionFailedError: may be tried again.
        """
        now_s = asyncio.get_running_loop().time()
        denials = self._denials.get(node)
        if denials is None or now_s - denials.last_s > _FORGET_DENIALS_S:
            denials = self._denials[node] = _Denials(now_s, now_s)
        denials.last_s = now_s
        left_s = denials.first_s + self.settings.authentication_patience_ms / 1000 - now_s
        if self._links and left_s > 0:
            detail = f"{refusal} (it worked before, so the brokers get {left_s:.0f} s to load their credentials)"
            raise ConnectionFailedError(refusal.api, refusal.where, detail) from refusal

    def _learn(self, node: int, link: Link) -> None:
        """Take in what a broker can do.

        Brokers that left are forgotten, the bootstrap address as soon as the broker behind it is known.
        """
        self._links = {known: self._links[known] for known in self._links.keys() & self._view.brokers.keys()}
        self._links[node] = link
        self._denials.pop(node, None)
        self._negotiated.clear()

    def _any_node(self) -> int:
        return random.choice(list(self._view.brokers or self._view.bootstrap))

    def _backoff_s(self, tries: int, *, quick: bool) -> float:
        first = _QUICK_BACKOFF_MS if quick else self.settings.retry_backoff_ms
        pause = min(first << min(tries, 30), self.settings.retry_backoff_max_ms)
        return pause * random.uniform(1 - _JITTER, 1 + _JITTER) / 1000

    async def _refresh(self, what: Refresh) -> None:
        if what in ("coordinator", "everything"):
            # All of them: a worker has three, and they seldom move.
            self._coordinators.clear()
        if what in ("metadata", "everything"):
            await self._refresh_quietly()

    async def _refresh_quietly(self) -> None:
        try:
            await self.refresh_metadata(())
        except KafkaError as error:
            now_ms = asyncio.get_running_loop().time() * 1000
            self.complaints.warn("metadata", now_ms, "metadata could not be refreshed: %s", error)

    def _refresh_if_old(self) -> None:
        age_s = asyncio.get_running_loop().time() - self._refreshed_at_s
        running = self._background_refresh is not None and not self._background_refresh.done()
        if age_s * 1000 < self.settings.metadata_max_age_ms or running or self._refresh_lock.locked():
            return
        self._background_refresh = asyncio.create_task(self._refresh_quietly())

    async def _find_coordinator(self, key: str, kind: CoordinatorKind) -> int:
        key_type = _COORDINATOR_KEY_TYPES[kind]
        many = self.version("FindCoordinator") >= 4
        body = {"key_type": key_type} | ({"coordinator_keys": [key]} if many else {"key": key})
        where = f"{kind} {key}"
        response = await self.call("FindCoordinator", body, where=where)
        found = response.coordinators[0] if many else response
        check_code(found.error_code, "FindCoordinator", where, found.error_message)
        return int(found.node_id)

    async def _ask_metadata(self, topics: Iterable[str] | None) -> Response:
        """Ask one broker after the other, at last those the user named, until one answers. None: about all topics."""
        named = None if topics is None else [{"name": topic} for topic in sorted(topics)]
        body = {"topics": named, "allow_auto_topic_creation": False}
        nodes = random.sample(list(self._view.brokers), len(self._view.brokers)) + list(self._view.bootstrap)
        failures: dict[str, str] = {}
        refusal: KafkaError | None = None
        for node in nodes:
            try:
                metadata = await self._exchange_in_time("Metadata", body, node)
            except ConnectionFailedError as error:
                if error.api == "Token":
                    raise  # no broker is to blame, and none would take us without
                failures[str(self._view.address(node))] = str(error)
                continue
            except KafkaError as error:
                if error.code != ErrorCode.SASL_AUTHENTICATION_FAILED:
                    raise
                refusal = error  # another broker may know us already
                continue
            if metadata.brokers:
                self._drop_bootstrap()
                return metadata
            failures[str(self._view.address(node))] = "knows of no broker yet"
        raise refusal or _nobody_answered(failures)

    def _drop_bootstrap(self) -> None:
        for node in self._view.bootstrap:
            self._pool.drop(node, "default")

    async def _exchange_in_time(self, api: str, body: Mapping[str, Any], node: int) -> Response:
        timeout_s = self.settings.connect_timeout_ms / 1000
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(api, body, node, "default", None, "")
        except TimeoutError as error:
            self._pool.drop(node, "default")
            raise ConnectionFailedError(api, "", f"no answer within {timeout_s:g} s") from error

    async def _ask_counts(self, topics: list[str] | None) -> dict[str, int]:
        metadata = await self._ask_metadata(topics)
        known = {}
        for topic in metadata.topics:
            if topic.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                continue
            check_code(topic.error_code, "Metadata", f"topic {topic.name}")
            if topic.partitions:
                known[topic.name] = len(topic.partitions)
        if topics is not None:
            # What is known of a topic has to be kept up to date: whoever finds a leader does not ask for it again.
            self._topics |= known.keys()
        metadata.topics = [topic for topic in metadata.topics if topic.name in self._topics]
        self._view.absorb(metadata)
        return known


def _real_pool(settings: ClientSettings) -> ConnectionPool:
    connector = Connector(
        settings.client_id, settings.security, settings.connect_timeout_ms, settings.connections_max_idle_ms
    )
    return ConnectionPool(connector.open)


def _check_age(link: Link, address: Address) -> None:
    for api, (needed, release) in _NEEDED_VERSIONS.items():
        if link.versions.get(APIS[api].key, (0, -1))[1] < needed:
            detail = f"the broker at {address} is too old: Kafka {release} or newer is needed (KIP-447)"
            raise UnsupportedBrokerError(api, detail)


def _nobody_answered(failures: Mapping[str, str]) -> ConnectionFailedError:
    detail = (
        f"no broker answered at {', '.join(failures)}; check bootstrap_servers, that the brokers run, and "
        f"that their advertised.listeners can be reached from here (last: {list(failures.values())[-1]})"
    )
    return ConnectionFailedError("Metadata", "", detail)
