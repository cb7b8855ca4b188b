"""Credentials that a broker refuses: told from a broker that cannot be reached."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from streamlib.errors import ErrorCode, KafkaError
from streamlib.kafka.client import ClientSettings, KafkaClient
from streamlib.kafka.pool import Security
from streamlib.testing.broker import Broker

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
                sasl_plain_username="ann",
                sasl_plain_password="secret",
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
    error = await refusal(settings, sasl_plain_password="wrong")
    assert error.code == ErrorCode.SASL_AUTHENTICATION_FAILED
    for part in ("127.0.0.1", "Authentication failed: Invalid username or password", "check user name and password"):
        assert part in str(error)


@pytest.mark.broker
async def test_mechanism_that_the_broker_has_not_is_said_with_where_to_look(settings: ClientSettings) -> None:
    error = await refusal(settings, sasl_mechanism="SCRAM-SHA-512")
    assert error.code == ErrorCode.UNSUPPORTED_SASL_MECHANISM
    assert "sasl.enabled.mechanisms" in str(error)
