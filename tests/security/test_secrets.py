"""A secret is shown nowhere."""

from __future__ import annotations

import copy
import pickle
import traceback
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamlib.cli.errors import UsageError
from streamlib.cli.settings import GivenSettings, load_settings
from streamlib.config import SECRETS, StreamsConfig
from streamlib.errors import ConfigError
from streamlib.security import OAuthToken, Secret, Security

HIDDEN = "hunter2-never-shown"
USER: dict[str, Any] = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "ann"}


def load(env: dict[str, str] | None = None, /, **settings: Any) -> StreamsConfig:
    return StreamsConfig.load({"application_id": "app", **settings}, env=env or {})


@pytest.mark.parametrize(
    "holder",
    [
        Secret(HIDDEN),
        OAuthToken(HIDDEN),  # type: ignore[arg-type]
        StreamsConfig(application_id="app", sasl_password=HIDDEN, **USER),  # type: ignore[arg-type]
        Security(sasl_password=Secret(HIDDEN), **USER),
        copy.deepcopy(Secret(HIDDEN)),
        pickle.loads(pickle.dumps(Secret(HIDDEN))),
    ],
    ids=lambda holder: type(holder).__name__,
)
def test_it_is_in_no_text(holder: object) -> None:
    for text in (repr(holder), str(holder), f"{holder}", f"{holder!r:>50}", f"{holder!s}", repr([holder])):
        assert HIDDEN not in text
    with pytest.raises(TypeError):
        msgspec.json.encode(holder)


def test_equal_secrets_are_equal() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("value", [HIDDEN, 7, [HIDDEN]])
def test_it_is_in_no_error_of_the_configuration(name: str, value: Any) -> None:
    """Neither if it is of the wrong type nor if something beside it is wrong."""
    for settings in (
        {name: value, "sasl_username": "ann"},
        {name: value, "commit_interval_ms": "x"},
        {name: value, "sasl_mechanism": "X"},
    ):
        for load_it in (True, False):
            with pytest.raises(ConfigError) as caught:
                load(**settings) if load_it else StreamsConfig(**{"application_id": "app", **settings})
            assert HIDDEN not in "".join(traceback.format_exception(caught.value))


def test_it_can_be_in_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{HIDDEN}\n")
    for config in (
        load({"STREAMLIB_SASL_PASSWORD": HIDDEN}, **USER),
        load({"STREAMLIB_SASL_PASSWORD_FILE": str(file)}, **USER),
        load(**USER, **{"sasl.password.file": file}),
    ):
        assert config.sasl_password is not None
        assert config.sasl_password.reveal() == HIDDEN
        assert HIDDEN not in repr(config)


def test_a_file_that_is_gone_for_a_moment_is_not_missed(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(HIDDEN)
    secret = Secret.from_file(file)
    file.unlink()
    assert secret.reveal() == HIDDEN
    file.write_text("new")
    assert secret.reveal() == "new"


def test_a_file_that_was_never_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the secret in .*password: No such file"):
        load(**USER, sasl_password_file=tmp_path / "password")


def test_it_is_no_argument_of_a_command() -> None:
    given = GivenSettings(application_id="app", others=[f"sasl.password={HIDDEN}"])
    with pytest.raises(UsageError, match="use STREAMLIB_SASL_PASSWORD in the environment, or --set") as caught:
        load_settings(given, {})
    assert HIDDEN not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**USER}, "sasl_mechanism=PLAIN needs sasl_password .or sasl_password_file."),
        ({"security_protocol": "SASL_SSL"}, "needs sasl_mechanism: PLAIN, SCRAM-SHA-256"),
        ({"security_protocol": "TLS"}, "security_protocol has to be 'PLAINTEXT', .* not 'TLS'"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "GSSAPI"}, "has to be 'PLAIN', .* not 'GSSAPI'"),
        ({"sasl_username": "ann"}, "sasl_username has no effect with security_protocol=PLAINTEXT"),
        ({"ssl_cafile": "ca.pem"}, "does not encrypt: set security_protocol=SSL"),
        ({"security_protocol": "SSL", "ssl_keyfile": "k.pem"}, "ssl_keyfile is set without ssl_certfile"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "oauthbearer"}, "needs sasl_oauth_token_provider"),
        ({"sasl_oauth_token_provider": "nowhere"}, "has to be module:function, not 'nowhere'"),
        ({"sasl_oauth_token_provider": "os:nowhere"}, "'os:nowhere' cannot be imported"),
        ({"ssl.truststore.location": "x"}, "unknown option 'ssl.truststore.location': here it is ssl_cafile"),
        ({**USER, "sasl_password": "x", "sasl_oauthbearer_scope": "x"}, "has no effect with sasl_mechanism=PLAIN"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_said(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(**settings)


def test_a_client_s_secret_is_sent_nowhere_unencrypted() -> None:
    grant = {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "OAUTHBEARER",
        "sasl_oauthbearer_client_credentials_client_id": "me",
        "sasl_oauthbearer_client_credentials_client_secret": HIDDEN,
    }
    with pytest.raises(ConfigError, match="has to begin with https://, not http: the client's secret is sent there"):
        load(**grant, sasl_oauthbearer_token_endpoint_url="http://example.org/token")
    load(**grant, sasl_oauthbearer_token_endpoint_url="http://127.0.0.1:8080/token")


def test_settings_of_connections_are_those_of_the_application() -> None:
    for field in msgspec.structs.fields(Security):
        own = next(each for each in msgspec.structs.fields(StreamsConfig) if each.name == field.name)
        assert (own.type, own.default) == (field.type, field.default)
