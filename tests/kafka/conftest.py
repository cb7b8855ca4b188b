"""A client of the cluster under test and its ports, and a fake broker for what a real one will not do on demand."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest

from streamlib.kafka.admin import KafkaAdmin
from streamlib.kafka.client import ClientSettings, KafkaClient
from streamlib.testing.plugin import KafkaTarget
from tests.kafka.fake_broker import FakeBroker


@pytest.fixture
async def client(kafka: KafkaTarget) -> AsyncIterator[KafkaClient]:
    """Connected to a broker of each version in turn."""
    settings = ClientSettings(bootstrap_servers=kafka.bootstrap_servers, delivery_timeout_ms=20_000)
    client = await KafkaClient.connect(settings)
    yield client
    await client.close()


@pytest.fixture
def admin(client: KafkaClient) -> KafkaAdmin:
    """Topics of the cluster under test."""
    return KafkaAdmin(client)


@pytest.fixture
async def fake() -> AsyncIterator[FakeBroker]:
    """A scripted broker."""
    broker = await FakeBroker.start()
    yield broker
    await broker.stop()


@pytest.fixture
async def fake_client(fake: FakeBroker) -> AsyncIterator[KafkaClient]:
    """Connected to the scripted broker, with short times."""
    settings = ClientSettings(
        bootstrap_servers=fake.address,
        request_timeout_ms=5_000,
        connect_timeout_ms=2_000,
        retry_backoff_ms=1,
        delivery_timeout_ms=2_000,
    )
    client = await KafkaClient.connect(settings)
    yield client
    await client.close()


@pytest.fixture
def unused_ports() -> list[int]:
    """Ports that nobody listens on."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return [one.getsockname()[1], other.getsockname()[1]]
