"""What can go wrong: a list of faults, each a value, drawn from the seed and printed with a run that failed.

Two sorts: things that happen at a time, and things that happen to the n-th request of one kind that a host makes.
`nth` counts from 1 over all lives of the host.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import msgspec

from streamlib.simulation.network import DELIVER, Verdict

Moment: TypeAlias = Literal["before", "sent", "after"]


class Killed(msgspec.Struct, frozen=True, tag=True):
    """SIGKILL; the host starts the worker again after `down_ms`."""

    host: str
    at_ms: float
    down_ms: float


class Stopped(msgspec.Struct, frozen=True, tag=True):
    """SIGTERM: commit, close, leave; and started again."""

    host: str
    at_ms: float


class Joined(msgspec.Struct, frozen=True, tag=True):
    """The worker is added: its host has none before, or it had left."""

    host: str
    at_ms: float


class Left(msgspec.Struct, frozen=True, tag=True):
    """Told to stop and to leave, static or not: hand over, commit, go. None: for good, unless it is the last."""

    host: str
    at_ms: float
    back_after_ms: float | None


class Restarted(msgspec.Struct, frozen=True, tag=True):
    """Told to stop without leaving, static or not: commit, close, and back before its session has expired."""

    host: str
    at_ms: float


class Replaced(msgspec.Struct, frozen=True, tag=True):
    """All workers in turn are stopped and started again, each when the one before runs; `fresh`: on an empty disk."""

    at_ms: float
    pause_ms: float
    leave: bool
    fresh: bool


class Frozen(msgspec.Struct, frozen=True, tag=True):
    """Stop the world of one worker. Longer than its session, and it wakes up as a zombie."""

    host: str
    at_ms: float
    for_ms: float


class CutOff(msgspec.Struct, frozen=True, tag=True):
    """Nothing gets through to or from the host, and nobody is told."""

    host: str
    at_ms: float
    for_ms: float


class DiskLost(msgspec.Struct, frozen=True, tag=True):
    """Killed, and the disk is empty when it comes back."""

    host: str
    at_ms: float
    down_ms: float


class DiskTailLost(msgspec.Struct, frozen=True, tag=True):
    """The machine goes down: the last writes of each store had not reached the disk."""

    host: str
    at_ms: float
    down_ms: float
    writes: int


class ClockJumped(msgspec.Struct, frozen=True, tag=True):
    """The host's wall clock is set, forward or back."""

    host: str
    at_ms: float
    by_ms: float


class BrokerDown(msgspec.Struct, frozen=True, tag=True):
    """Its connections break; others lead its partitions and coordinate its groups until it is back."""

    broker: int
    at_ms: float
    for_ms: float


class BrokerSlow(msgspec.Struct, frozen=True, tag=True):
    """Every message to and from the broker takes so much longer."""

    broker: int
    at_ms: float
    for_ms: float
    by_ms: float


class LeadersMoved(msgspec.Struct, frozen=True, tag=True):
    """Every partition gets the broker `by` places on as its leader."""

    at_ms: float
    by: int


class CoordinatorsMoved(msgspec.Struct, frozen=True, tag=True):
    """The group and all transactional ids get other coordinators, which load for a while."""

    at_ms: float
    by: int
    loading_ms: float


class RebalanceStorm(msgspec.Struct, frozen=True, tag=True):
    """The group has to join again, several times in a row."""

    at_ms: float
    times: int
    every_ms: float


class TransactionsExpired(msgspec.Struct, frozen=True, tag=True):
    """The coordinator aborts all open transactions, as if they had been open for too long."""

    at_ms: float


class ProducersFenced(msgspec.Struct, frozen=True, tag=True):
    """Somebody else initialises the transactional ids of the host."""

    host: str
    at_ms: float


class MarkersSlow(msgspec.Struct, frozen=True, tag=True):
    """What a transaction's coordinator tells other brokers takes up to so much longer to arrive."""

    at_ms: float
    for_ms: float
    by_ms: float


class Compacted(msgspec.Struct, frozen=True, tag=True):
    """The log cleaner runs over all compacted topics."""

    at_ms: float


class RequestLost(msgspec.Struct, frozen=True, tag=True):
    """The request never arrives. The connection breaks, unless it happens `quietly`: then nobody hears anything."""

    host: str
    api: str
    nth: int
    quietly: bool


class ReplyLost(msgspec.Struct, frozen=True, tag=True):
    """The broker does it, and the worker never hears of it."""

    host: str
    api: str
    nth: int
    quietly: bool


class RequestRepeated(msgspec.Struct, frozen=True, tag=True):
    """The broker gets it twice; the worker hears the last answer."""

    host: str
    api: str
    nth: int


class RequestDelayed(msgspec.Struct, frozen=True, tag=True):
    """It arrives late, perhaps when the worker has long given it up and gone another way."""

    host: str
    api: str
    nth: int
    by_ms: float


