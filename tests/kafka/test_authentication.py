"""Credentials that a broker refuses: told from a broker that cannot be reached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import msgspec
import pytest

from streamlib.errors import ConnectionFailedError, ErrorCode, KafkaError
from streamlib.kafka import client as client_module
from streamlib.kafka.client import ClientSettings, KafkaClient
from streamlib.kafka.cluster import Address
from streamlib.kafka.connector import Connector
from streamlib.kafka.pool import ConnectionPool, Link
from streamlib.security import Secret, Security
from streamlib.testing.broker import Broker
from streamlib.testing.plugin import KafkaTarget

JAAS = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_ann="secret";'
# Brokers of 4.3 with several users would want a login for themselves, too; clients come in through this listener only.
SASL = {
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXY:SASL_PLAINTEXT",
    "listener.name.proxy.sasl.enabled.mechanisms": "PLAIN",
    "listener.name.proxy.plain.sasl.jaas.config": JAAS,
}


@pytest.fixture(scope="module")
def settings() -> Iterator[ClientSettings]:
    """Of a client with the right credentials."""
    with Broker.start(proxied_port=9, config=SASL) as broker:
        yield ClientSettings(
            bootstrap_servers=f"127.0.0.1:{broker.proxy_target_port}",
            security=Security(
                security_protocol="SASL_PLAINTEXT",
                sasl_mechanism="PLAIN",
                sasl_username="ann",
                sasl_password=Secret("secret"),
            ),
        )


async def refusal(settings: ClientSettings, **security: str) -> KafkaError:
    changed = msgspec.structs.replace(settings.security, **security)
    with pytest.raises(KafkaError) as raised:
        await KafkaClient.connect(msgspec.structs.replace(settings, security=changed))
    return raised.value


@pytest.mark.broker
async def test_right_credentials_are_taken(settings: ClientSettings) -> None:
    client = await KafkaClient.connect(settings)
    assert client.brokers
    await client.close()


@pytest.mark.broker
async def test_wrong_password_is_said_with_the_broker_s_words(settings: ClientSettings) -> None:
    error = await refusal(settings, sasl_password="wrong")
    assert error.code == ErrorCode.SASL_AUTHENTICATION_FAILED
    for part in ("127.0.0.1", "Authentication failed: Invalid username or password", "check user name and password"):
        assert part in str(error)


@pytest.mark.broker
async def test_mechanism_that_the_broker_has_not_is_said_with_where_to_look(settings: ClientSettings) -> None:
    error = await refusal(settings, sasl_mechanism="SCRAM-SHA-512")
    assert error.code == ErrorCode.UNSUPPORTED_SASL_MECHANISM
    assert "sasl.enabled.mechanisms" in str(error)


class Doorkeeper:
    """Opens real connections, but not to those it denies."""

    def __init__(self) -> None:
        self.denies: Callable[[Address], bool] = lambda address: False
        self._connector = Connector("test", Security(), 10_000, 60_000)

    async def open(self, node: int, address: Address, number: int) -> Link:
        if self.denies(address):
            raise KafkaError(ErrorCode.SASL_AUTHENTICATION_FAILED, "SaslAuthenticate", str(address))
        return await self._connector.open(node, address, number)


async def connected(kafka: KafkaTarget, keeper: Doorkeeper, patience_ms: int = 60_000) -> KafkaClient:
    settings = ClientSettings(
        bootstrap_servers=f"127.0.0.1:9,{kafka.bootstrap_servers}", authentication_patience_ms=patience_ms
    )
    return await KafkaClient.connect(settings, ConnectionPool(keeper.open))


async def denied(client: KafkaClient) -> KafkaError:
    """What a request says that needs a new connection, and is not let in."""
    client.disconnect("default")
    with pytest.raises(KafkaError) as raised:
        await client.call("Metadata", {"topics": []}, node=next(iter(client.brokers)))
    return raised.value


async def test_one_broker_that_refuses_is_passed_over_for_another(kafka_broker: KafkaTarget) -> None:
    keeper = Doorkeeper()
    keeper.denies = lambda address: address.port == 9
    client = await connected(kafka_broker, keeper)
    assert client.brokers
    await client.close()


async def test_a_refusal_counts_as_not_reached_until_patience_is_used_up(kafka_broker: KafkaTarget) -> None:
    keeper = Doorkeeper()
    client = await connected(kafka_broker, keeper, patience_ms=100)
    keeper.denies = lambda address: True
    assert isinstance(await denied(client), ConnectionFailedError)
    await asyncio.sleep(0.15)
    assert (await denied(client)).code == ErrorCode.SASL_AUTHENTICATION_FAILED
    await client.close()


async def test_being_let_in_again_renews_the_patience(kafka_broker: KafkaTarget) -> None:
    keeper = Doorkeeper()
    client = await connected(kafka_broker, keeper, patience_ms=100)
    for _ in range(3):
        keeper.denies = lambda address: True
        assert isinstance(await denied(client), ConnectionFailedError)
        keeper.denies = lambda address: False
        await client.refresh_metadata(())
        await asyncio.sleep(0.07)
    await client.close()


async def test_a_refusal_of_long_ago_is_forgotten(kafka_broker: KafkaTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_FORGET_DENIALS_S", 0.1)
    keeper = Doorkeeper()
    client = await connected(kafka_broker, keeper, patience_ms=50)
    keeper.denies = lambda address: True
    for _ in range(2):
        assert isinstance(await denied(client), ConnectionFailedError)
        await asyncio.sleep(0.15)
    await client.close()
