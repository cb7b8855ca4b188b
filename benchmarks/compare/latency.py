"""One run at a steady rate: how long a record takes from a producer's call to a read_committed consumer."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio
import msgspec

from benchmarks.common import Bench, percentile
from benchmarks.compare.measure import PeerFailedError, Process, Setting, own_folder, running
from benchmarks.compare.peers import Task
from benchmarks.steady_client import SteadyClient
from streamlib.errors import StreamsError

PARTS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
_KEYS = 100
_START_SECONDS = 60
_LOOK_SECONDS = 0.1


async def measure_latency(
    bench: Bench, setting: Setting, command: Callable[[Task], list[str]], *, rate: int, seconds: float, warm_up_s: float
) -> dict[str, float]:
    """Percentiles in ms of what was sent in `seconds`, after `warm_up_s` that begin with the first answer.

    Every record has to be answered, or there is no result.

    Raises:
        StreamsError: no answer came within a minute, answers are missing, or the process ended.
    """
    source, sink = await bench.topic("events"), await bench.topic("counts")
    client = SteadyClient(bench, source, sink, rate=rate, keys=_KEYS)
    failure: StreamsError | None = None
    begun_s = 0.0
    with own_folder() as folder:
        task = msgspec.structs.replace(setting, source=source).task(bench.bootstrap_servers, sink, folder)
        async with running(bench.connection, task, command(task)) as process:
            try:
                async with client.writing(process.check):
                    await _first_answer(client, process)
                    await anyio.sleep(warm_up_s)
                    begun_s = time.perf_counter()
                    await anyio.sleep(seconds)
            except* StreamsError as errors:
                failure = next(error for error in errors.exceptions if isinstance(error, StreamsError))
    if failure is not None:
        raise failure
    await bench.connection.admin().delete_topics([source, sink])
    delays = sorted(answer.ms for answer in client.answers if answer.sent_s >= begun_s)
    return {name: percentile(delays, part) for name, part in PARTS.items()}


async def _first_answer(client: SteadyClient, process: Process) -> None:
    with anyio.move_on_after(_START_SECONDS):
        while not client.answers:
            process.check()
            await anyio.sleep(_LOOK_SECONDS)
        return
    raise PeerFailedError(f"no answer within {_START_SECONDS} s:\n{process.tail()}")