class KilledAtRequest(msgspec.Struct, frozen=True, tag=True):
    """SIGKILL before the request leaves, right after it was sent, or when the answer arrives."""

    host: str
    api: str
    nth: int
    moment: Moment
    down_ms: float


class FrozenAtRequest(msgspec.Struct, frozen=True, tag=True):
    """Stop the world of the worker right before the request leaves, after it was sent, or when the answer arrives."""

    host: str
    api: str
    nth: int
    moment: Moment
    for_ms: float


TimedFault: TypeAlias = (
    Killed
    | Stopped
    | Joined
    | Left
    | Restarted
    | Replaced
    | Frozen
    | CutOff
    | DiskLost
    | DiskTailLost
    | ClockJumped
    | BrokerDown
    | BrokerSlow
    | LeadersMoved
    | CoordinatorsMoved
    | RebalanceStorm
    | TransactionsExpired
    | ProducersFenced
    | MarkersSlow
    | Compacted
)
RequestFault: TypeAlias = RequestLost | ReplyLost | RequestRepeated | RequestDelayed | KilledAtRequest | FrozenAtRequest
Fault: TypeAlias = TimedFault | RequestFault
GracefulMove: TypeAlias = Stopped | Joined | Left | Restarted | Replaced
"""Work moves, and nothing goes wrong: at least once, too, nothing may be repeated then."""


