"""Sessions that end are renewed in time, on the same connections, and nothing is lost or overtaken (KIP-368)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from streamlib import KafkaStreams, OAuthToken, Secret, StreamsBuilder, StreamsConfig
from streamlib.cli.client import connected, read_committed, text_record
from streamlib.errors import ConnectionFailedError, ErrorCode, KafkaError
from streamlib.kafka.connector import Connector
from streamlib.kafka.pool import Answer, Link
from streamlib.kafka.protocol.messages import APIS
from streamlib.kafka.protocol.request import Request
from streamlib.kafka.reading import partitions_of
from streamlib.kafka.reauthentication import RenewedConnection
from streamlib.kafka.sasl import Exchange
from tests.security.conftest import BRIEF_MS, Fortress, unsecured_token

_PARTITIONS = 4
_TOKEN_S = 4.0


@pytest.mark.broker
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "OAUTHBEARER"])
async def test_an_application_outlives_its_sessions_on_the_same_connections(
    fortress: Fortress,
    unique_name: Callable[[str], str],
    tmp_path: Path,
    mechanism: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = unique_name("brief")
    fortress.add_user(name)
    user = name if mechanism.startswith("SCRAM") else "robot"
    for resource, names in (("TOPIC", f"{name}*"), ("GROUP", f"{name}*"), ("TRANSACTIONAL_ID", f"{name}*")):
        fortress.allow(f"User:{user}", (resource, names, "ALL"))
    opened = count_opened(monkeypatch)
    caplog.set_level(logging.DEBUG, logger="streamlib.kafka")
    async with connected(fortress.broker.bootstrap_servers, "test") as client:
        for topic in ("in", "out"):
            await client.admin().create_topic(f"{name}-{topic}", _PARTITIONS)
        async with KafkaStreams(copying(name), config(fortress, name, mechanism, tmp_path)) as app:
            await app.wait_running()
            async with produced(client, name) as sent:
                await asyncio.sleep(1.0)
                before = [connection for connection in opened if connection.connected()]
                await asyncio.sleep(3 * BRIEF_MS / 1000)
                assert before
                assert all(connection.connected() for connection in before)
            await until_copied(client, name, sent)
    renewals = [record for record in caplog.messages if "is renewed, for" in record]
    assert len(renewals) >= 2 * 3  # several connections, three times each at most
    assert not [record for record in caplog.messages if "renewed now" in record or "connected anew" in record]


def copying(name: str) -> Any:
    builder = StreamsBuilder()
    builder.stream(f"{name}-in", key=bytes, value=bytes).to(f"{name}-out")
    return builder.build()


def config(fortress: Fortress, name: str, mechanism: str, folder: Path) -> StreamsConfig:
    settings = fortress.sasl(mechanism, name, "BRIEF")
    if mechanism == "OAUTHBEARER":
        del settings["sasl_username"], settings["sasl_password"]
        settings["sasl_oauth_token_provider"] = lambda: OAuthToken(Secret(unsecured_token("robot", _TOKEN_S)))
    settings |= {"application_id": name, "processing_guarantee": "exactly_once_v2", "state_dir": folder}
    return StreamsConfig.load(settings, env={})


def count_opened(monkeypatch: pytest.MonkeyPatch) -> list[RenewedConnection]:
    """The connections whose sessions end that are opened from now on."""
    opened: list[RenewedConnection] = []
    real = Connector.open

    async def counted(self: Connector, node: int, address: Any, number: int) -> Link:
        link = await real(self, node, address, number)
        if isinstance(link.connection, RenewedConnection):
            opened.append(link.connection)
        return link

    monkeypatch.setattr(Connector, "open", counted)
    return opened


@asynccontextmanager
async def produced(client: Any, name: str) -> AsyncIterator[list[bytes]]:
    """Records that keep coming for the time of the block."""
    producer = client.producer(None)
    await producer.init()
    sent: list[bytes] = []

    async def produce() -> None:
        while True:
            value = b"%d" % len(sent)
            producer.send(partitions_of(f"{name}-in", _PARTITIONS)[len(sent) % _PARTITIONS], [text_record("k", value)])
            sent.append(value)
            await asyncio.sleep(0.01)

    producing = asyncio.create_task(produce())
    try:
        yield sent
    finally:
        producing.cancel()
        await producer.flush()
        await producer.close()


async def until_copied(client: Any, name: str, sent: list[bytes]) -> None:
    async with asyncio.timeout(30):
        while True:
            records = read_committed(client, partitions_of(f"{name}-out", _PARTITIONS))
            values = [record.value or b"" async for record in records]
            if len(values) >= len(sent):
                assert sorted(values) == sorted(sent)
                return
            await asyncio.sleep(0.2)


class Line:
    """A connection that answers when it is told to."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.open = True

    def send(self, request: Request) -> asyncio.Future[Answer]:
        if not self.open:
            raise ConnectionError("closed")
        self.sent.append(repr(request))
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answer.set_result(repr(request))
        return answer

    def connected(self) -> bool:
        return self.open

    def close(self) -> None:
        self.open = False


