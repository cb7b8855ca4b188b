"""Tokens from an endpoint and from a user's function: kept while they are good; refusals are told from outages."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from streamlib.config import StreamsConfig
from streamlib.errors import ConnectionFailedError, ErrorCode, KafkaError
from streamlib.kafka.connection import Connection
from streamlib.kafka.oauth import TokenSource
from streamlib.security import OAuthToken, Secret, Security
from tests.security.conftest import Fortress, unsecured_token

SECRET = "client-secret/+:never-shown"


class Endpoint:
    """A token endpoint on this machine; `status` and `body` are what it answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        self.status = 200
        self.body: Any = {"access_token": unsecured_token("robot"), "expires_in": 3600, "token_type": "bearer"}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/token"

    def _handler(endpoint) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                endpoint.asked.append((self.headers["Authorization"], parse_qs(form)))
                self.send_response(endpoint.status)
                self.send_header("Location", endpoint.url)
                self.end_headers()
                text = endpoint.body if isinstance(endpoint.body, str) else json.dumps(endpoint.body)
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def granting(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "OAUTHBEARER",
        "sasl_oauthbearer_token_endpoint_url": endpoint.url,
        "sasl_oauthbearer_client_credentials_client_id": "me:too",
        "sasl_oauthbearer_client_credentials_client_secret": SECRET,
        "sasl_oauthbearer_scope": "kafka read",
    }


def source(endpoint: Endpoint) -> TokenSource:
    return TokenSource(Security(**granting(endpoint)), 5.0)


def provided(provider: Any) -> TokenSource:
    settings: dict[str, Any] = {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}
    return TokenSource(Security(**settings, sasl_oauth_token_provider=provider), 5.0)


async def refusal(tokens: TokenSource) -> KafkaError:
    with pytest.raises(KafkaError) as caught:
        await tokens.token()
    assert SECRET not in str(caught.value)
    return caught.value


async def test_the_grant_is_as_in_rfc_6749(endpoint: Endpoint) -> None:
    token = await source(endpoint).token()
    assert token.value.reveal() == endpoint.body["access_token"]
    ((authorization, form),) = endpoint.asked
    assert base64.b64decode(authorization.removeprefix("Basic ")).decode() == (
        "me%3Atoo:client-secret%2F%2B%3Anever-shown"
    )
    assert form == {"grant_type": ["client_credentials"], "scope": ["kafka read"]}


@pytest.mark.broker
async def test_a_broker_takes_a_granted_token(fortress: Fortress, endpoint: Endpoint) -> None:
    settings = fortress.sasl("OAUTHBEARER", "") | granting(endpoint)
    del settings["sasl_username"], settings["sasl_password"]
    connection = await Connection.open(StreamsConfig.load({"application_id": "someone", **settings}, env={}))
    assert connection.client.brokers
    await connection.close()
    assert len(endpoint.asked) == 1


@pytest.mark.broker
async def test_a_token_that_the_broker_refuses_is_said(fortress: Fortress) -> None:
    settings = fortress.sasl("OAUTHBEARER", "")
    del settings["sasl_username"], settings["sasl_password"]
    expired = unsecured_token("robot", -60)
    settings["sasl_oauth_token_provider"] = lambda: OAuthToken(Secret(expired))
    with pytest.raises(KafkaError, match="check the token's audience, scope and expiry") as caught:
        await Connection.open(StreamsConfig.load({"application_id": "someone", **settings}, env={}))
    assert caught.value.code == ErrorCode.SASL_AUTHENTICATION_FAILED
    assert expired not in str(caught.value)


async def test_a_token_is_used_again_for_four_fifths_of_its_life(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr("time.time", lambda: now_s[0])
    tokens = source(endpoint)
    for now_s[0], asked in ((1000.0, 1), (1000.0 + 0.79 * 3600, 1), (1000.0 + 0.81 * 3600, 2)):
        await tokens.token()
        assert len(endpoint.asked) == asked


async def test_a_refusal_is_final_and_an_outage_is_not(endpoint: Endpoint) -> None:
    endpoint.status, endpoint.body = 401, {"error": "invalid_client", "error_description": "who?"}
    error = await refusal(source(endpoint))
    assert error.code == ErrorCode.SASL_AUTHENTICATION_FAILED
    assert "HTTP 401: invalid_client: who?; check sasl_oauthbearer_client_credentials_client_id" in str(error)
    endpoint.status = 503
    assert isinstance(await refusal(source(endpoint)), ConnectionFailedError)


async def test_nobody_at_the_endpoint(endpoint: Endpoint) -> None:
    settings = granting(endpoint) | {"sasl_oauthbearer_token_endpoint_url": "http://127.0.0.1:9/token"}
    error = await refusal(TokenSource(Security(**settings), 5.0))
    assert isinstance(error, ConnectionFailedError)
    assert "http://127.0.0.1:9/token" in str(error)


@pytest.mark.parametrize("body", ["<html>", {"token": "x"}, {"access_token": 7}])
async def test_an_answer_without_a_token(endpoint: Endpoint, body: Any) -> None:
    endpoint.body = body
    assert "the answer holds no token" in str(await refusal(source(endpoint)))


async def test_the_secret_is_not_taken_elsewhere(endpoint: Endpoint) -> None:
    endpoint.status = 307
    assert "HTTP 307" in str(await refusal(source(endpoint)))
    assert len(endpoint.asked) == 1


async def test_a_function_that_raises_may_work_later() -> None:
    def fails() -> OAuthToken:
        raise LookupError("no credentials in sight")

    error = await refusal(provided(fails))
    assert isinstance(error, ConnectionFailedError)
    assert "fails: NETWORK_EXCEPTION: it raised LookupError: no credentials in sight" in str(error)
    assert isinstance(error.__cause__, LookupError)


async def test_a_function_that_returns_something_else() -> None:
    error = await refusal(provided(lambda: "abc"))
    assert error.code == ErrorCode.SASL_AUTHENTICATION_FAILED
    assert "has to return an OAuthToken, not str" in str(error)
