"""Where to listen."""

from __future__ import annotations

from typing import NamedTuple

from streamlib.errors import ConfigError

LOCALHOST = "127.0.0.1"


class Address(NamedTuple):
    """A host and a port of it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, what: str = "metrics") -> Address:
    """`HOST:PORT`, `:PORT` or `PORT`; without a host only this machine is let in. Errors say for `what` it is.

    Raises:
        ConfigError: it is neither.

    >>> parse_address("9464"), parse_address("0.0.0.0:9464")
    (Address(host='127.0.0.1', port=9464), Address(host='0.0.0.0', port=9464))
    """
    host, _, port = text.strip().rpartition(":")
    if not port.isdecimal() or not 0 <= int(port) <= 65_535:
        raise ConfigError(f"{text!r} is no address for {what}: give HOST:PORT, or a port, such as 9464")
    return Address(host.strip("[]") or LOCALHOST, int(port))


def address_of_worker(address: Address, number: int, what: str = "metrics") -> Address:
    """That of worker `number`, from 0 on: each process has a port of its own, one after the other.

    Raises:
        ConfigError: there are not so many ports.
    """
    if address.port == 0:
        return address
    if address.port + number > 65_535:
        raise ConfigError(f"there is no port {address.port + number} for {what} of worker {number + 1}")
    return Address(address.host, address.port + number)
