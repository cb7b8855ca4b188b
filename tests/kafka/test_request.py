"""What aiokafka's connection asks of a request: the contract that `protocol.request` is built on."""

from __future__ import annotations

import asyncio
import logging

import pytest
from aiokafka.conn import AIOKafkaConnection

from streamlib.kafka.protocol.messages import APIS
from streamlib.kafka.protocol.primitives import DecodeError, EncodeError
from streamlib.kafka.protocol.request import Request
from tests.kafka.fake_broker import FakeBroker

HEARTBEAT = APIS["Heartbeat"]


@pytest.fixture
async def connection(fake: FakeBroker) -> AIOKafkaConnection:
    connection = AIOKafkaConnection("127.0.0.1", fake.port, request_timeout_ms=5_000)
    await connection.connect()
    yield connection
    await connection.close()


@pytest.mark.parametrize("version", range(HEARTBEAT.versions[0], HEARTBEAT.versions[1] + 1))
async def test_request_and_response_of_both_header_forms(
    fake: FakeBroker, connection: AIOKafkaConnection, version: int
) -> None:
    fake.answers["Heartbeat"] = lambda body: {"error_code": body.generation_id}
    response = await connection.send(Request(HEARTBEAT, version, {"generation_id": 27}))
    assert response.body(HEARTBEAT, version).error_code == 27


async def test_version_that_the_broker_has_not_is_refused_before_anything_is_sent(
    fake: FakeBroker, connection: AIOKafkaConnection
) -> None:
    with pytest.raises(EncodeError, match="Heartbeatv9"):
        connection.send(Request(HEARTBEAT, 9, {}))
    assert "Heartbeat" not in fake.requests


async def test_body_that_cannot_be_encoded_leaves_the_connection_usable(
    fake: FakeBroker, connection: AIOKafkaConnection
) -> None:
    fake.answers["Heartbeat"] = lambda _: {}
    with pytest.raises(EncodeError):
        connection.send(Request(HEARTBEAT, 4, {"no such field": 1}))
    assert await connection.send(Request(HEARTBEAT, 4, {}))


async def test_cancelled_request_does_not_shift_the_answers_of_others(
    fake: FakeBroker, connection: AIOKafkaConnection
) -> None:
    release = asyncio.Event()

    async def answer(body: object) -> dict[str, int]:
        await release.wait()
        return {"error_code": body.generation_id}  # type: ignore[attr-defined]

    fake.answers["Heartbeat"] = answer
    first = asyncio.ensure_future(connection.send(Request(HEARTBEAT, 4, {"generation_id": 1})))
    second = asyncio.ensure_future(connection.send(Request(HEARTBEAT, 4, {"generation_id": 2})))
    await asyncio.sleep(0)
    first.cancel()
    release.set()
    assert (await second).body(HEARTBEAT, 4).error_code == 2


async def test_response_that_cannot_be_decoded_leaves_the_connection_usable(
    fake: FakeBroker, connection: AIOKafkaConnection, caplog: pytest.LogCaptureFixture
) -> None:
    fake.answers["Heartbeat"] = lambda _: {}
    response = await connection.send(Request(HEARTBEAT, 4, {}))
    with pytest.raises(DecodeError):
        response.body(APIS["Metadata"], 12)
    assert await connection.send(Request(HEARTBEAT, 4, {}))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
