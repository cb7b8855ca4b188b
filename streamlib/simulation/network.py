"""The network between workers and brokers: connections that delay, lose, repeat and break.

    worker --send--> [latency] --> broker's queue for this connection --> Cluster.handle --> [latency] --> worker

A broker answers the requests of one connection strictly in turn, as a real one does. What happens here is the
world's, not a process's: a request that is on its way when its sender is killed arrives all the same.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any, NamedTuple, Protocol

from streamlib.errors import ConnectionFailedError, ErrorCode
from streamlib.kafka.cluster import Address
from streamlib.kafka.pool import Link
from streamlib.kafka.protocol.codec import as_decoded
from streamlib.kafka.protocol.messages import APIS
from streamlib.kafka.protocol.request import Request
from streamlib.kafka.protocol.schema import Api
from streamlib.simulation.cluster.basics import Body, Timer
from streamlib.simulation.cluster.brokers import FIRST_PORT, HOST
from streamlib.simulation.cluster.cluster import Cluster
from streamlib.simulation.loop import Process, VirtualTimeLoop
from streamlib.simulation.trace import Trace, codes_of

LATENCY_MS = (0.1, 1.5)
SOON_MS = (0.1, 10.0)
"""How long work between brokers takes: a marker, for instance."""


_DEFECTS = frozenset(
    {
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorCode.DUPLICATE_SEQUENCE_NUMBER,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.INVALID_RECORD,
        ErrorCode.CORRUPT_MESSAGE,
        ErrorCode.UNSUPPORTED_VERSION,
        ErrorCode.INCONSISTENT_GROUP_PROTOCOL,
    }
)
"""What a broker says only to a client that does something wrong, however much goes wrong around it."""
_WRITES = frozenset({"Produce", "TxnOffsetCommit", "EndTxn", "AddPartitionsToTxn", "JoinGroup", "SyncGroup"})


class LoopTimers:
    """Implements `Timers` on the loop; what it runs is the world's."""

    def __init__(self, loop: VirtualTimeLoop, rng: random.Random) -> None:
        self._loop = loop
        self._rng = rng
        self._world = Context()
        self.slow_ms = 0.0  # how much longer work between brokers may take

    def now_ms(self) -> float:
        return self._loop.time() * 1000

    def call_later(self, delay_ms: float, action: Callable[[], None]) -> Timer:
        return self._loop.call_later(delay_ms / 1000, action, context=self._world)

    def soon(self, action: Callable[[], None]) -> Timer:
        shortest, longest = SOON_MS
        return self.call_later(self._rng.uniform(shortest, longest + self.slow_ms), action)


class Verdict(NamedTuple):
    """What becomes of one request, and of its sender at that moment."""

    lose_request: bool = False
    lose_reply: bool = False
    quietly: bool = False  # a loss breaks the connection, unless it is a quiet one: then nobody hears anything
    times: int = 1  # how often the broker carries it out
    delay_ms: float = 0.0  # on its way there
    moment: str = ""  # when the sender is struck: "before" it leaves, "sent", "after" the answer arrived


DELIVER = Verdict()


class Judge(Protocol):
    """Decides what becomes of requests (`faults.py`)."""

    def verdict(self, host: str, api: str) -> Verdict:
        """What becomes of the next request of this API that the host makes."""
        ...

    def strike(self, process: Process) -> None:
        """Kill or freeze the sender of the request that was judged last, as it was drawn."""
        ...


class Answer:
    """An answer that came in; implements `streamlib.kafka.pool.Answer`."""

    __slots__ = ("_body",)

    def __init__(self, body: Body) -> None:
        self._body = body

    def body(self, api: Api, version: int) -> Any:
        return as_decoded(api, "response", version)(self._body)


class _Call(NamedTuple):
    request: Request
    verdict: Verdict
    answer: asyncio.Future[Answer]


