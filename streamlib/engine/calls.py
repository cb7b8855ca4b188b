"""Calls of functions that are awaited: which may start, and what goes on when they have come back.

    node --register--> line --take--> awaited beside the worker's loop --finish--> line --in order--> nodes below
                             ^---------------- to be called again ---------------|

Nothing is awaited here. A node whose function is `async def` only notes the call with the record it is for. The task's
driver takes those that may start, has them answered in whatever way it can, and brings each answer back; what comes
after the node happens then, with the cursor on the call's record, and belongs to the transaction that is open then.

A record that failed and is to be tried again waits in the same way, whether its function is awaited or not: what is
awaited for one that is not is only the time until then.

A record of an input is unfinished as long as it has a call that has not gone on. Where nothing of a record can have
happened by then (`engine/reach.py`), the commit just says which records are unfinished. Other calls hold commits up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from streamlib.engine.cursor import Cursor, Returned
from streamlib.errors import ProcessingError, TopologyError
from streamlib.policies import LastResort
from streamlib.records import FetchedRecord, Headers, RecordMetadata, TopicPartition
from streamlib.topology.operators import CallOptions, Ordered

if TYPE_CHECKING:
    from streamlib.engine.services import Gate, Services
    from streamlib.engine.tracing import TracedCall

MOST_PENDING = 1_000
"""Calls of one task that have not gone on, those that wait for their turn included. More records are not taken."""

DEEPEST = 4
"""Where commits wait for calls, hardly more of one key wait for each other: the commit waits for all of them."""

_UNKNOWN = object()
"""The key of all keys that cannot be told apart."""

_CALLED_FOR: ContextVar[RecordMetadata | None] = ContextVar("called_for", default=None)


def record_metadata() -> RecordMetadata | None:
    """Inside a function that is awaited: where the record came from that it was called for. None elsewhere, and for
    what a punctuator forwarded.

    The same after a restart, so that a service outside of Kafka can tell by its `id` that it has seen a call before.

    >>> from streamlib.testing import run_stream
    >>> async def record_id(value: int) -> str:
    ...     return record_metadata().id
    >>> run_stream(lambda s: s.map_values(record_id), [("a", 1), ("b", 2)])
    [('a', 'in-0-0'), ('b', 'in-0-1')]
    >>> run_stream(lambda s: s.flat_map_values(range).map_values(record_id, value=str), [("a", 2)])
    [('a', 'in-0-0-0'), ('a', 'in-0-0-1')]
    """
    return _CALLED_FOR.get()


class Answer(NamedTuple):
    """What became of a call: what the function returned, or what it raised, and what was decided about that."""

    result: Any = None
    error: Exception | None = None
    decision: LastResort | None = None  # None: nothing, yet


class Wait(NamedTuple):
    """To be tried again after so long, less a part of up to `jitter`, by chance."""

    delay_ms: float
    jitter: float


class Call:
    """One call of a function that is awaited, and the record it is for.

    `holds_commit`: commits wait for it; `hold` is a number that changes when, in between, none had to. `retries`: how
    often it was tried again. `wait`: before it starts. `last`: it is not tried again, whatever its policy says.
    """

    __slots__ = (
        "derived",
        "failures",
        "headers",
        "hold",
        "holds_commit",
        "key",
        "last",
        "line",
        "made_ms",
        "partition",
        "record",
        "retries",
        "timestamp",
        "value",
        "wait",
    )

    def __init__(self, line: Line, key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        self.line = line
        self.key = key
        self.value = value
        self.timestamp = timestamp
        self.headers = headers
        self.partition: TopicPartition | None = None
        self.record: FetchedRecord | None = None
        self.derived: tuple[int, ...] = ()
        self.holds_commit = True
        self.failures = 0  # of the service, after which it is made again
        self.made_ms = 0.0  # the last time, by the services' clock
        self.hold = 0
        self.retries = 0
        self.wait: Wait | None = None
        self.last = False

    @property
    def awaited(self) -> bool:
        """Whether there is a function to await; else only the time until it goes on."""
        return self.line.call is not None

    @property
    def timeout_ms(self) -> int | None:
        """After how long it counts as failed."""
        return self.line.options.timeout_ms

    @property
    def record_in_process(self) -> tuple[TopicPartition, int, bytes | None] | None:
        """As a task's: partition, offset and key of the record it is for. None in a punctuator. Any thread may ask."""
        if self.partition is None or self.record is None:
            return None
        return self.partition, self.record.offset, self.record.key

    @property
    def read_at(self) -> tuple[TopicPartition, int] | None:
        """The record of an input that is unfinished until it has gone on. None in a punctuator."""
        if isinstance(self.record, Returned):
            return self.record.read_at
        if self.partition is None or self.record is None:
            return None
        return self.partition, self.record.offset

    async def answer(self) -> Answer:
        """Call the function. What it raises is part of the answer; a cancellation is not, and passes."""
        call, traced = self.line.call, self.line.traced
        if call is None:
            return Answer()
        _CALLED_FOR.set(self._place())
        return await (self._answer(call) if traced is None else traced(self, self._answer(call)))

    async def _answer(self, call: Callable[[Any, Any], Any]) -> Answer:
        try:
            return Answer(await call(self.key, self.value))
        except Exception as error:
            return Answer(error=error)

    def _place(self) -> RecordMetadata | None:
        if self.partition is None or self.record is None:
            return None
        return RecordMetadata(*self.partition, self.record.offset, self.derived)

    def __str__(self) -> str:
        place = self._place()
        where = "a punctuator" if self.partition is None or place is None else self.partition.at(place.offset)
        return f"node {self.line.name}: the call for {where}"


