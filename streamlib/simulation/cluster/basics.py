"""The words that all parts of the model use: time, answers, refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from streamlib.errors import ErrorCode

Body: TypeAlias = Mapping[str, Any]
"""A response's fields; those that are left out have their defaults."""

Reply: TypeAlias = Callable[[Body], None]
"""Answers a request: at once or later, and once."""

Handler: TypeAlias = Callable[[int, Any, int, Reply], None]
"""What answers one API: the broker that was asked, the decoded request, its version, and where the answer goes."""


class Refused(Exception):
    """A broker says no; the code goes into the answer."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


class Timer(Protocol):
    """Something that will happen, unless it is cancelled."""

    def cancel(self) -> None:
        """Harmless when it has happened."""
        ...


class Timers(Protocol):
    """The model's only source of time."""

    def now_ms(self) -> float:
        """Milliseconds since the epoch of this cluster."""
        ...

    def call_later(self, delay_ms: float, action: Callable[[], None]) -> Timer:
        """Run the action after so many milliseconds."""
        ...

    def soon(self, action: Callable[[], None]) -> Timer:
        """Run the action after a little while, as long as work between brokers takes (writing a marker ...).

        Two such things happen in either order.
        """
        ...