class Connection:
    """One connection of a process to a broker; implements `streamlib.kafka.pool.Wire`."""

    def __init__(self, network: Network, process: Process, broker: int) -> None:
        self.process = process
        self.broker = broker
        self._network = network
        self._open = True
        self._arrives_ms = 0.0  # when the last request does: they stay in order
        self._queue: deque[_Call] = deque()
        self._busy = False
        self._waiting: dict[asyncio.Future[Answer], None] = {}

    def connected(self) -> bool:
        return self._open

    def close(self) -> None:
        """The worker hangs up."""
        self.break_off("the connection was closed")

    def break_off(self, why: str) -> None:
        """Whoever waits for an answer hears that none will come. What has been sent is on its way."""
        self._open = False
        self._network.forget(self)
        waiting, self._waiting = self._waiting, {}
        for answer in waiting:
            if not answer.done():
                answer.set_exception(OSError(why))

    async def send(self, request: Request) -> Answer:
        """Send a request and wait for its answer. Raises `OSError`."""
        if not self._open:
            raise OSError("the connection is closed")
        network = self._network
        verdict = network.judge.verdict(self.process.name, request.api.name)
        if verdict.moment == "before":
            await network.strike(self.process)
        answer: asyncio.Future[Answer] = network.loop.create_future()
        self._waiting[answer] = None
        self._depart(_Call(request, verdict, answer))
        if verdict.moment == "sent":
            await network.strike(self.process)
        try:
            return await answer
        finally:
            self._waiting.pop(answer, None)

    def _depart(self, call: _Call) -> None:
        network, verdict = self._network, call.verdict
        network.on_request()
        network.trace.request(self.process.name, self.broker, call.request)
        if verdict.lose_request or network.cut_off(self):
            network.trace.lost(self.process.name, self.broker, call.request, "request")
            if not verdict.quietly and not network.cut_off(self):
                network.later(network.latency_ms(self.broker), lambda: self.break_off("connection reset"))
            return
        delay_ms = network.latency_ms(self.broker) + verdict.delay_ms
        self._arrives_ms = max(self._arrives_ms, network.timers.now_ms() + delay_ms)
        network.later(self._arrives_ms - network.timers.now_ms(), lambda: self._arrive(call))

    def _arrive(self, call: _Call) -> None:
        if not self._network.cluster.is_up(self.broker):
            return  # its connections break, too
        self._queue.append(call)
        if not self._busy:
            self._next()

    def _next(self) -> None:
        self._busy = bool(self._queue)
        if not self._busy:
            return
        call = self._queue.popleft()
        left = call.verdict.times

        def answered(body: Body) -> None:
            nonlocal left
            left -= 1
            if left:
                self._carry_out(call, answered)
                return
            self._answer(call, body)
            self._next()

        self._carry_out(call, answered)

    def _carry_out(self, call: _Call, answered: Callable[[Body], None]) -> None:
        request = call.request
        decoded = as_decoded(request.api, "request", request.version)(request.content)
        self._network.cluster.handle(self.broker, request.api.name, decoded, request.version, answered)

    def _answer(self, call: _Call, body: Body) -> None:
        network, verdict = self._network, call.verdict
        if call.request.api.name in _WRITES and (defects := _DEFECTS.intersection(codes_of(body))):
            network.violations.append(f"{self.process.name}: {call.request!r} is answered with {sorted(defects)}")
        network.trace.reply(self.process.name, self.broker, call.request, body)
        if verdict.lose_reply or network.cut_off(self):
            network.trace.lost(self.process.name, self.broker, call.request, "reply")
            if not verdict.quietly and not network.cut_off(self):
                network.later(network.latency_ms(self.broker), lambda: self.break_off("connection reset"))
            return
        network.later(network.latency_ms(self.broker), lambda: self._deliver(call, body))

    def _deliver(self, call: _Call, body: Body) -> None:
        if call.verdict.moment == "after":
            self._network.judge.strike(self.process)
        if not call.answer.done():
            call.answer.set_result(Answer(body))


class Network:
    """All connections of all processes."""

    def __init__(self, loop: VirtualTimeLoop, cluster: Cluster, timers: LoopTimers, rng: random.Random) -> None:
        self.loop = loop
        self.cluster = cluster
        self.timers = timers
        self.trace = Trace(timers.now_ms)
        self.judge: Judge = _Fair()
        self.on_request: Callable[[], None] = lambda: None  # whoever looks on is called whenever one departs
        self.violations: list[str] = []
        self._rng = rng
        self._connections: dict[Connection, None] = {}
        self._cut_off: Counter[str] = Counter()  # hosts whose packets go nowhere
        self._slow_ms: dict[int, float] = {}
        # The model's coordinators know classic groups only.
        self._versions = {api.key: api.versions for name, api in APIS.items() if not name.startswith("StreamsGroup")}

    def opener(self, process: Process) -> Callable[[int, Address, int], Any]:
        """What a process opens its connections with (`streamlib.kafka.pool.OpenLink`)."""

        async def open_link(node: int, address: Address, number: int) -> Link:
            return await self._open(process, address, number)

        return open_link

    def latency_ms(self, broker: int) -> float:
        """How long it takes this time, one way."""
        return self._rng.uniform(*LATENCY_MS) + self._slow_ms.get(broker, 0.0)

    def later(self, delay_ms: float, action: Callable[[], None]) -> None:
        self.timers.call_later(max(delay_ms, 0.0), action)

    def cut_off(self, connection: Connection) -> bool:
        """Whether nothing gets through to or from this connection's host."""
        return self._cut_off[connection.process.name] > 0

    def forget(self, connection: Connection) -> None:
        self._connections.pop(connection, None)

    async def strike(self, process: Process) -> None:
        """Kill or freeze the process that runs this."""
        self.judge.strike(process)
        await asyncio.sleep(0)  # it is not heard of again, or not for a while

    # Faults

    def cut(self, host: str) -> None:
        """From now on nothing gets through to or from the host, and nobody is told."""
        self._cut_off[host] += 1

    def heal(self, host: str) -> None:
        self._cut_off[host] = max(self._cut_off[host] - 1, 0)

    def heal_all(self) -> None:
        self._cut_off.clear()

    def slow_down(self, broker: int, by_ms: float) -> None:
        """Every message to and from the broker takes so much longer; 0 is as usual."""
        self._slow_ms[broker] = by_ms

    def markers_as_usual(self) -> None:
        """Work between brokers is as quick as ever."""
        self.timers.slow_ms = 0.0

    def break_all(self, broker: int) -> None:
        """The broker goes down: its connections break."""
        for connection in [c for c in self._connections if c.broker == broker]:
            connection.break_off("connection reset")

    async def _open(self, process: Process, address: Address, number: int) -> Link:
        broker = address.port - FIRST_PORT
        assert address.host == HOST, f"{address} is no simulated broker"
        await asyncio.sleep(2 * self.latency_ms(broker) / 1000)
        if self._cut_off[process.name]:
            await self.loop.create_future()
        if not self.cluster.is_up(broker):
            raise ConnectionFailedError("Connect", str(address), "connection refused")
        connection = Connection(self, process, broker)
        self._connections[connection] = None
        return Link(number, connection, self._versions, self.cluster.features, 1)


class _Fair:
    """Nothing goes wrong."""

    def verdict(self, host: str, api: str) -> Verdict:
        return DELIVER

    def strike(self, process: Process) -> None:
        raise AssertionError("nobody is struck")


def bootstrap_servers(brokers: Iterable[int]) -> str:
    """What workers are configured with."""
    return ",".join(f"{HOST}:{FIRST_PORT + number}" for number in brokers)