class Line:
    """The calls of one node.

    Args:
        name: of the node.
        call: `call(key, value)` calls the user's function; None if that is not awaited, but called in the node.
        options: how many at a time, and in which order they go on.
        gate: the way to the service that is called, if something is known of it.
    """

    def __init__(
        self, name: str, call: Callable[[Any, Any], Any] | None, options: CallOptions, gate: Gate | None = None
    ) -> None:
        self.name = name
        self.call = call
        self.options = options
        self.gate = gate
        # The node; with a call, as if its function were a plain one that says what is known.
        self.resume: Callable[[Any, Any, int, Headers], Wait | None] | None = None
        # What is to be done about a call that raised; None: the node decides when it goes on.
        self.decide: Callable[[Call, Exception], LastResort | Wait] | None = None
        # Whether a call that could start now is not to be made, and has been dealt with; the cursor is on its record.
        self.aside: Callable[[Call], bool] | None = None
        self.traced: TracedCall | None = None  # how a call is awaited, if calls are traced
        self.order: _Order = _ORDERS[options.ordered]()
        self.startable: deque[Call] = deque()
        self.started = 0
        self._resting: list[tuple[float, int, Call]] = []  # a heap of calls to be made again, by when
        self._rests = 0
        self._answer = Answer()
        self._current: Call | None = None

    @property
    def retries(self) -> int:
        """How often the record was tried again that goes on."""
        return 0 if self._current is None else self._current.retries

    @property
    def last(self) -> bool:
        """Whether the record that goes on is not tried again."""
        return self._current is not None and self._current.last

    @property
    def decision(self) -> LastResort | None:
        """What was decided about the call that goes on."""
        return self._answer.decision

    @property
    def free(self) -> int:
        """How many more calls could start now."""
        return self.options.concurrency - self.started - len(self.startable) - len(self._resting)

    def take(self) -> Call | None:
        """The next call that may start now, if there is one."""
        if self._resting:
            self._rouse()
        if not self.startable or self.started >= self.options.concurrency:
            return None
        if self.gate is not None and not self.gate.may_call(self.startable[0]):
            return None
        self.started += 1
        return self.startable.popleft()

    @property
    def next_ms(self) -> float | None:
        """When a call may start, by the gate's clock, if nothing happens before; None if none waits for that."""
        if self.gate is None or self.started >= self.options.concurrency:
            return None
        if self.startable:
            return self.gate.next_ms
        return max(self._resting[0][0], self.gate.next_ms) if self._resting else None

    def made_again(self, call: Call, error: Exception | None) -> bool:
        """Whether the call is to be made again, as its answer is that the service does not work. It keeps its place.

        Raises:
            ProcessingError: the user's function for that raised.
        """
        if self.gate is None:
            return False
        try:
            rest_ms = self.gate.judge(call, error)
        except Exception as failure:
            raise ProcessingError(
                f"node {self.name}: the errors of service {self.gate.service.name} raised {failure!r}", node=self.name
            ) from failure
        if rest_ms is None:
            return False
        self._rests += 1
        heappush(self._resting, (self.gate.now_ms() + rest_ms, self._rests, call))
        return True

    def _rouse(self) -> None:
        """Have those that have rested come first: the commit waits for the oldest."""
        assert self.gate is not None, "a call is made again without a reason"
        now_ms, roused = self.gate.now_ms(), []
        while self._resting and self._resting[0][0] <= now_ms:
            roused.append(heappop(self._resting)[2])
        self.startable.extendleft(reversed(roused))

    def answered(self, *arguments: Any) -> Any:
        """What the user's function said about the call that goes on."""
        if self._answer.error is not None:
            raise self._answer.error
        return self._answer.result

    def again(self, call: Call, answer: Answer) -> Answer | Wait:
        """Whether the function is to be called again, now that this is its answer; or the answer with what was
        decided."""
        if answer.error is None or self.decide is None:
            return answer
        decision = self.decide(call, answer.error)
        return decision if isinstance(decision, Wait) else answer._replace(decision=decision)

    def go_on(self, call: Call, answer: Answer) -> Wait | None:
        """Do what comes after the call, or say that it is to be tried again."""
        assert self.resume is not None, f"node {self.name} is not compiled"
        self._answer, self._current = answer, call
        try:
            return self.resume(call.key, call.value, call.timestamp, call.headers)
        finally:
            self._answer, self._current = Answer(), None