class RequestJudge:
    """Counts requests and says what becomes of each."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._due: dict[tuple[str, str, int], list[RequestFault]] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._over = False
        self._strikes: dict[str, KilledAtRequest | FrozenAtRequest] = {}  # by host
        for fault in faults:
            if isinstance(fault, RequestFault):
                self._due.setdefault((fault.host, fault.api, fault.nth), []).append(fault)

    def verdict(self, host: str, api: str) -> Verdict:
        if not self._due or self._over:
            return DELIVER
        self._counts[host, api] += 1
        verdict = DELIVER
        for fault in self._due.pop((host, api, self._counts[host, api]), ()):
            verdict = self._apply(fault, verdict)
        return verdict

    def end(self) -> None:
        """From now on nothing goes wrong."""
        self._over = True

    def strike(self, host: str) -> KilledAtRequest | FrozenAtRequest | None:
        """What is to happen to the host now; None when nothing goes wrong any more."""
        return None if self._over else self._strikes[host]

    def _apply(self, fault: RequestFault, verdict: Verdict) -> Verdict:
        match fault:
            case RequestLost():
                return verdict._replace(lose_request=True, quietly=fault.quietly)
            case ReplyLost():
                return verdict._replace(lose_reply=True, quietly=fault.quietly)
            case RequestRepeated():
                return verdict._replace(times=2)
            case RequestDelayed():
                return verdict._replace(delay_ms=fault.by_ms)
            case KilledAtRequest() | FrozenAtRequest():
                self._strikes[fault.host] = fault
                return verdict._replace(moment=fault.moment)


# What is drawn, and how often compared with the others.
_APIS: tuple[tuple[str, int, int], ...] = (
    # name, weight, up to which occurrence
    ("Produce", 6, 12),
    ("TxnOffsetCommit", 6, 10),
    ("EndTxn", 8, 10),
    ("InitProducerId", 3, 4),
    ("AddPartitionsToTxn", 2, 10),
    ("AddOffsetsToTxn", 2, 10),
    ("JoinGroup", 3, 8),
    ("SyncGroup", 3, 8),
    ("Heartbeat", 2, 16),
    ("OffsetFetch", 3, 3),
    ("OffsetCommit", 2, 6),
    ("ListOffsets", 2, 4),
    ("Fetch", 3, 20),
    ("FindCoordinator", 1, 4),
    ("Metadata", 1, 4),
    ("LeaveGroup", 1, 2),
    ("DeleteRecords", 1, 2),
)
_MOVES = 0.3  # of the timed faults
_TO_HOSTS = 0.6  # of the others
_OF_A_COMMIT = ("Produce", "TxnOffsetCommit", "EndTxn")
_AROUND: tuple[Moment, ...] = ("before", "after")
_NEVER_REPEATED = ("Fetch", "Metadata", "FindCoordinator")


class Drawing:
    """Draws faults for some hosts and brokers within `horizon_ms`."""

    def __init__(self, rng: random.Random, hosts: Sequence[str], brokers: int, horizon_ms: float) -> None:
        self._rng = rng
        self._hosts = hosts
        self._brokers = brokers
        self._horizon_ms = horizon_ms

    def draw(self, count: int) -> tuple[Fault, ...]:
        """So many faults, of all sorts."""
        return tuple(self._timed() if self._rng.random() < 0.4 else self._of_request() for _ in range(count))

    def draw_moves(self, count: int) -> tuple[Fault, ...]:
        """So many that make work move: joins, leaves, restarts, kills and pauses."""
        return tuple(self._kill_or_pause() if self._rng.random() < 0.4 else self._move() for _ in range(count))

    def _kill_or_pause(self) -> Fault:
        rng, host, at_ms = self._rng, self._rng.choice(self._hosts), self._at_ms()
        if rng.random() < 0.5:
            return Killed(host, at_ms, self._down_ms())
        return Frozen(host, at_ms, self._pause_ms())

    def _move(self) -> Fault:
        rng, host, at_ms = self._rng, self._rng.choice(self._hosts), self._at_ms()
        match rng.choices(range(5), (3, 2, 4, 3, 2))[0]:
            case 0:
                return Joined(host, at_ms)
            case 1:
                return Stopped(host, at_ms)
            case 2:
                return Left(host, at_ms, None if rng.random() < 0.3 else self._down_ms())
            case 3:
                return Restarted(host, at_ms)
            case _:
                return Replaced(at_ms, round(rng.uniform(0, 1_000), 1), rng.random() < 0.6, rng.random() < 0.3)

    def _at_ms(self) -> float:
        return round(self._rng.uniform(0, self._horizon_ms), 1)

    def _timed(self) -> Fault:
        if self._rng.random() < _MOVES:
            return self._move()
        rng, host, at_ms = self._rng, self._rng.choice(self._hosts), self._at_ms()
        if rng.random() < _TO_HOSTS:
            return self._to_host(host, at_ms)
        return self._to_brokers(rng.randrange(self._brokers), at_ms)

    def _to_host(self, host: str, at_ms: float) -> Fault:
        rng = self._rng
        match rng.choices(range(8), (10, 6, 10, 5, 4, 4, 2, 4))[0]:
            case 0:
                return Killed(host, at_ms, self._down_ms())
            case 1:
                return Stopped(host, at_ms)
            case 2:
                return Frozen(host, at_ms, self._pause_ms())
            case 3:
                return CutOff(host, at_ms, self._pause_ms())
            case 4:
                return DiskLost(host, at_ms, self._down_ms())
            case 5:
                return DiskTailLost(host, at_ms, self._down_ms(), rng.randint(1, 6))
            case 6:
                return ClockJumped(host, at_ms, rng.choice([-3_600_000.0, -5_000.0, 5_000.0, 3_600_000.0]))
            case _:
                return ProducersFenced(host, at_ms)

    def _to_brokers(self, broker: int, at_ms: float) -> Fault:
        rng, by = self._rng, self._rng.randint(1, max(self._brokers - 1, 1))
        match rng.choices(range(8), (5, 3, 4, 4, 4, 4, 3, 4))[0]:
            case 0:
                return BrokerDown(broker, at_ms, self._pause_ms())
            case 1:
                return BrokerSlow(broker, at_ms, self._pause_ms(), round(rng.uniform(5, 800), 1))
            case 2:
                return LeadersMoved(at_ms, by)
            case 3:
                return CoordinatorsMoved(at_ms, by, round(rng.uniform(0, 300), 1))
            case 4:
                return RebalanceStorm(at_ms, rng.randint(1, 4), round(rng.uniform(5, 500), 1))
            case 5:
                return TransactionsExpired(at_ms)
            case 6:
                return Compacted(at_ms)
            case _:
                return MarkersSlow(at_ms, self._pause_ms(), rng.choice([100.0, 2_000.0]))

    def _of_request(self) -> Fault:
        rng, host = self._rng, self._rng.choice(self._hosts)
        api, _, most = rng.choices(_APIS, [weight for _, weight, _ in _APIS])[0]
        nth = rng.randint(1, most)
        moment: Moment = rng.choice(["before", "sent", "after"])
        match rng.choices(range(7), (3, 4, 2, 2, 4, 4, 2))[0]:
            case 0:
                return RequestLost(host, api, nth, rng.random() < 0.3)
            case 1:
                return ReplyLost(host, api, nth, rng.random() < 0.3)
            case 2 if api not in _NEVER_REPEATED:
                return RequestRepeated(host, api, nth)
            case 3:
                return RequestDelayed(host, api, nth, round(rng.choice([50.0, 1_000.0, 8_000.0]) * rng.random(), 1))
            case 4:
                return FrozenAtRequest(host, api, nth, moment, self._pause_ms())
            case 5:
                return self._zombie(host, nth)
            case _:
                return KilledAtRequest(host, api, nth, moment, self._down_ms())

    def _zombie(self, host: str, nth: int) -> Fault:
        """Away in the middle of a commit for as long as a session, and about as long as its transaction."""
        api, moment = self._rng.choice(_OF_A_COMMIT), self._rng.choice(_AROUND)
        return FrozenAtRequest(host, api, nth, moment, round(self._rng.uniform(5_500, 8_500), 1))

    def _down_ms(self) -> float:
        """Sometimes back before anybody noticed, sometimes after the session has expired."""
        return round(self._rng.choice([20.0, 500.0, 4_000.0, 9_000.0]) * self._rng.uniform(0.5, 1.5), 1)

    def _pause_ms(self) -> float:
        return round(self._rng.choice([50.0, 1_000.0, 7_000.0, 12_000.0]) * self._rng.uniform(0.5, 1.5), 1)
