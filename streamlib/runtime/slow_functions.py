"""Watches whether the worker's event loop turns: user functions run in it, and while one blocks nothing else does.

    turns      the worker beats for itself, nobody has to do anything
    held       for longer than a heartbeat interval: a stand-in, in a thread of its own, beats in its place
    half       of `max_poll_interval_ms` has passed: a warning names the record, the node and the function
    given up   all of it has: the stand-in leaves the group, so that others take the tasks over

What others may do with the tasks is no question of trust in this clock: the group refuses the commits of a member that
has left. When the function comes back at last, the worker drops its tasks (`Worker`) and joins again.

Differs from Kafka's consumer, whose heartbeat thread leaves for dynamic members only: it leaves static ones to their
session, which operators make long because restarts are to fit in. A function that blocks is no restart, and it would
hold the tasks for that much longer.

Time counts as far as the process runs: a stopped process, or a laptop's lid, is not held against a function.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import Counter

import anyio
import msgspec

from streamlib.config import StreamsConfig
from streamlib.engine.at_work import AtWork, at_work
from streamlib.engine.plan import Plan
from streamlib.records import TopicPartition
from streamlib.runtime.membership import Membership
from streamlib.runtime.ports import Beat, Leave, StandIn

log = logging.getLogger(__name__)

# So many heartbeat intervals without a turn, and the stand-in speaks.
MISSED_BEATS = 2
LOOKS_PER_BEAT = 2
MIN_LOOK_MS = 50.0


class GivenUp(msgspec.Struct, frozen=True):
    """Why the worker is not in the group any more; `times` the same record has done that to this one."""

    at_work: AtWork
    held_ms: float
    times: int

    def __str__(self) -> str:
        return f"{self.at_work} held this worker for {self.held_ms / 1000:.1f} s"


class SlowFunctions:
    """The watch over one worker.

    `run`, `given_up` and `take_given_up` are for the worker's loop; `look` and what it calls for the stand-in's thread.
    Each attribute is written by one of the two, except `given_up`: set by the stand-in while the loop is held.

    Args:
        plan: knows the nodes' names.
        config: the intervals.
        membership: says who the member is.
        stand_in: speaks; without one nothing is watched, for instance where time is virtual.
    """

    def __init__(
        self, plan: Plan, config: StreamsConfig, membership: Membership, stand_in: StandIn | None = None
    ) -> None:
        self._nodes = frozenset({*plan.global_nodes, *(name for task in plan.tasks for name in plan.nodes(task))})
        self._membership = membership
        self._stand_in = stand_in
        self._limit_ms = config.max_poll_interval_ms
        self._beat_ms = config.heartbeat_interval_ms
        self._thread_id = 0
        self._turns = 0  # of the loop
        self._turns_seen = -1
        self._held_ms = 0.0
        self._beaten_at_ms = 0.0  # on the scale of `_held_ms`
        self._said_ms = 0.0  # when the stand-in was told to beat, by the membership's clock
        self._warned = False
        self._times: Counter[tuple[TopicPartition, int]] = Counter()
        self.given_up: GivenUp | None = None

    # --- the worker's loop ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Show that the loop turns, until cancelled; the stand-in lives as long."""
        self._thread_id = threading.get_ident()
        if self._stand_in is None:
            return
        self._stand_in.start(self)
        try:
            while True:
                self._turns += 1
                await anyio.sleep(self.look_every_ms / 1000)
        finally:
            with anyio.CancelScope(shield=True):
                await self._stand_in.close()

    def take_given_up(self) -> GivenUp | None:
        """Whether, and why, the membership was given up since this was last asked."""
        given_up, self.given_up = self.given_up, None
        return given_up

    # --- the stand-in's thread ------------------------------------------------------------------------------------

    @property
    def look_every_ms(self) -> float:
        return max(self._beat_ms / LOOKS_PER_BEAT, MIN_LOOK_MS)

    def look(self, awake_ms: float) -> Beat | Leave | None:
        """See whether the loop has turned since the last look, and say what is to be done if not for long."""
        if self._turns != self._turns_seen:
            self._turns_seen = self._turns
            self._held_ms = self._beaten_at_ms = 0.0
            self._warned = False
            return None
        before_ms, self._held_ms = self._held_ms, self._held_ms + awake_ms
        beat = self._membership.beat
        if beat is None or before_ms >= self._limit_ms:
            return None
        if self._held_ms >= self._limit_ms:
            self._give_up()
            return Leave(beat.member_id)
        if self._held_ms >= self._limit_ms / 2 and not self._warned:
            self._warn()
        if not self._beat_due():
            return None
        self._said_ms = self._membership.now_ms
        return beat

    def answered(self) -> None:
        """The beat was taken, so that nobody else is given what this worker holds."""
        if self.given_up is None:
            self._membership.heard_at(self._said_ms)

    def _beat_due(self) -> bool:
        if self._held_ms < MISSED_BEATS * self._beat_ms or self._held_ms - self._beaten_at_ms < self._beat_ms:
            return False
        self._beaten_at_ms = self._held_ms
        return True

    def _warn(self) -> None:
        self._warned = True
        log.warning(
            "%s has held this worker for %.1f s; after max_poll_interval_ms (%d) its tasks go to others",
            self.at_work(), self._held_ms / 1000, self._limit_ms,
        )  # fmt: skip

    def _give_up(self) -> None:
        at_work = self.at_work()
        self._membership.disown()
        self.given_up = GivenUp(at_work, self._held_ms, self._count(at_work))
        log.error(
            "%s, longer than max_poll_interval_ms (%d): this worker leaves the group, and others take its tasks over; "
            "make the function quicker, or raise max_poll_interval_ms",
            self.given_up, self._limit_ms,
        )  # fmt: skip

    def _count(self, at_work: AtWork) -> int:
        if at_work.partition is None:
            return 0
        self._times[at_work.partition, at_work.offset] += 1
        return self._times[at_work.partition, at_work.offset]

    def at_work(self) -> AtWork:
        """What the worker's loop is busy with. Any thread may ask."""
        return at_work(sys._current_frames().get(self._thread_id), self._nodes)
