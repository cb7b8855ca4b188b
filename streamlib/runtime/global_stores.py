"""Fills the global stores before the first record is processed, and keeps them up to date from then on."""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
import anyio.lowlevel

from streamlib.engine.global_state import GlobalState
from streamlib.errors import ErrorCode, KafkaError
from streamlib.records import TopicPartition
from streamlib.runtime.complaints import Complaints
from streamlib.runtime.failures import Action, decide
from streamlib.runtime.ports import Admin, Clock, Fetcher
from streamlib.state.backend import Backend

log = logging.getLogger(__name__)

TAKE_BYTES = 1 << 20
LOOK_UP_MS = 200  # how often a wait for records looks whether it is still wanted
LOG_INTERVAL_MS = 5_000
RETRY_MS = 500


class GlobalStores:
    """Reads whole topics into a worker's global stores.

    Nothing is committed: a store knows its own position, and goes on from there after a restart.
    """

    def __init__(self, state: GlobalState, fetcher: Fetcher, admin: Admin, clock: Clock) -> None:
        self._state = state
        self._fetcher = fetcher
        self._admin = admin
        self._clock = clock
        self._positions: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}  # where the topics ended when it began to fill the stores
        self.filled = False  # whether the stores have been at these ends
        self._complaints = Complaints(log)

    async def bootstrap(self, wanted: Callable[[], bool]) -> None:
        """Read up to where the topics end now; given up when it is no longer `wanted`.

        Raises:
            SerializationError, ProcessingError: a record could not be read or processed.
        """
        self._ends = ends = await self._admin.list_offsets(self._state.partitions, "latest_stable")
        await self._begin(ends)
        logged_ms = self._clock.monotonic_ms()
        while wanted() and (missing := self._missing(ends)):
            with anyio.move_on_after(LOOK_UP_MS / 1000):
                await self._fetcher.wait()
            self._apply()
            await anyio.lowlevel.checkpoint()
            if self._clock.monotonic_ms() - logged_ms > LOG_INTERVAL_MS:
                logged_ms = self._clock.monotonic_ms()
                log.info("global stores: about %d records to go", missing)
        self._note_filled()

    async def run(self) -> None:
        """Apply what arrives, for ever."""
        while True:
            try:
                await self._fetcher.wait()
            except KafkaError as error:
                await self._go_on_after(error)
            self._apply()
            self._note_filled()
            await anyio.lowlevel.checkpoint()

    @property
    def backend(self) -> Backend:
        """The bytes of the stores."""
        return self._state.backend

    def close(self) -> None:
        """Close the stores."""
        self._state.close()

    async def _go_on_after(self, error: KafkaError) -> None:
        """Nothing is open here that would have to be redone: what was applied stays, or all of it is read again."""
        if decide(error) is Action.FATAL:
            raise error
        if error.code == ErrorCode.OFFSET_OUT_OF_RANGE:
            log.warning("global stores are built anew: %s", error)
            self.filled = False
            self._ends = await self._admin.list_offsets(self._state.partitions, "latest_stable")
            await self._begin({})
            return
        self._complaints.warn(error.code, self._clock.monotonic_ms(), "global stores wait: %s", error)
        await anyio.sleep(RETRY_MS / 1000)
        self._fetcher.add(self._positions)

    async def _begin(self, ends: dict[TopicPartition, int]) -> None:
        """Start to read where the stores end; from the start if the topic has lost or never had what comes next."""
        starts = await self._admin.list_offsets(self._state.partitions, "earliest")
        stored = self._state.positions()
        if any(at and not starts[p] <= at <= ends.get(p, -1) for p, at in stored.items()):
            self._state.clear()
            stored = self._state.positions()
        self._state.start()
        self._positions = {p: max(at, starts[p]) for p, at in stored.items()}
        self._fetcher.add(self._positions)

    def _apply(self) -> None:
        for batch in self._fetcher.take(TAKE_BYTES):
            self._state.apply(batch)
            self._positions[batch.partition] = batch.next_offset

    def _note_filled(self) -> None:
        self.filled = self.filled or not self._missing(self._ends)

    def _missing(self, ends: dict[TopicPartition, int]) -> int:
        return sum(max(end - self._positions[p], 0) for p, end in ends.items())