class Doorman:
    """Stands for an `Authenticator`: takes as long as it is told to, and fails as it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.preparing: Exception | None = None
        self.refusing: Exception | None = None

    async def prepare(self) -> Exchange:
        await asyncio.sleep(0)
        if self.preparing is not None:
            raise self.preparing
        return iter(())  # type: ignore[return-value]

    async def authenticate(self, connection: Line, where: str, exchange: Exchange) -> float:
        connection.sent.append("SASL")
        await self.go_on.wait()
        if self.refusing is not None:
            raise self.refusing
        return 3600.0


def request(version: int) -> Request:
    return Request(APIS["Produce"], version, {})


async def answer_to(connection: RenewedConnection, version: int) -> Any:
    return await connection.send(request(version))


async def due(monkeypatch: pytest.MonkeyPatch) -> tuple[RenewedConnection, Line, Doorman]:
    """A connection whose session is due at the next request."""
    line, doorman = Line(), Doorman()
    made = RenewedConnection(line, doorman, "broker 1", 60.0)  # type: ignore[arg-type]
    monkeypatch.setattr(made, "_due_s", 0.0)
    return made, line, doorman


async def ticks() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_requests_wait_for_the_renewal_and_go_out_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    connection, line, doorman = await due(monkeypatch)
    assert await answer_to(connection, 1) == "Producev1"  # while the renewal is prepared, nothing waits
    await ticks()
    waiting = [asyncio.create_task(answer_to(connection, version)) for version in (2, 3, 4)]
    await ticks()
    waiting[1].cancel()
    await ticks()
    assert line.sent == ["Producev1", "SASL"]
    doorman.go_on.set()
    assert [await waiting[0], await waiting[2]] == ["Producev2", "Producev4"]
    await connection.send(request(5))
    assert line.sent == ["Producev1", "SASL", "Producev2", "Producev4", "Producev5"]


async def test_a_session_that_is_not_due_costs_nothing() -> None:
    line = Line()
    connection = RenewedConnection(line, Doorman(), "broker 1", 60.0)  # type: ignore[arg-type]
    await connection.send(request(1))
    await ticks()
    assert line.sent == ["Producev1"]


async def test_nothing_is_sent_in_a_session_that_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker would disconnect who does."""
    connection, line, doorman = await due(monkeypatch)
    monkeypatch.setattr(connection, "_over_s", 0.0)
    waiting = connection.send(request(1))
    await ticks()
    doorman.go_on.set()
    await waiting
    assert line.sent == ["SASL", "Producev1"]


async def test_a_session_that_is_over_without_a_token_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    connection, line, doorman = await due(monkeypatch)
    monkeypatch.setattr(connection, "_over_s", 0.0)
    doorman.preparing = ConnectionFailedError("Token", "https://example.org")
    with pytest.raises(ConnectionError, match=r"example\.org"):
        await connection.send(request(1))
    assert line.sent == []
    assert not connection.connected()


async def test_a_refusal_closes_the_connection_and_fails_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    connection, line, doorman = await due(monkeypatch)
    doorman.refusing = KafkaError(ErrorCode.SASL_AUTHENTICATION_FAILED, "SaslAuthenticate", "broker 1")
    await connection.send(request(1))
    await ticks()
    waiting = connection.send(request(2))
    doorman.go_on.set()
    with pytest.raises(ConnectionError):
        await waiting
    assert not connection.connected()
    assert "Producev2" not in line.sent


async def test_a_token_that_is_not_to_be_had_leaves_the_session_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    connection, line, doorman = await due(monkeypatch)
    doorman.preparing = ConnectionFailedError("Token", "https://example.org")
    for version in (1, 2):
        await connection.send(request(version))
        await ticks()
    assert line.sent == ["Producev1", "Producev2"]
    assert connection.connected()


async def test_closing_in_the_middle_fails_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    connection, _, _ = await due(monkeypatch)
    await connection.send(request(1))
    await ticks()
    waiting = connection.send(request(2))
    connection.close()
    with pytest.raises(ConnectionError, match="closed while its session was renewed"):
        await waiting
