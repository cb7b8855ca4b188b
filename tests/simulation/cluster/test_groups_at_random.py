"""Whatever members do and whatever befalls a group: one assignment for each generation, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamlib.errors import ErrorCode
from streamlib.simulation.cluster.group import State
from tests.simulation.cluster.asking import Asked
from tests.simulation.cluster.test_groups import REBALANCE_MS, SESSION_MS, Coordinator, G

MOST_PROCESSES = 5
LONG_MS = 5 * REBALANCE_MS


class Process:
    """A member as it should be: it joins, syncs, sends heartbeats, and does what the answers say, one step a turn."""

    def __init__(
        self, at: Coordinator, instance: str | None, decisions: Iterator[int], look: Callable[[], None]
    ) -> None:
        self.instance = instance
        self.member_id = ""
        self.generation = -1
        self.assignment: bytes | None = None  # None until it has one
        self.alive = True
        self.dawdles = False  # sends its heartbeats and does nothing else
        self.said = b""
        self._at = at
        self._decisions = decisions
        self._look = look
        self._joining: Asked | None = None
        self._led: list[str] | None = None  # the join is answered: whom to assign to
        self._syncing: Asked | None = None

    @property
    def waits(self) -> bool:
        return any(asked is not None and asked.waits for asked in (self._joining, self._syncing))

    def turn(self) -> None:
        if self.dawdles:
            self._heartbeat()
        elif self.waits:
            pass
        elif self._joining is not None:
            self._joined(self._joining)
        elif self._led is not None:
            self._sync(self._led)
        elif self._syncing is not None:
            self._synced(self._syncing)
        elif self.assignment is None:
            self.join()
        else:
            self._refused(self._heartbeat())

    def join(self) -> None:
        """Also again, if an answer is lost."""
        self.assignment = self._led = self._syncing = None
        self._joining = self._at.join(self.member_id, self.said, instance=self.instance)

    def hang_up(self) -> None:
        """It gives up waiting for an assignment."""
        self._syncing = None

    def _heartbeat(self) -> int:
        return self._at.heartbeat(self.generation, self.member_id, instance=self.instance)

    def _joined(self, asked: Asked) -> None:
        self._joining = None
        if asked.code == ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = asked.answer.member_id
            self.join()
        elif asked.code:
            self._refused(asked.code)
        else:
            self.member_id, self.generation = asked.answer.member_id, asked.answer.generation_id
            leads = asked.answer.leader == self.member_id and not asked.answer.skip_assignment
            self._led = [member.member_id for member in asked.answer.members] if leads else []

    def _sync(self, members: list[str]) -> None:
        self._led = None
        assignments = dict.fromkeys(members, b"%d" % next(self._decisions))
        self._syncing = self._at.sync(self.generation, self.member_id, assignments, instance=self.instance)
        self._look()

    def _synced(self, asked: Asked) -> None:
        self._syncing = None
        self._refused(asked.code)
        if not asked.code:
            self.assignment = asked.answer.assignment

    def _refused(self, code: int) -> None:
        match code:
            case ErrorCode.NONE:
                pass
            case ErrorCode.UNKNOWN_MEMBER_ID:
                self.member_id, self.assignment = "", None
            case ErrorCode.REBALANCE_IN_PROGRESS | ErrorCode.ILLEGAL_GENERATION | ErrorCode.NOT_COORDINATOR:
                self.assignment = None
            case ErrorCode.FENCED_INSTANCE_ID:
                self.alive = False  # another process has taken its place
            case _:
                raise AssertionError(f"refused with {code}")


class AnyOrder(RuleBasedStateMachine):
    """Processes take turns in any order, die, lose answers; the coordinator moves, time goes by."""

    instances = st.sampled_from([None, None, "a", "b"])

    def __init__(self) -> None:
        super().__init__()
        self.at = Coordinator()
        self.numbers = count()
        self.processes: list[Process] = []
        self.moves = 0
        self.generation = 0
        self.decisions: dict[tuple[int, int], bytes] = {}  # by move and generation

    @property
    def alive(self) -> list[Process]:
        return [process for process in self.processes if process.alive]

    def one(self, number: int) -> Process:
        return self.alive[number % len(self.alive)]

    def rounds(self, rounds: int, ms: float) -> None:
        """All the living take a turn, and time goes by, so many times."""
        for _ in range(rounds):
            for process in self.alive:
                process.turn()
            self.at.timers.advance(ms)

    any_process = st.integers(0, MOST_PROCESSES - 1)

    @initialize(instances=st.lists(instances, min_size=1, max_size=MOST_PROCESSES - 2))
    def begins_with_a_stable_group(self, instances: list[str | None]) -> None:
        for instance in instances:
            self.starts(instance)
        self.rounds(5, 0)

    @precondition(lambda self: len(self.alive) < MOST_PROCESSES)
    @rule(instance=instances)
    def starts(self, instance: str | None) -> None:
        self.processes.append(Process(self.at, instance, self.numbers, self.a_generation_has_one_assignment))
        self.processes[-1].turn()

    @precondition(lambda self: self.alive)
    @rule(number=any_process, turns=st.integers(1, 4))
    def takes_turns(self, number: int, turns: int) -> None:
        process = self.one(number)
        for _ in range(turns):
            if process.alive:
                process.turn()

    @rule(rounds=st.integers(1, 8), ms=st.sampled_from([0, SESSION_MS / 3]))
    def all_take_turns(self, rounds: int, ms: float) -> None:
        self.rounds(rounds, ms)

    @precondition(lambda self: self.alive)
    @rule(number=any_process, says_something_new=st.booleans())
    def joins_again(self, number: int, says_something_new: bool) -> None:
        process = self.one(number)
        process.said += b"!" * says_something_new
        process.join()

    @precondition(lambda self: self.alive)
    @rule(number=any_process)
    def dies(self, number: int) -> None:
        self.one(number).alive = False

    @precondition(lambda self: self.alive)
    @rule(number=any_process)
    def dawdles(self, number: int) -> None:
        self.one(number).dawdles = True

    @precondition(lambda self: self.alive)
    @rule(number=any_process)
    def leaves(self, number: int) -> None:
        process = self.one(number)
        process.alive = False
        self.at.leave((process.member_id, process.instance))

    @precondition(lambda self: self.alive)
    @rule(number=any_process)
    def is_sent_away(self, number: int) -> None:
        process = self.one(number)
        self.at.groups.remove(G, process.member_id)
        process.hang_up()  # a waiting sync is not answered then

    @rule()
    def storm(self) -> None:
        self.at.groups.storm(G)

    @rule()
    def coordinator_moves(self) -> None:
        self.at.groups.moved(G)
        assert self.at.groups.generation(G) <= self.generation
        self.moves += 1
        self.generation = self.at.groups.generation(G)

    @rule(ms=st.sampled_from([0, 0, 100, SESSION_MS / 2, SESSION_MS, REBALANCE_MS]))
    def time_goes_by(self, ms: float) -> None:
        self.at.timers.advance(ms)

    @invariant()
    def generations_only_grow(self) -> None:
        now = self.at.groups.generation(G)
        assert now >= self.generation
        self.generation = now

    @invariant()
    def a_generation_has_one_assignment(self) -> None:
        if self.at.groups.state(G) is not State.STABLE:
            return
        (decision,) = set(self.at.groups.members(G).values())  # all of them are assigned to
        assert decision
        assert self.decisions.setdefault((self.moves, self.at.groups.generation(G)), decision) == decision

    @invariant()
    def members_have_what_was_decided_for_their_generation(self) -> None:
        for process in self.alive:
            if process.assignment:
                known = {decision for key, decision in self.decisions.items() if key[1] == process.generation}
                assert process.assignment in known

    def teardown(self) -> None:
        """Left alone, the living have a group of their own."""
        for _ in range(int(LONG_MS / SESSION_MS * 3)):
            self.rounds(4, 0)
            self.at.timers.advance(SESSION_MS / 3)
        busy = [process for process in self.alive if not process.dawdles]
        assert not any(process.waits for process in busy)
        assert all(process.assignment for process in busy)
        assert {process.generation for process in busy} <= {self.at.groups.generation(G)}
        assert {process.member_id for process in busy} <= self.at.groups.members(G).keys()
        assert self.at.groups.members(G).keys() <= {process.member_id for process in self.alive}


AnyOrder.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