class _Order(Protocol):
    """When a call may start and go on."""

    @property
    def deep(self) -> bool:
        """Whether so many wait for each other that no more should come, if commits wait for them."""
        ...

    def add(self, call: Call) -> bool:
        """Take a call; whether it may start at once."""
        ...

    def waits(self, key: Any) -> bool:
        """Whether a call for this key would not start at once."""
        ...

    def back(self, call: Call, answer: Answer) -> Iterable[tuple[Call, Answer]]:
        """Those that go on now that this one has its answer."""
        ...

    def gone_on(self, call: Call) -> Call | None:
        """The one that may start now that this one has gone on."""
        ...


class _ByKey:
    """Of each key one after the other, with all that comes after. Records without a key have no order."""

    def __init__(self) -> None:
        self._behind: dict[Any, deque[Call]] = {}  # those that wait, for each key of which one is under way
        self._deep_keys = 0

    @property
    def deep(self) -> bool:
        return self._deep_keys > 0

    def add(self, call: Call) -> bool:
        if call.key is None:
            return True
        key = _identity(call.key)
        behind = self._behind.get(key)
        if behind is None:
            self._behind[key] = deque()
            return True
        behind.append(call)
        self._deep_keys += len(behind) == DEEPEST
        return False

    def waits(self, key: Any) -> bool:
        return bool(self._behind) and key is not None and _identity(key) in self._behind

    def back(self, call: Call, answer: Answer) -> Iterable[tuple[Call, Answer]]:
        return ((call, answer),)

    def gone_on(self, call: Call) -> Call | None:
        if call.key is None:
            return None
        key = _identity(call.key)
        behind = self._behind[key]
        if not behind:
            del self._behind[key]
            return None
        self._deep_keys -= len(behind) == DEEPEST
        return behind.popleft()


class _InLine:
    """All at once, but each goes on only when those before it have."""

    deep = False

    def __init__(self) -> None:
        self._line: deque[Call] = deque()
        self._answers: dict[Call, Answer] = {}

    def add(self, call: Call) -> bool:
        self._line.append(call)
        return True

    def waits(self, key: Any) -> bool:
        return False

    def back(self, call: Call, answer: Answer) -> Iterable[tuple[Call, Answer]]:
        self._answers[call] = answer
        while self._line and self._line[0] in self._answers:
            first = self._line.popleft()
            yield first, self._answers.pop(first)

    def gone_on(self, call: Call) -> Call | None:
        return None


class _AsTheyCome:
    """No order."""

    deep = False

    def add(self, call: Call) -> bool:
        return True

    def waits(self, key: Any) -> bool:
        return False

    def back(self, call: Call, answer: Answer) -> Iterable[tuple[Call, Answer]]:
        return ((call, answer),)

    def gone_on(self, call: Call) -> Call | None:
        return None


_ORDERS: dict[Ordered, Callable[[], _Order]] = {"key": _ByKey, "partition": _InLine, "none": _AsTheyCome}


def _identity(key: Any) -> Any:
    """What tells keys apart. Those that can neither be hashed nor written are all one, which only costs time."""
    try:
        hash(key)
    except TypeError:
        try:
            return msgspec.msgpack.encode(key)
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError):
            return _UNKNOWN
    return key


