"""The configuration of a node, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

HOST = "127.0.0.1"

LOG4J2 = """\
<Configuration>
  <Appenders>
    <Console name="out"><PatternLayout pattern="[%d] %p %m (%c)%n%throwable"/></Console>
  </Appenders>
  <Loggers><Root level="INFO"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""

LOG4J1 = """\
log4j.rootLogger=INFO, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=[%d] %p %m (%c)%n
"""


_PROTOCOLS = dict.fromkeys(("CONTROLLER", "PLAINTEXT", "PROXY"), "PLAINTEXT")


class NodePorts(msgspec.Struct, frozen=True):
    """The ports of one node, all on the loopback address.

    With `advertised`, the node also listens on `proxy` and tells clients that come in there to use that one. `others`
    are further listeners by name.
    """

    client: int
    controller: int
    proxy: int | None = None
    advertised: int | None = None
    others: Mapping[str, int] = {}


def server_properties(
    index: int,
    cluster: Sequence[NodePorts],
    log_dir: Path,
    extra: Mapping[str, str],
    protocols: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The settings of node `index` (from 0): broker and controller, quick to rebalance and time out.

    `protocols` has those of the further listeners, such as `SASL_SSL`, by their names.
    """
    copies = min(3, len(cluster))
    settings = {
        "process.roles": "broker,controller",
        "node.id": str(index + 1),
        "controller.quorum.voters": _voters(cluster),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": _protocol_map(protocols or {}),
        "log.dirs": str(log_dir),
        "auto.create.topics.enable": "false",
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(max(1, copies - 1)),
        "offsets.topic.num.partitions": "5",
        "offsets.topic.replication.factor": str(copies),
        "transaction.state.log.num.partitions": "5",
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": str(max(1, copies - 1)),
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "500",
        # A killed node is noticed, and can come back, after 3 s instead of 9.
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "3000",
        "log.cleaner.dedupe.buffer.size": "16777216",
    }
    if len(cluster) == 1:
        settings["metadata.max.idle.interval.ms"] = "0"  # nobody else wants a sign of life twice a second
    return settings | _listeners(cluster[index]) | dict(extra)


def properties_text(settings: Mapping[str, str]) -> str:
    """Settings in Java's properties format."""
    return "".join(f"{name}={value}\n".replace("\\", "\\\\") for name, value in settings.items())


def _protocol_map(further: Mapping[str, str]) -> str:
    return ",".join(f"{listener}:{protocol}" for listener, protocol in {**_PROTOCOLS, **further}.items())


def _voters(cluster: Sequence[NodePorts]) -> str:
    return ",".join(f"{i}@{HOST}:{ports.controller}" for i, ports in enumerate(cluster, start=1))


def _listeners(ports: NodePorts) -> dict[str, str]:
    listeners = [f"PLAINTEXT://{HOST}:{ports.client}", f"CONTROLLER://{HOST}:{ports.controller}"]
    advertised = [f"PLAINTEXT://{HOST}:{ports.client}"]
    for name, port in ports.others.items():
        listeners.append(f"{name}://{HOST}:{port}")
        advertised.append(f"{name}://{HOST}:{port}")
    if ports.proxy is not None:
        listeners.append(f"PROXY://{HOST}:{ports.proxy}")
        advertised.append(f"PROXY://{HOST}:{ports.advertised}")
    return {"listeners": ",".join(listeners), "advertised.listeners": ",".join(advertised)}
