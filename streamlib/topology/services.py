"""What a topology says of the services that its functions call: how often, and when not at all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias

import msgspec

from streamlib.errors import TopologyError
from streamlib.windows import duration_ms

MOST_CALLS = 100_000
"""The largest `RateLimit.calls`: the time of each of them is kept."""

ServiceErrors: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Kinds of exceptions, or a function that says whether it is one of them."""


class RateLimit(msgspec.Struct, frozen=True):
    """At most so many calls in any span of time of this length. Calls beyond that wait for their turn.

    Attributes:
        calls: how many, for each worker; two workers make twice as many.
        per: the length of the span.

    Raises:
        TopologyError: there are no such numbers of calls or lengths of time.

    >>> RateLimit(100, per=timedelta(minutes=1)).per_ms
    60000
    """

    calls: int
    per: timedelta = timedelta(seconds=1)

    def __post_init__(self) -> None:
        if not 1 <= self.calls <= MOST_CALLS:
            raise TopologyError(f"RateLimit: calls are from 1 to {MOST_CALLS:,}, not {self.calls!r}")
        duration_ms(self.per, "RateLimit: per", positive=True)

    @property
    def per_ms(self) -> int:
        """The length of the span in ms."""
        return duration_ms(self.per, "RateLimit: per", positive=True)


class CircuitBreaker(msgspec.Struct, frozen=True):
    """Stops calling a service that does not work, and tries one call from time to time until it does again.

    What a call raises because the service does not work is no error of the record: the call is made again, until it
    is answered. Everything else it raises is one, and `on_processing_error` decides.

    Attributes:
        failures: after so many failed calls in a row no more are made.
        open_for: for how long; then one call is tried. If it fails, the same again.
        errors: what tells that the service does not work: kinds of exceptions, or `f(error) -> bool`. If not given
            `ConnectionError` and `TimeoutError`, of which the latter is what the `timeout` of an operator leads to.

    Raises:
        TopologyError: an attribute is none.

    >>> CircuitBreaker(failures=3).is_trouble(TimeoutError("no answer within 5 s"))
    True
    >>> CircuitBreaker(errors=lambda error: "503" in str(error)).is_trouble(ValueError("404"))
    False
    """

    failures: int = 5
    open_for: timedelta = timedelta(seconds=30)
    errors: ServiceErrors = (ConnectionError, TimeoutError)

    def __post_init__(self) -> None:
        if self.failures < 1:
            raise TopologyError(f"CircuitBreaker: failures are at least 1, not {self.failures!r}")
        duration_ms(self.open_for, "CircuitBreaker: open_for", positive=True)
        kinds = self.errors if isinstance(self.errors, tuple) else (self.errors,)
        if isinstance(self.errors, tuple | type) and not all(map(_is_exception, kinds)):
            raise TopologyError(f"CircuitBreaker: errors are kinds of exceptions, not {self.errors!r}")

    @property
    def open_ms(self) -> int:
        """`open_for` in ms."""
        return duration_ms(self.open_for, "CircuitBreaker: open_for", positive=True)

    def is_trouble(self, error: Exception) -> bool:
        """Whether the error tells that the service does not work."""
        if isinstance(self.errors, tuple | type):
            return isinstance(error, self.errors)
        return bool(self.errors(error))


class Service(msgspec.Struct, frozen=True):
    """A service that functions call. All operators that name it share its rate limit and its circuit breaker, in each
    worker.

    Attributes:
        name: for logs and `WorkerStatus.services`.
        rate_limit: how often it may be called.
        breaker: when it is not called.

    Raises:
        TopologyError: it says nothing.

    >>> profiles = Service("profiles", rate_limit=RateLimit(100), breaker=CircuitBreaker(failures=5))
    >>> async def with_score(value: int) -> int:
    ...     return value + 100
    >>> from streamlib.testing import run_stream
    >>> run_stream(lambda s: s.map_values(with_score, service=profiles), [("a", 1)])
    [('a', 101)]
    """

    name: str
    rate_limit: RateLimit | None = None
    breaker: CircuitBreaker | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise TopologyError("a Service has a name")
        if self.rate_limit is None and self.breaker is None:
            raise TopologyError(f"Service {self.name!r} has neither a rate_limit nor a breaker, and says nothing")


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception)