class Calls:
    """The calls of one task.

    Args:
        cursor: the task's; while calls go on it stands on their records.
        services: the worker's.
    """

    def __init__(self, cursor: Cursor, services: Services) -> None:
        self._cursor = cursor
        self._services = services
        self.lines: dict[str, Line] = {}
        # For each input that may be committed with records unfinished, their offsets, lowest first, and calls of each.
        self.unfinished: dict[TopicPartition, dict[int, int]] = {}
        self.most_pending = MOST_PENDING
        self.may_hold = False  # commits
        self.pending = 0
        self.holding = 0  # those that commits wait for
        self._holds = 0  # how often there were some after there were none

    def line(self, name: str, call: Callable[[Any, Any], Any] | None, options: CallOptions) -> Line:
        """The calls of another node; `call` is None if its function is not awaited."""
        gate = None if options.service is None else self._services.gate(options.service)
        line = self.lines[name] = Line(name, call, options, gate)
        return line

    def check_commits(self) -> None:
        """To be asked when it is known whether commits wait for calls.

        Raises:
            TopologyError: they do, and may have to wait for a service, which may take longer than a transaction lasts.
        """
        waits = next((line.name for line in self.lines.values() if line.gate is not None), None)
        if self.may_hold and waits is not None:
            raise TopologyError(
                f"node {waits} names a service, for which calls may have to wait, and commits would have to wait for "
                "the calls, since records have results before they are called for: put a repartition() in front of it"
            )

    def register(
        self, line: Line, key: Any, value: Any, timestamp: int, headers: Headers, wait: Wait | None = None
    ) -> None:
        """Note a call for the record in process; `wait`: it was tried already, and is to be tried again."""
        call = Call(line, key, value, timestamp, headers)
        call.partition, call.record, call.derived = self._cursor.partition, self._cursor.record, self._cursor.derived
        if line.aside is not None and not line.order.waits(key) and line.aside(call):
            return
        if wait is not None:
            call.wait, call.retries = wait, 1
        self.pending += 1
        self._begun(call)
        if line.order.add(call):
            line.startable.append(call)

    def take(self) -> list[Call]:
        """Calls that may start now; each will have its answer."""
        taken = []
        for line in self.lines.values():
            while (call := line.take()) is not None:
                taken.append(call)
        return taken

    @property
    def next_ms(self) -> float | None:
        """When a call may start that waits for a service, by the services' clock; None if none does."""
        return min((due for line in self.lines.values() if (due := line.next_ms) is not None), default=None)

    def finish(self, call: Call, answer: Answer) -> None:
        """Go on with the calls whose turn it is now that this one has its answer."""
        line, cursor = call.line, self._cursor
        line.started -= 1
        cursor.partition, cursor.record = call.partition, call.record
        if line.made_again(call, answer.error):
            return
        decided = line.again(call, answer)
        if isinstance(decided, Wait):
            self._again(call, decided)
            return
        for each, known in line.order.back(call, decided):
            cursor.partition, cursor.record, cursor.derived = each.partition, each.record, each.derived
            wait = line.go_on(each, known)
            cursor.derived = ()
            if wait is not None:
                self._again(each, wait)
                continue
            self.pending -= 1
            self._ended(each)
            self._start_next(line, each)

    def _start_next(self, line: Line, call: Call) -> None:
        """Have the one start that has waited for a call that has gone on."""
        following, cursor = line.order.gone_on(call), self._cursor
        while following is not None and line.aside is not None:
            cursor.partition, cursor.record, cursor.derived = following.partition, following.record, following.derived
            aside = line.aside(following)
            cursor.derived = ()
            if not aside:
                break
            self.pending -= 1
            self._ended(following)
            following = line.order.gone_on(following)
        if following is not None:
            line.startable.append(following)

    @property
    def room(self) -> int:
        """How many more records may be taken: as many as could each have a call that starts at once."""
        left = self.most_pending - self.pending
        if self.may_hold and any(line.order.deep for line in self.lines.values()):
            return 0
        awaited = [line.free for line in self.lines.values() if line.call is not None]
        if not awaited:
            return left
        return min(DEEPEST if self.may_hold else left, left, *awaited)

    @property
    def may_fill_up(self) -> bool:
        """Whether the next records might be too many although there is room: any of them may have to be tried again,
        and where commits wait for it, hardly any may wait behind it."""
        return self.may_hold and any(line.call is None for line in self.lines.values())

    def _again(self, call: Call, wait: Wait) -> None:
        """Have a call made once more; no other of its line takes its place."""
        call.wait = wait
        call.retries += 1
        call.line.startable.appendleft(call)

    def _begun(self, call: Call) -> None:
        read_at = call.read_at
        unfinished = None if read_at is None else self.unfinished.get(read_at[0])
        if unfinished is None or read_at is None:
            self._holds += self.holding == 0
            self.holding += 1
            call.hold = self._holds
            return
        call.holds_commit = False
        offset = read_at[1]
        unfinished[offset] = unfinished.get(offset, 0) + 1

    def _ended(self, call: Call) -> None:
        if call.holds_commit:
            self.holding -= 1
            return
        assert call.read_at is not None
        partition, offset = call.read_at
        unfinished = self.unfinished[partition]
        unfinished[offset] -= 1
        if not unfinished[offset]:
            del unfinished[offset]
