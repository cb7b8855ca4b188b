"""A thread that beats for a worker whose own event loop is held by a function.

It has an event loop and a connection of its own; the connection is made when it is first needed, and kept. What is to
be said, and when, is decided by the watch (`runtime/slow_functions.py`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future

from streamlib.config import StreamsConfig
from streamlib.errors import ErrorCode, KafkaError
from streamlib.kafka.connection import Connection
from streamlib.kafka.group import KafkaGroup
from streamlib.runtime.ports import Beat, Leave, LoopWatch

log = logging.getLogger("streamlib.kafka")

# A pause between two looks longer than so many of them was the whole process's.
_AWAKE_LOOKS = 2


class ThreadStandIn:
    """Implements `streamlib.runtime.ports.StandIn`. For one worker; it can be started again after `close`."""

    def __init__(self, config: StreamsConfig) -> None:
        self._config = config
        self._connection: Connection | None = None
        self._group: KafkaGroup | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._looking: asyncio.Task[None] | None = None
        self._ended: Future[None] | None = None

    def start(self, watch: LoopWatch) -> None:
        """Begin to look."""
        assert self._ended is None, "a stand-in is started once"
        self._loop = asyncio.new_event_loop()
        self._looking = self._loop.create_task(self._look(watch))
        name = f"stand-in of {self._config.application_id}"
        self._ended = Future()
        arguments = (self._loop, self._looking, self._ended)
        threading.Thread(target=_run, args=arguments, name=name, daemon=True).start()

    async def close(self) -> None:
        """End the thread, in the middle of whatever it says."""
        if self._ended is None:
            return
        assert self._loop is not None
        assert self._looking is not None
        if not self._ended.done():
            self._loop.call_soon_threadsafe(self._looking.cancel)
            await asyncio.wrap_future(self._ended)
        self._connection = self._group = self._ended = None

    # What follows runs in the thread.

    async def _look(self, watch: LoopWatch) -> None:
        clock = asyncio.get_running_loop().time
        pause_s, before_s = watch.look_every_ms / 1000, clock()
        saying: asyncio.Task[None] | None = None
        try:
            while True:
                await asyncio.sleep(pause_s)
                passed_s, before_s = clock() - before_s, clock()
                saying = self._next(watch, min(passed_s, _AWAKE_LOOKS * pause_s) * 1000, saying)
        finally:
            if saying is not None:
                saying.cancel()
                await asyncio.wait([saying])
            if self._connection is not None:
                await self._connection.close()

    def _next(self, watch: LoopWatch, awake_ms: float, saying: asyncio.Task[None] | None) -> asyncio.Task[None] | None:
        """Looking goes on while something is said: a coordinator that does not answer must not put off the leaving."""
        step = watch.look(awake_ms)
        if saying is not None and not saying.done():
            if not isinstance(step, Leave):
                return saying
            saying.cancel()
        return saying if step is None else asyncio.create_task(self._say(step, watch))

    async def _say(self, step: Beat | Leave, watch: LoopWatch) -> None:
        """What the group answers is for the worker to hear, which asks for itself as soon as it can."""
        try:
            group = await self._connected()
            match step:
                case Beat(member_id=member_id, generations=generations):
                    await _beat(group, member_id, generations)
                    watch.answered()
                case Leave(member_id=member_id):
                    await group.leave(member_id)
        except KafkaError as error:
            level = logging.WARNING if isinstance(step, Leave) else logging.DEBUG
            log.log(level, "the stand-in of a worker that a function holds: %s", error)

    async def _connected(self) -> KafkaGroup:
        if self._group is None:
            self._connection = await Connection.open(self._config)
            self._group = self._connection.group()
        return self._group


async def _beat(group: KafkaGroup, member_id: str, generations: tuple[int, ...]) -> None:
    *earlier, last = generations
    for generation in earlier:
        try:
            await group.heartbeat(generation, member_id)
            return
        except KafkaError as error:
            if error.code != ErrorCode.ILLEGAL_GENERATION:
                raise
    await group.heartbeat(last, member_id)


def _run(loop: asyncio.AbstractEventLoop, looking: asyncio.Task[None], ended: Future[None]) -> None:
    asyncio.set_event_loop(loop)
    loop.run_until_complete(asyncio.wait([looking]))
    if not looking.cancelled() and (error := looking.exception()) is not None:
        log.error("the stand-in has failed: nobody beats for a worker that a function holds", exc_info=error)
    loop.close()
    ended.set_result(None)
