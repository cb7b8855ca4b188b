"""The thread that beats for a worker whose function holds it comes in by the same door."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from streamlib.config import StreamsConfig
from streamlib.kafka.connection import Connection
from streamlib.kafka.stand_in import ThreadStandIn
from streamlib.runtime.ports import Beat, Subscription
from streamlib.security import OAuthToken, Secret
from tests.kafka.test_stand_in import Saying
from tests.security.conftest import Fortress, unsecured_token

SESSION_MS = 3000


@pytest.mark.broker
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "OAUTHBEARER"])
async def test_it_keeps_a_member_over_sessions_that_end(
    fortress: Fortress, unique_name: Callable[[str], str], mechanism: str
) -> None:
    name = unique_name("beaten")
    fortress.allow("User:ann", ("GROUP", name, "READ"))
    fortress.allow("User:robot", ("GROUP", name, "READ"))
    settings = fortress.sasl(mechanism, "ann", "BRIEF") | {"application_id": name, "session_timeout_ms": SESSION_MS}
    if mechanism == "OAUTHBEARER":
        del settings["sasl_username"], settings["sasl_password"]

        async def token() -> OAuthToken:
            await asyncio.sleep(0)
            return OAuthToken(Secret(unsecured_token("robot")))

        settings["sasl_oauth_token_provider"] = token
    config = StreamsConfig.load(settings, env={})
    connection, stand_in = await Connection.open(config), ThreadStandIn(config)
    group = connection.group()
    joined = await group.join("", Subscription(("in",)))
    await group.sync(joined.generation, joined.member_id, {})
    stand_in.start(Saying([Beat(joined.member_id, (joined.generation,))]))
    await asyncio.sleep(3 * SESSION_MS / 1000)
    await stand_in.close()
    await group.heartbeat(joined.generation, joined.member_id)  # it is still a member
    await group.leave(joined.member_id)
    await connection.close()
