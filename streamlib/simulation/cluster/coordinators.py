"""Which broker coordinates which group and which transactional id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias
from zlib import crc32

from streamlib.errors import ErrorCode
from streamlib.simulation.cluster.basics import Body, Handler, Refused, Reply, Timers
from streamlib.simulation.cluster.brokers import FIRST_PORT, HOST, Brokers

Kind: TypeAlias = Literal["group", "transaction"]
_KINDS: tuple[Kind, Kind] = ("group", "transaction")


class Coordinators:
    """A key's coordinator is the broker of its place, or the next one that is up; a new one loads for a while."""

    def __init__(self, brokers: Brokers, timers: Timers) -> None:
        self._brokers = brokers
        self._timers = timers
        self._moved: dict[tuple[Kind, str], int] = {}
        self._loading_until_ms: dict[tuple[Kind, str], float] = {}
        self.handlers: Mapping[str, Handler] = {"FindCoordinator": self._find_coordinator}

    def find(self, kind: Kind, key: str) -> int | None:
        """The broker that coordinates the key; None if none is up."""
        return self._brokers.first_up(self._moved.get((kind, key), crc32(key.encode())))

    def check(self, broker: int, kind: Kind, key: str) -> None:
        """Raise `Refused` unless this broker coordinates the key and is ready to."""
        if self.find(kind, key) != broker:
            raise Refused(ErrorCode.NOT_COORDINATOR)
        if self._timers.now_ms() < self._loading_until_ms.get((kind, key), 0):
            raise Refused(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)

    def move(self, kind: Kind, key: str, home: int, loading_ms: float) -> None:
        """Another broker coordinates the key from now on, once it has loaded what there is to know."""
        self._moved[kind, key] = home
        self._loading_until_ms[kind, key] = self._timers.now_ms() + loading_ms

    def _find_coordinator(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        kind = _KINDS[request.key_type]
        if version >= 4:
            reply({"coordinators": [self._entry(kind, key) for key in request.coordinator_keys]})
            return
        entry = dict(self._entry(kind, request.key))
        del entry["key"]
        reply(entry)

    def _entry(self, kind: Kind, key: str) -> Body:
        found = self.find(kind, key)
        if found is None:
            code = ErrorCode.COORDINATOR_NOT_AVAILABLE
            return {"key": key, "node_id": -1, "host": "", "port": -1, "error_code": code, "error_message": None}
        return {"key": key, "node_id": found, "host": HOST, "port": FIRST_PORT + found, "error_message": None}
