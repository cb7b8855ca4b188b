"""What SASL's mechanisms send, by the examples of their standards, and what they do not put up with."""

from __future__ import annotations

import logging

import pytest

from streamlib.kafka.sasl import oauthbearer, scram
from streamlib.security import OAuthToken, Secret

NONCE = "rOprNGfwEbeRWgbNEkqO"
CHALLENGE = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
PROOF = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
VERDICT = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_scram_is_as_in_rfc_7677() -> None:
    exchange = scram("sha256", "user", "pencil", NONCE)
    assert next(exchange) == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    assert exchange.send(CHALLENGE) == PROOF
    with pytest.raises(StopIteration):
        exchange.send(VERDICT)


def test_scram_believes_no_broker_that_does_not_know_the_password() -> None:
    exchange = scram("sha256", "user", "pencil", NONCE)
    next(exchange)
    exchange.send(CHALLENGE)
    with pytest.raises(ValueError, match="not the broker it says it is"):
        exchange.send(b"v=" + b"A" * 43 + b"=")


@pytest.mark.parametrize("challenge", [CHALLENGE.replace(b"4096", b"1"), CHALLENGE.replace(b"r=rO", b"r=xx")])
def test_scram_answers_no_challenge_that_gives_the_password_away(challenge: bytes) -> None:
    exchange = scram("sha256", "user", "pencil", NONCE)
    next(exchange)
    with pytest.raises(ValueError, match="too easy or too hard"):
        exchange.send(challenge)


def test_a_token_goes_with_its_extensions_and_a_refusal_is_heard_out() -> None:
    exchange = oauthbearer(OAuthToken(Secret("abc"), extensions={"logicalCluster": "lkc-1"}))
    assert next(exchange) == b"n,,\x01auth=Bearer abc\x01logicalCluster=lkc-1\x01\x01"
    assert exchange.send(b'{"status":"invalid_token"}') == b"\x01"


def test_nothing_is_logged_of_an_exchange(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        exchange = scram("sha256", "user", "pencil", NONCE)
        next(exchange)
        exchange.send(CHALLENGE)
    assert caplog.text == ""
