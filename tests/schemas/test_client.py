"""What the client asks for, and what it makes of the answers."""

from __future__ import annotations

import base64
import socket
import ssl
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest

from streamlib.errors import ConfigError, KafkaError, SchemaRegistryError, SchemaRegistryUnavailableError
from streamlib.runtime.failures import Action, decide
from streamlib.schemas import SchemaRegistry
from streamlib.schemas.client import HttpClient
from streamlib.schemas.schema import Reference, Schema, UnknownSchemaError
from tests.schemas.stub import Asked, Stub


def client(stub: Stub, timeout_s: float = 5.0) -> HttpClient:
    return HttpClient([stub.url], timeout_s=timeout_s)


def dead_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_a_schema_is_registered_under_a_subject_with_any_name(stub: Stub) -> None:
    stub.answers[0] = (200, {"id": 7})
    schema = Schema("syntax", "PROTOBUF", (Reference("a.proto", "a.proto", 2),))
    assert client(stub).register("shop/orders value", schema) == 7
    body = {
        "schema": "syntax", "schemaType": "PROTOBUF",
        "references": [{"name": "a.proto", "subject": "a.proto", "version": 2}],
    }  # fmt: skip
    assert stub.asked == [Asked("POST", "/subjects/shop%2Forders%20value/versions", None, body)]


def test_an_old_registry_is_not_told_of_types_it_does_not_know(stub: Stub) -> None:
    stub.answers[0] = (200, {"id": 7})
    client(stub).register("s", Schema('"long"'))
    assert stub.asked[0].body == {"schema": '"long"'}


def test_a_type_that_is_not_said_is_avro(stub: Stub) -> None:
    stub.answers[0] = (200, {"schema": '"long"'})
    assert client(stub).by_id(3) == Schema('"long"', "AVRO")


def test_a_registry_that_fails_is_asked_again(stub: Stub) -> None:
    stub.answers.extendleft([(503, "later"), (500, "oops")])
    assert client(stub).versions("s") == []
    assert len(stub.asked) == 3


def test_another_registry_is_asked_if_one_is_gone(stub: Stub) -> None:
    assert HttpClient([dead_url(), stub.url]).versions("s") == []


def test_a_registry_that_is_gone_is_an_error_in_time_that_has_the_work_redone() -> None:
    url = dead_url()
    began = time.monotonic()
    with pytest.raises(SchemaRegistryUnavailableError, match=rf"GET /schemas/ids/3.*{url}.*within 0\.5 s") as raised:
        HttpClient([url], timeout_s=0.5).by_id(3)
    assert time.monotonic() - began < 5
    assert isinstance(raised.value, KafkaError)
    assert decide(raised.value) is Action.REDO


def test_a_registry_that_says_nothing_is_an_error_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(SchemaRegistryUnavailableError, match="TimeoutError"):
            HttpClient([f"http://127.0.0.1:{silent.getsockname()[1]}"], timeout_s=0.5).by_id(3)
        assert time.monotonic() - began < 5


def test_what_is_not_there_is_no_failure_of_the_registry(stub: Stub) -> None:
    stub.answers[0] = (404, {"error_code": 40403, "message": "Schema not found"})
    with pytest.raises(UnknownSchemaError, match=r"Schema not found \(error code 40403\)"):
        client(stub).by_id(3)


def test_a_refused_schema_is_refused_with_the_reason(stub: Stub) -> None:
    stub.answers[0] = (409, {"error_code": 409, "message": "READER_FIELD_MISSING_DEFAULT_VALUE"})
    with pytest.raises(SchemaRegistryError, match=r"409: READER_FIELD_MISSING_DEFAULT_VALUE") as raised:
        client(stub).register("s", Schema('"long"'))
    assert not isinstance(raised.value, SchemaRegistryUnavailableError)  # nothing to be gained by doing it again


def test_what_is_no_registry_is_said_to_be_none(stub: Stub) -> None:
    stub.answers[0] = (200, "<html>")
    with pytest.raises(SchemaRegistryError, match=r"no schema registry.*path in the URL"):
        client(stub).by_id(3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"basic_auth": ("ann", "s3cret")}, "Basic " + base64.b64encode(b"ann:s3cret").decode()),
        ({"bearer_token": "s3cret"}, "Bearer s3cret"),
        ({"bearer_token": lambda: "s3cret"}, "Bearer s3cret"),
        ({}, "Basic " + base64.b64encode(b"ann:s3cret/").decode()),
    ],
)
def test_credentials_are_sent_and_never_shown(stub: Stub, options: dict[str, object], said: str) -> None:
    url = stub.url if options else stub.url.replace("//", "//ann:s3cret%2F@")
    stub.answers[0] = (401, {"error_code": 401, "message": "Unauthorized"})
    registry = SchemaRegistry(url, **options)  # type: ignore[arg-type]
    assert repr(registry) == f"SchemaRegistry('{stub.url}')"
    with pytest.raises(SchemaRegistryError, match=r"does not let us.*basic_auth= or bearer_token=") as raised:
        registry._client.by_id(3)
    assert stub.asked[0].authorization == said
    assert "s3cret" not in f"{raised.value!r}"


def test_credentials_are_not_shown_when_nobody_answers() -> None:
    url = dead_url().replace("//", "//ann:s3cret@")
    with pytest.raises(SchemaRegistryUnavailableError) as raised:
        SchemaRegistry(url, timeout=timedelta(seconds=0.2))._client.by_id(3)
    assert "s3cret" not in f"{raised.value!r}"


def test_one_way_to_log_in_is_enough() -> None:
    with pytest.raises(ConfigError, match="in one way"):
        SchemaRegistry("http://ann:pw@host", bearer_token="x")


@pytest.mark.parametrize("url", ["host:8081", "kafka://host", "", "http://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="begins with http:// or https://"):
        SchemaRegistry(url)


def test_certificates_are_checked_and_can_be_ones_own(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files: list[str | Path] = ["-keyout", key, "-out", certificate]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *files]
    subprocess.run([*command, "-days", "2", *subject], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    with Stub(server) as stub:
        trusting = ssl.create_default_context(cafile=str(certificate))
        assert SchemaRegistry(stub.url, ssl_context=trusting)._client.versions("s") == []
        with pytest.raises(SchemaRegistryUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            SchemaRegistry(stub.url, timeout=timedelta(seconds=0.5))._client.versions("s")
