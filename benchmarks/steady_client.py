"""A client that writes at a steady rate and reads the answers.

The n-th record of a key leads to the count n of that key, so each output record tells which input it answers. Keys go
to the partitions of the default partitioner, so that a task answers in the partition it reads: in any other, readers
would wait for open transactions of other workers, too.
"""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import msgspec

from benchmarks.common import Bench
from benchmarks.keyed_count import event
from streamlib.cli.client import text_record
from streamlib.errors import StreamsError
from streamlib.kafka.reading import partitions_of
from streamlib.partitioning import partition_for

PATIENCE_SECONDS = 60.0


class Answer(msgspec.Struct, frozen=True):
    """One record: its partition, when it was sent (`time.perf_counter`), and when its answer was read."""

    partition: int
    sent_s: float
    answered_s: float

    @property
    def ms(self) -> float:
        return (self.answered_s - self.sent_s) * 1000


class SteadyClient:
    """Writes to one topic, reads the other. `answers` are in the order they came."""

    def __init__(self, bench: Bench, source: str, sink: str, *, rate: int, keys: int) -> None:
        self._bench = bench
        self._producer = bench.connection.producer(None)
        self._fetcher = bench.connection.fetcher()
        self._sources = partitions_of(source, bench.partitions)
        self._fetcher.add(dict.fromkeys(partitions_of(sink, bench.partitions), 0))
        self._rate = rate
        self._keys = max(keys - keys % bench.partitions, bench.partitions)
        self._sent: dict[tuple[bytes, int], tuple[int, float]] = {}  # (key, count); taken out with the answer
        self._stopping = False
        self.answers: list[Answer] = []
        self.repeated = 0  # answers that had been there before

    @asynccontextmanager
    async def writing(self, check: Callable[[], object]) -> AsyncIterator[None]:
        """Write while the block runs, then wait for the last answers; `check` may raise meanwhile.

        Raises:
            StreamsError: answers were still missing long after the last record.
        """
        await self._producer.init()
        gc.collect()
        gc.disable()  # a pause of this client's would look like one of a worker's
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._read)
                written = anyio.Event()
                group.start_soon(self._write, written)
                yield
                self._stopping = True
                await written.wait()
                await self._wait_for_answers(check)
                group.cancel_scope.cancel()
        finally:
            gc.enable()
        await self._producer.close()
        await self._fetcher.close()

    async def _write(self, written: anyio.Event) -> None:
        """One record at a time, each at its own moment."""
        begun = time.perf_counter()
        number = 0
        while not self._stopping:
            wait = begun + number / self._rate - time.perf_counter()
            await anyio.sleep(max(wait, 0))
            key = number % self._keys
            user = f"user-{key}"
            partition = self._sources[partition_for(user.encode(), len(self._sources))]
            self._sent[user.encode(), number // self._keys + 1] = (partition.partition, time.perf_counter())
            self._producer.send(partition, [text_record(user, event(number, user))])
            number += 1
        await self._producer.flush()
        written.set()

    async def _read(self) -> None:
        while True:
            await self._fetcher.wait()
            for batch in self._fetcher.take(1 << 20):
                now = time.perf_counter()
                for record in batch.records():
                    self._take(record.key or b"", int.from_bytes(record.value or b"", "big"), now)

    def _take(self, key: bytes, count: int, now: float) -> None:
        sent = self._sent.pop((key, count), None)
        if sent is None:
            self.repeated += 1  # which at least once may
        else:
            self.answers.append(Answer(*sent, now))

    async def _wait_for_answers(self, check: Callable[[], object]) -> None:
        give_up = time.monotonic() + PATIENCE_SECONDS
        while self._sent:
            check()
            if time.monotonic() > give_up:
                raise StreamsError(f"{len(self._sent)} answers are missing, {len(self.answers)} came")
            await anyio.sleep(0.02)
