"""`streamlib run` where something about security is wrong: one line that says what and what to do, and no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.security.certificates import Authority
from tests.security.conftest import KEY_PASSWORD, PASSWORD, Fortress
from tests.security.running import WRONG, refused, run

pytestmark = pytest.mark.broker


def test_wrong_password(fortress: Fortress, tmp_path: Path) -> None:
    settings = {**fortress.sasl("SCRAM-SHA-512", "ann"), "sasl_password": WRONG}
    refused(run(tmp_path, "words", settings), "127.0.0.1", "Authentication failed", "check user name and password")
    refused(run(tmp_path, "words", settings, "--workers", "2"), "check user name and password")


def test_wrong_password_with_whole_tracebacks(fortress: Fortress, tmp_path: Path) -> None:
    settings = {**fortress.sasl("PLAIN", "paula"), "sasl_password": WRONG, "debug": 1}
    ended = run(tmp_path, "words", settings)
    assert "Traceback" in ended.output
    assert WRONG not in ended.output


@pytest.mark.parametrize("command", ["lag", "reset"])
def test_other_commands_say_it_too(fortress: Fortress, tmp_path: Path, command: str) -> None:
    settings = {**fortress.sasl("SCRAM-SHA-256", "ann"), "sasl_password": WRONG}
    refused(run(tmp_path, "words", settings, "words", command=command), "check user name and password")


def test_mechanism_that_the_broker_has_not(fortress: Fortress, tmp_path: Path) -> None:
    settings = {**fortress.tls("MUTUAL"), "ssl_certfile": fortress.authority.sign("sasl-nowhere")}
    settings |= {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "x"}
    refused(run(tmp_path, "words", settings | {"sasl_password": PASSWORD}), "does the broker's listener speak SASL?")


def test_no_token(fortress: Fortress, tmp_path: Path) -> None:
    (tmp_path / "tokens.py").write_text("def token():\n    raise LookupError('no credentials in sight')\n")
    settings = fortress.sasl("OAUTHBEARER", "") | {"sasl_oauth_token_provider": "tokens:token"}
    del settings["sasl_username"], settings["sasl_password"]
    ended = run(tmp_path, "words", settings)
    refused(ended, "sasl_oauth_token_provider token", "it raised LookupError: no credentials in sight")
    assert "bootstrap_servers" not in ended.errors[0]


def test_expired_certificate(fortress: Fortress, tmp_path: Path) -> None:
    ended = run(tmp_path, "words", fortress.tls("EXPIRED"))
    refused(ended, "a certificate of the broker is not valid any more", "renew it")


def test_unknown_authority(fortress: Fortress, tmp_path: Path) -> None:
    strange = Authority(tmp_path, "strange")
    settings = {**fortress.sasl("SCRAM-SHA-512", "ann"), "ssl_cafile": strange.file}
    refused(run(tmp_path, "words", settings), f"an authority that {strange.file} does not know", "set ssl_cafile")


def test_wrong_host_name(fortress: Fortress, tmp_path: Path) -> None:
    settings = fortress.sasl("SCRAM-SHA-512", "ann")
    settings["bootstrap_servers"] = settings["bootstrap_servers"].replace("127.0.0.1", "localhost")
    refused(run(tmp_path, "words", settings), "for another name", "not valid for 'localhost'", "advertised.listeners")


def test_no_certificate_where_one_is_asked_for(fortress: Fortress, tmp_path: Path) -> None:
    refused(run(tmp_path, "words", fortress.tls()), "set ssl_certfile and ssl_keyfile")


def test_certificate_that_the_broker_does_not_know(fortress: Fortress, tmp_path: Path) -> None:
    strange = Authority(tmp_path, "strange").sign("worker")
    refused(run(tmp_path, "words", {**fortress.tls(), "ssl_certfile": strange}), "does not accept our certificate")


def test_wrong_password_of_the_key(fortress: Fortress, tmp_path: Path) -> None:
    own = fortress.authority.sign("locked", password=KEY_PASSWORD)
    settings = {**fortress.tls(), "ssl_certfile": own}
    refused(run(tmp_path, "words", {**settings, "ssl_key_password": WRONG}), str(own), "ssl_key_password")
    refused(run(tmp_path, "words", settings), str(own), "ssl_key_password")  # and nobody is asked for it


@pytest.mark.parametrize("listener", ["SECURE", "MUTUAL"])
def test_no_tls_where_the_listener_has_it(fortress: Fortress, tmp_path: Path, listener: str) -> None:
    ended = run(tmp_path, "words", {"bootstrap_servers": fortress.servers(listener)})
    refused(ended, "the listener speaks TLS: set security_protocol=SSL, or SASL_SSL")


def test_tls_where_the_listener_has_none(fortress: Fortress, tmp_path: Path) -> None:
    settings = {**fortress.sasl("PLAIN", "paula"), "bootstrap_servers": fortress.servers("OPEN")}
    refused(run(tmp_path, "words", settings), "the listener speaks no TLS", "or set security_protocol=SASL_PLAINTEXT")


@pytest.mark.parametrize(("listener", "protocol"), [("OPEN", "PLAINTEXT"), ("SECURE", "SSL")])
def test_no_sasl_where_the_listener_wants_it(fortress: Fortress, tmp_path: Path, listener: str, protocol: str) -> None:
    tls = fortress.tls(listener) if protocol == "SSL" else {"bootstrap_servers": fortress.servers(listener)}
    ended = run(tmp_path, "words", tls)
    refused(ended, f"set security_protocol=SASL_{protocol}, sasl_mechanism (it offers", "SCRAM-SHA-512")
