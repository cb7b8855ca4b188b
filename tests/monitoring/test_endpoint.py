"""The endpoint, asked over HTTP."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection

import msgspec
import pytest

from streamlib.errors import ConfigError
from streamlib.metrics import Health, HealthStatus
from streamlib.monitoring.address import Address, address_of_worker, parse_address
from streamlib.monitoring.endpoint import MetricsEndpoint
from tests.monitoring.sample import Told


@pytest.fixture
def app() -> Told:
    return Told()


@pytest.fixture
def endpoint(app: Told) -> Iterator[MetricsEndpoint]:
    with MetricsEndpoint(app, "0") as listening:
        yield listening


def get(endpoint: MetricsEndpoint, path: str, **headers: str) -> tuple[int, str, str]:
    """Status, content type and body."""
    connection = HTTPConnection(*endpoint.address, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read().decode()
    finally:
        connection.close()


def test_metrics_are_served_in_the_format_that_is_asked_for(endpoint: MetricsEndpoint) -> None:
    status, kind, body = get(endpoint, "/metrics")
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    assert 'streamlib_partition_records_lag{application_id="shop"' in body
    _, kind, body = get(endpoint, "/metrics?x=1", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.split(";")[0] == "application/openmetrics-text"
    assert body.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("health", "statuses"),
    [
        (Health(HealthStatus.OK, True), (200, 200)),
        (Health(HealthStatus.DEGRADED, False, ("restoring 2 tasks",)), (200, 503)),
        (Health(HealthStatus.STUCK, True, ("stuck partition: ...",)), (503, 200)),
    ],
)
def test_health_and_readiness_are_two_questions(
    app: Told, endpoint: MetricsEndpoint, health: Health, statuses: tuple[int, int]
) -> None:
    app.said = health
    answers = [get(endpoint, path) for path in ("/health", "/ready")]
    assert tuple(status for status, _, _ in answers) == statuses
    for _, kind, body in answers:
        assert kind == "application/json"
        told = msgspec.json.decode(body)
        expected = {"status": health.status.name.lower(), "ready": health.ready, "reasons": list(health.reasons)}
        assert told == expected


def test_other_paths_are_not_found(endpoint: MetricsEndpoint) -> None:
    assert get(endpoint, "/")[0] == 404


def test_a_port_alone_is_open_to_this_machine_only() -> None:
    assert parse_address("9464") == parse_address(":9464") == Address("127.0.0.1", 9464)
    assert parse_address("[::1]:80") == Address("::1", 80)
    with MetricsEndpoint(Told(), "0") as endpoint:
        assert endpoint.address.host == "127.0.0.1"


@pytest.mark.parametrize("text", ["", "here", "host:", "1.2.3.4:99999", "9464:host"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no address for metrics"):
        parse_address(text)


def test_each_worker_has_the_next_port() -> None:
    assert address_of_worker(Address("0.0.0.0", 9464), 2) == Address("0.0.0.0", 9466)
    assert address_of_worker(Address("h", 0), 2) == Address("h", 0)
    with pytest.raises(ConfigError, match="no port 65536"):
        address_of_worker(Address("h", 65_535), 1)


def test_a_port_that_is_taken_is_told(endpoint: MetricsEndpoint) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{endpoint.address.port} for metrics"):
        MetricsEndpoint(Told(), endpoint.address)


def test_nothing_of_it_is_imported_by_those_who_do_not_use_it() -> None:
    program = (
        "import sys, streamlib, streamlib.cli; "
        "print([name for name in sys.modules if name.startswith(('prometheus', 'opentelemetry', 'http.server'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
