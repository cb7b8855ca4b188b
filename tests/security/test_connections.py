"""Every way to say who one is, to a broker that asks for it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streamlib.config import StreamsConfig
from streamlib.errors import KafkaError
from streamlib.kafka.connection import Connection
from streamlib.security import OAuthToken, Secret
from streamlib.testing.broker import BrokerError
from tests.security.conftest import KEY_PASSWORD, PASSWORD, Fortress, unsecured_token

pytestmark = pytest.mark.broker


def command(fortress: Fortress, folder: Path, *words: str) -> str:
    """Run as ann; returns what it printed."""
    settings = fortress.sasl("SCRAM-SHA-512", "ann")
    servers = settings.pop("bootstrap_servers")
    env = {f"STREAMLIB_{name.upper()}": value for name, value in settings.items()}
    line = [sys.executable, "-m", "streamlib", *words, "--bootstrap-servers", servers]
    done = subprocess.run(
        line, cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    return done.stdout


async def enters(settings: dict[str, Any]) -> bool:
    connection = await Connection.open(StreamsConfig.load({"application_id": "someone", **settings}, env={}))
    brokers = connection.client.brokers
    await connection.client.call("Metadata", {"topics": []}, node=next(iter(brokers)))  # the one that was named
    await connection.close()
    return bool(brokers)


@pytest.mark.parametrize(
    ("mechanism", "user"), [("PLAIN", "paula"), ("SCRAM-SHA-256", "ann"), ("SCRAM-SHA-512", "ann")]
)
async def test_passwords(fortress: Fortress, mechanism: str, user: str) -> None:
    assert await enters(fortress.sasl(mechanism, user))


async def test_password_in_a_file_is_read_again_for_each_connection(fortress: Fortress) -> None:
    file = fortress.folder / "password"
    file.write_text("wrong\n")
    settings = fortress.sasl("SCRAM-SHA-512", "ann")
    del settings["sasl_password"]
    config = StreamsConfig.load({"application_id": "someone", **settings, "sasl_password_file": file}, env={})
    with pytest.raises(KafkaError, match="Authentication failed"):
        await Connection.open(config)
    file.write_text(f"{PASSWORD}\n")
    await (await Connection.open(config)).close()


async def test_names_with_commas_and_equals_signs(fortress: Fortress) -> None:
    fortress.add_user("a=b,c")
    assert await enters(fortress.sasl("SCRAM-SHA-512", "a=b,c"))


@pytest.mark.parametrize("password", [None, KEY_PASSWORD])
async def test_a_certificate(fortress: Fortress, password: str | None) -> None:
    own = fortress.authority.sign("worker", password=password)
    assert await enters({**fortress.tls(), "ssl_certfile": own, "ssl_key_password": password})


async def test_certificates_that_were_replaced_are_used_from_the_next_connection_on(fortress: Fortress) -> None:
    own = fortress.authority.sign("renewed")
    strange = type(fortress.authority)(fortress.folder, "strange-renewal").sign("strange-renewed")
    file = fortress.folder / "own.pem"
    shutil.copy(own, file)
    config = StreamsConfig.load({"application_id": "someone", **fortress.tls(), "ssl_certfile": file}, env={})
    connection = await Connection.open(config)
    shutil.copy(strange, file)
    os.utime(file, (1, 1))
    connection.client.disconnect("default")
    with pytest.raises(KafkaError, match="does not accept our certificate"):
        await connection.client.call("Metadata", {"topics": []}, node=next(iter(connection.client.brokers)))
    await connection.close()


@pytest.mark.parametrize("blocking", [False, True])
async def test_tokens_of_a_function(fortress: Fortress, blocking: bool) -> None:
    asked = 0

    def token() -> OAuthToken:
        nonlocal asked
        asked += 1
        return OAuthToken(Secret(unsecured_token("robot")), 4_000_000_000_000)

    async def token_later() -> OAuthToken:
        await asyncio.sleep(0)
        return token()

    settings = fortress.sasl("OAUTHBEARER", "")
    del settings["sasl_username"], settings["sasl_password"]
    assert await enters({**settings, "sasl_oauth_token_provider": token if blocking else token_later})
    assert asked == 1  # for the bootstrap connection and the one after it


def test_a_listener_that_the_broker_has_not_is_said(fortress: Fortress) -> None:
    with pytest.raises(BrokerError, match="has no listener NOWHERE"):
        fortress.servers("NOWHERE")


def test_topics_are_created_as_the_environment_says_who_one_is(fortress: Fortress, tmp_path: Path) -> None:
    fortress.allow("User:ann", ("TOPIC", "made-*", "CREATE DESCRIBE"))
    assert "created: made-by-ann" in command(fortress, tmp_path, "broker", "topic", "made-by-ann")
