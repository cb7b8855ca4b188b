"""Keeps the log readable while something goes on failing: the same complaint is worth a line only once in a while."""

from __future__ import annotations

import logging
from collections.abc import Hashable

import msgspec

INTERVAL_MS = 30_000


class _Said(msgspec.Struct):
    at_ms: float
    unsaid: int = 0


class Complaints:
    """Warnings of one kind, at most one in `INTERVAL_MS`; the next one tells how many there were in between.

    Kinds are few (error codes, say): each is remembered.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: dict[Hashable, _Said] = {}

    def warn(self, kind: Hashable, now_ms: float, message: str, *arguments: object) -> bool:
        """Log it, unless that was done lately; `now_ms` is of a clock that never goes back. Whether it was logged."""
        said = self._said.get(kind)
        if said is not None and now_ms - said.at_ms < INTERVAL_MS:
            said.unsaid += 1
            return False
        more = f" (and {said.unsaid} times since the last such line)" if said is not None and said.unsaid else ""
        self._said[kind] = _Said(now_ms)
        self._log.warning(f"{message}%s", *arguments, more, stacklevel=2)
        return True
