"""A real Kafka broker on this machine, without a container: Java and Kafka's jars come as packages.

    with Broker.start() as broker:
        print(broker.bootstrap_servers)

jars.py        Kafka's jars and their lock files
properties.py  the configuration of a node, as text
guard.py       the small script that lets no JVM outlive its owner
process.py     a JVM as a process, watched or detached
node.py        one node: folder, JVM, ready or not
cluster.py     `Broker`: one or more nodes
daemon.py      the broker of `streamlib broker start`, which goes on after the command
"""

from streamlib.testing.broker.cluster import Broker, BrokerOptions
from streamlib.testing.broker.errors import (
    BrokerError,
    BrokerExtraMissingError,
    BrokerStartError,
    JarMismatchError,
)
from streamlib.testing.broker.jars import DEFAULT_VERSION

__all__ = [
    "DEFAULT_VERSION",
    "Broker",
    "BrokerError",
    "BrokerExtraMissingError",
    "BrokerOptions",
    "BrokerStartError",
    "JarMismatchError",
]
