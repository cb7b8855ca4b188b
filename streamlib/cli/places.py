"""`--metrics` and `--web`: where a worker process shows itself over HTTP."""

from __future__ import annotations

import logging
import platform
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import msgspec

from streamlib.app import KafkaStreams
from streamlib.config import StreamsConfig
from streamlib.errors import ConfigError, StreamsNotStartedError
from streamlib.monitoring.address import Address, address_of_worker, parse_address

log = logging.getLogger(__name__)


class Places(msgspec.Struct, frozen=True):
    """Addresses as they were given; None is nowhere."""

    metrics: str | None = None
    web: str | None = None

    def arguments(self, number: int) -> list[str]:
        """Those of worker `number`, from 0 on, as options of the command line.

        Raises:
            ConfigError: one is no address, or there are not so many ports.

        >>> Places("9464", "0.0.0.0:8080").arguments(1)
        ['--metrics', '127.0.0.1:9465', '--web', '0.0.0.0:8081']
        """
        found = []
        for option, given, what in (("--metrics", self.metrics, "metrics"), ("--web", self.web, "the web console")):
            if given is not None:
                found += [option, str(address_of_worker(parse_address(given, what), number, what))]
        return found

    def told_to_others(self, config: StreamsConfig) -> StreamsConfig:
        """The settings, with the web console as `application_server` if there is no other: so workers find each other.

        Raises:
            ConfigError: it is no address.
        """
        if self.web is None or config.application_server is not None:
            return config
        address = parse_address(self.web, "the web console")
        if address.port == 0:
            return config  # it is not known yet
        host = towards(config.bootstrap_servers) if address.host in ANY_HOST else address.host
        return msgspec.structs.replace(config, application_server=str(Address(host, address.port)))


NOWHERE = Places()
ANY_HOST = ("0.0.0.0", "::")


def towards(bootstrap_servers: str) -> str:
    """The address of this host that the brokers see, and so other workers too; the host's name if there is no way.

    >>> towards("127.0.0.1:9092")
    '127.0.0.1'
    """
    for server in bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(place)  # sends nothing: it only asks for the way
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return platform.node()


@contextmanager
def shown(app: KafkaStreams, places: Places) -> Iterator[None]:
    """Show the application there for the time of the block.

    Raises:
        ConfigError: an address is none or taken, what is needed is not installed, or a token is missing.
    """
    with _metrics_at(app, places.metrics), _console_at(app, places.web):
        yield


@contextmanager
def _metrics_at(app: KafkaStreams, address: str | None) -> Iterator[None]:
    if address is None:
        yield
        return
    try:
        from streamlib.monitoring.endpoint import MetricsEndpoint
    except ImportError as error:
        raise ConfigError('--metrics needs prometheus-client: pip install "streamlib[prometheus]"') from error
    with MetricsEndpoint(app, address) as endpoint:
        log.info("/metrics, /health and /ready at http://%s", endpoint.address)
        yield


@contextmanager
def _console_at(app: KafkaStreams, address: str | None) -> Iterator[None]:
    if address is None:
        yield
        return
    try:
        from streamlib.web.console import Console
        from streamlib.web.server import WebServer
        from streamlib.web.stores.routes import StoreRoutes
    except ImportError as error:
        raise ConfigError('--web needs starlette and uvicorn: pip install "streamlib[web]"') from error
    app.show()
    place, token = parse_address(address, "the web console"), app.config.web_token
    with (
        closing(Console(app, lambda: others_of(app))) as console,
        WebServer(app, place, token=token, routes=[*console.routes(), *StoreRoutes(app).routes()]) as server,
    ):
        log.info("web console at http://%s", server.address)
        yield


def others_of(app: KafkaStreams) -> list[Address]:
    """Where the other workers' consoles are, as the group tells."""
    try:
        known = app.streams_metadata()
    except StreamsNotStartedError:
        return []
    return [Address(*each.host_info) for each in known if each.host_info is not None and not each.is_local]
