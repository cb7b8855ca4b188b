"""The services that functions call, as one worker knows them: which of them may be called now.

    Calls.take --may_call--> gate --yes--> the call is made --judge--> gate: goes on, or is made again later

    closed --failures in a row--> open --open_for--> half open: one call --answered--> closed
                                    ^                       |
                                    +-------- failed -------+

A call that may not be made stays in the line of its node, so it takes no place among those under way, has no timeout
running and no connection open. That is why no library does this: those there are wait or raise inside of the call
(aiolimiter, pyrate-limiter, purgatory, pybreaker, aiobreaker), and most read the machine's clock themselves, which is
neither the test driver's nor the simulation's.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from enum import Enum

import msgspec

from streamlib.engine.calls import Call
from streamlib.errors import TopologyError
from streamlib.topology.services import CircuitBreaker, RateLimit, Service

log = logging.getLogger(__name__)

FIRST_REST_MS = 100
"""How long a call that failed rests before it is made again; twice as long each time, up to `open_for`."""


class BreakerState(Enum):
    """Whether a service is called: always, never, or one call at a time."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class ServiceStatus(msgspec.Struct, frozen=True):
    """What one worker has seen of a service, since its start.

    Attributes:
        breaker: "closed": it is called; "open": it is not; "half_open": one call is under way to see whether it works.
            "closed", too, if it has no breaker.
        calls: how many were made.
        failed: how many of them told that it does not work.
        opened: how often the breaker has opened.
        limited: whether a call has to wait for the rate limit now.
    """

    breaker: str
    calls: int
    failed: int
    opened: int
    limited: bool


class Services:
    """Those of one worker, shared by its tasks.

    Args:
        clock_ms: a clock that never goes back.
    """

    def __init__(self, clock_ms: Callable[[], float]) -> None:
        self._clock_ms = clock_ms
        self._gates: dict[str, Gate] = {}

    def gate(self, service: Service) -> Gate:
        """The way to a service.

        Raises:
            TopologyError: another of the same name has other settings.
        """
        gate = self._gates.setdefault(service.name, Gate(service, self._clock_ms))
        if gate.service != service:
            raise TopologyError(
                f"two services are called {service.name!r} and differ: make one Service and give it to all operators "
                "that call it, or give them different names"
            )
        return gate

    @property
    def status(self) -> dict[str, ServiceStatus]:
        """By name."""
        return {name: gate.status for name, gate in self._gates.items()}


class Gate:
    """The way to one service."""

    def __init__(self, service: Service, clock_ms: Callable[[], float]) -> None:
        self.service = service
        self.now_ms = clock_ms
        self._limiter = None if service.rate_limit is None else _Limiter(service.rate_limit)
        self._breaker = None if service.breaker is None else _Breaker(service.name, service.breaker)
        self._calls = 0
        self._failed = 0

    def may_call(self, call: Call) -> bool:
        """Whether the call may be made now; if so, it is."""
        now_ms = self.now_ms()
        if self.next_ms > now_ms:
            return False
        if self._breaker is not None:
            self._breaker.called(call, now_ms)
        if self._limiter is not None:
            self._limiter.called(now_ms)
        self._calls += 1
        return True

    @property
    def next_ms(self) -> float:
        """When a call may be made, if nothing happens before."""
        return max(part.next_ms for part in (self._limiter, self._breaker) if part is not None)

    def judge(self, call: Call, error: Exception | None) -> float | None:
        """Learn from what became of a call; if it is to be made again, how long it rests before."""
        if self._breaker is None:
            return None
        if error is None or not self._breaker.options.is_trouble(error):
            self._breaker.worked(call, self.now_ms())
            return None
        self._failed += 1
        call.failures += 1
        self._breaker.failed(call, error, self.now_ms())
        return min(FIRST_REST_MS * 2.0 ** min(call.failures - 1, 32), self._breaker.options.open_ms)

    @property
    def status(self) -> ServiceStatus:
        """For people to look at."""
        state, opened = (BreakerState.CLOSED, 0) if self._breaker is None else self._breaker.seen
        limited = self._limiter is not None and self._limiter.next_ms > self.now_ms()
        return ServiceStatus(state.value, self._calls, self._failed, opened, limited)


class _Limiter:
    """Keeps when the last calls were made, as many as may be: the next may be made when the first of them is so long
    ago. No span of that length has more, however they are spread, which a token bucket cannot say."""

    def __init__(self, limit: RateLimit) -> None:
        self._per_ms = limit.per_ms
        self._made: deque[float] = deque(maxlen=limit.calls)

    @property
    def next_ms(self) -> float:
        if len(self._made) < (self._made.maxlen or 0):
            return 0.0
        return self._made[0] + self._per_ms

    def called(self, now_ms: float) -> None:
        self._made.append(now_ms)


class _Breaker:
    """Counts failures in a row; while it is not closed, there is one call at a time."""

    def __init__(self, name: str, options: CircuitBreaker) -> None:
        self.options = options
        self._name = name
        self._failures = 0  # in a row
        self._opened = 0
        self._opened_ms: float | None = None  # None: closed
        # Begins anew with each trial, so that one whose task has gone meanwhile is not waited for, nor one that hangs.
        self._next_trial_ms = 0.0
        self._trial: Call | None = None  # the last one, until it is answered

    @property
    def seen(self) -> tuple[BreakerState, int]:
        """Its state, and how often it has opened."""
        if self._opened_ms is None:
            return BreakerState.CLOSED, self._opened
        return BreakerState.OPEN if self._trial is None else BreakerState.HALF_OPEN, self._opened

    @property
    def next_ms(self) -> float:
        return 0.0 if self._opened_ms is None else self._next_trial_ms

    def called(self, call: Call, now_ms: float) -> None:
        call.made_ms = now_ms
        if self._opened_ms is not None:
            self._trial, self._next_trial_ms = call, now_ms + self.options.open_ms

    def worked(self, call: Call, now_ms: float) -> None:
        if self._opened_ms is None:
            self._failures = 0
            return
        if call.made_ms <= self._opened_ms:
            return  # a late answer to a call of before says nothing of now
        log.info("service %s answers again, after %.1f s", self._name, (now_ms - self._opened_ms) / 1000)
        self._failures, self._opened_ms, self._trial = 0, None, None

    def failed(self, call: Call, error: Exception, now_ms: float) -> None:
        if self._opened_ms is not None:
            if call.made_ms > self._opened_ms:
                self._trial, self._next_trial_ms = None, now_ms + self.options.open_ms
            return
        self._failures += 1
        if self._failures < self.options.failures:
            return
        self._opened += 1
        self._opened_ms, self._next_trial_ms = now_ms, now_ms + self.options.open_ms
        log.warning(
            "service %s does not work, %d calls in a row have failed, the last with %r: it is tried every %g s, and "
            "records that need it wait", self._name, self._failures, error, self.options.open_ms / 1000,
        )  # fmt: skip
