"""Where the time of one worker goes: share and microseconds per record of each stage, and the lines that cost most.

The worker runs in this process, on a topic that is there already. Whenever the process has used some CPU time, a signal
has the main thread note where it is (`ITIMER_PROF`), at about 1 % of the time; a call into C counts for the line that
makes it. What the worker does not use is idle: it waits for the broker, or for a core.

With --floor the bare client is measured beside it: the same records fetched and read, decoded, and the same bytes
written again, with nothing between. That is what no restructuring of the engine can go below.
"""

from __future__ import annotations

import linecache
import os
import re
import resource
import shutil
import signal
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Annotated, NamedTuple

import anyio
import msgspec
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import run_async, session, write_json
from benchmarks.compare.data import Data, fill, fill_table
from benchmarks.compare.jobs import JOBS
from benchmarks.compare.programs.streamlib_jobs import topology
from benchmarks.keyed_count import Event
from streamlib import KafkaStreams, StreamsConfig
from streamlib.cli.client import connected
from streamlib.errors import StreamsError
from streamlib.kafka.connection import Connection
from streamlib.kafka.reading import partitions_of, read_batches
from streamlib.records import OutRecord

# stage, beginning of the path below streamlib/, what the function or the text of the line has to contain. The first
# rule that fits the innermost frame decides; if none does, the frame that called it is asked.
_RULES: tuple[tuple[str, str, str], ...] = (
    ("RocksDB read", "rocksdb.py", r"get|scan|iter|__missing__"),
    ("RocksDB write", "rocksdb.py", ""),
    ("fetch, read batches", "kafka/fetcher.py", ""),
    ("produce", "kafka/batches.py", r"BatchBuilder"),
    ("fetch, read batches", "kafka/batches.py", ""),
    ("commit", "kafka/producer.py", r"flush|offsets|end\b|_end|_abort|init|_add_partitions"),
    ("produce", "kafka/producer.py", ""),
    ("commit", "kafka/group.py", r"commit"),
    ("changelog", "engine/", r"changelog_records|\bseal"),
    ("changelog", "state/", r"changelog_records|\bseal"),
    ("changelog", "runtime/", r"changelog_records|\bseal"),
    ("state", "state/", ""),
    ("fetch, read batches", "engine/inputs.py", r"islice|_load|\.records\("),
    ("deserialise", "engine/inputs.py", r"decode"),
    ("serialise", "engine/operators/sink.py", r"encode"),
    ("state", "engine/operators/", r"decode|encode|pack_timestamp|\bget\(|\bput\("),
    ("process", "engine/", ""),
    ("commit", "runtime/transaction.py", ""),
    ("commit", "runtime/worker.py", r"_commit\b"),
    ("worker loop", "runtime/", ""),
)
_USER, _LOOP, _OURS = "user functions", "network, event loop", "the profiler"
_PACKAGE = f"{os.sep}streamlib{os.sep}"
_LOOK_SECONDS = 0.02
_STALLED_SECONDS = 60
_CHUNK = 1_000


class Options(msgspec.Struct, frozen=True):
    """What is profiled."""

    job: str
    records: int
    keys: int
    partitions: int
    guarantee: str
    interval_ms: float
    settings: list[str]


class Place(NamedTuple):
    """A line of code with its file, and the stage it is counted for."""

    stage: str
    line: str


Known = dict[tuple[int, int], Place | None]
"""(identity of a code object, line) -> where that is; a code object lives as long as its function."""

_IN_LOOP = Place(_LOOP, "the event loop itself")


class Profile(msgspec.Struct, frozen=True):
    """What a worker did while it processed `records`: CPU time in us per record, by stage and by line."""

    records: int
    samples: int
    wall_us: float
    cpu_us: float
    stages: dict[str, float]
    lines: dict[str, float]


def main(
    job: Annotated[str, typer.Option(help="One of: " + ", ".join(JOBS))] = "keyed-count",
    records: Annotated[int, typer.Option(min=1000)] = 500_000,
    keys: Annotated[int, typer.Option(min=1, help="Different keys.")] = 10_000,
    partitions: Annotated[int, typer.Option(min=1)] = 4,
    guarantee: Annotated[str, typer.Option(help="exactly_once_v2 or at_least_once.")] = "exactly_once_v2",
    interval_ms: Annotated[float, typer.Option(min=0.1, help="CPU time between samples.")] = 1.0,
    lines: Annotated[int, typer.Option(min=0, help="How many of the dearest lines to show.")] = 20,
    floor: Annotated[bool, typer.Option("--floor", help="Measure the bare client, too.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting.")] = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Use this Kafka instead of starting one.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the figures here too.")] = None,
) -> None:
    """Profile one worker on one of the jobs of benchmarks.compare."""
    if job not in JOBS:
        raise typer.BadParameter(f"there is no job {job}; there are {', '.join(JOBS)}")
    options = Options(job, records, keys, partitions, guarantee, interval_ms, set_ or [])
    console = Console()
    with session(bootstrap_servers) as address:
        profile, floors = run_async(_run, options, address, console, floor)
    _print(console, profile, floors, lines)
    write_json(json, {"options": options, "profile": profile, "floor_us": floors})


async def _run(
    options: Options, bootstrap_servers: str, console: Console, floor: bool
) -> tuple[Profile, dict[str, float]]:
    data = Data.of(options.records, options.keys, options.partitions)
    names = [f"benchmark-{kind}-{uuid.uuid4().hex[:8]}" for kind in ("events", "profiles", "output")]
    async with connected(bootstrap_servers, "benchmark") as connection:
        for name in names:
            await connection.admin().create_topic(name, data.partitions)
        source, table, sink = names
        console.print(f"writing {data.records:,} records ...", highlight=False)
        await fill_table(connection, table, data)
        await fill(connection, source, data)
        os.environ |= {
            "BENCHMARK_JOB": options.job,
            "BENCHMARK_INPUT": source,
            "BENCHMARK_TABLE": table,
            "BENCHMARK_OUTPUT": sink,
        }
        profile = await _profiled_worker(options, bootstrap_servers, data)
        floors = await _floors(connection, source, sink, data) if floor else {}
        await connection.admin().delete_topics([name for name in await connection.admin().topics() if name in names])
    return profile, floors


async def _profiled_worker(options: Options, bootstrap_servers: str, data: Data) -> Profile:
    """The samples of a whole run but its start: they begin when a tenth of the records is through."""
    folder = Path(tempfile.mkdtemp(prefix="streamlib-benchmark-"))
    given = dict(setting.split("=", 1) for setting in options.settings) | {
        "application_id": f"benchmark-{uuid.uuid4().hex[:8]}",
        "bootstrap_servers": bootstrap_servers,
        "processing_guarantee": options.guarantee,
        "state_dir": str(folder),
    }
    try:
        async with KafkaStreams(topology(), StreamsConfig.load(given)) as app:
            await _processed(app, data.records // 10)
            before, cpu_s, wall_s = app.status.records_in, _cpu_s(), time.perf_counter()
            with sampled(options.interval_ms) as samples:
                await _processed(app, data.records)
            done = app.status.records_in - before
            return profile_of(samples, done, time.perf_counter() - wall_s, _cpu_s() - cpu_s)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _processed(app: KafkaStreams, records: int) -> None:
    """Wait until so many records have been processed."""
    with anyio.CancelScope() as stalled:
        last = -1
        while last < records:
            await anyio.sleep(_LOOK_SECONDS)
            done = app.status.records_in if app.state.name == "RUNNING" else 0
            if done != last:
                last, stalled.deadline = done, anyio.current_time() + _STALLED_SECONDS
    if stalled.cancelled_caught:
        raise StreamsError(f"the worker made no progress for {_STALLED_SECONDS} s")


@contextmanager
def sampled(interval_ms: float) -> Iterator[Counter[Place]]:
    """Where the main thread is, each time the process has used `interval_ms` more of CPU time (the kernel's tick is the
    least)."""
    samples: Counter[Place] = Counter()
    known: Known = {}

    def note(signum: int, frame: FrameType | None) -> None:
        samples[_place_of(frame, known)] += 1

    before = signal.signal(signal.SIGPROF, note)
    signal.setitimer(signal.ITIMER_PROF, interval_ms / 1000, interval_ms / 1000)
    try:
        yield samples
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _place_of(frame: FrameType | None, known: Known) -> Place:
    """The innermost frame that belongs to a stage; the event loop, if none does."""
    while frame is not None:
        code, number = frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno
        where = (id(code), number)
        if where not in known:
            known[where] = _place(code, number)
        place = known[where]
        if place is not None:
            return place
        frame = frame.f_back
    return _IN_LOOP


def _place(code: CodeType, number: int) -> Place | None:
    text = linecache.getline(code.co_filename, number).strip()
    stage = stage_of(code.co_filename, f"{code.co_qualname} {text}")
    path = code.co_filename.rpartition(_PACKAGE)[2]
    return None if stage is None else Place(stage, f"{path}:{number}  {text}")


def stage_of(path: str, text: str) -> str | None:
    """The stage of a line in a function: both are in `text`. None if its caller has to be asked.

    >>> stage_of("/x/streamlib/engine/inputs.py", "Input._run_batch  value = decode_value(value)")
    'deserialise'
    >>> stage_of("/x/streamlib/serdes.py", "encode") is None
    True
    """
    if path == __file__ and not text.startswith(("main ", "<module> ")):  # those are below everything
        return _OURS
    if path == topology.__code__.co_filename:
        return _USER
    _, package, below = path.rpartition(_PACKAGE)
    if not package:
        return None
    fitting = (stage for stage, begin, what in _RULES if below.startswith(begin) and re.search(what, text))
    return next(fitting, None)


def profile_of(samples: Counter[Place], records: int, wall_s: float, cpu_s: float) -> Profile:
    """Microseconds of CPU per record: each sample stands for the same part of what was used."""
    total = max(samples.total(), 1)
    us = cpu_s / records * 1e6 / total
    stages: Counter[str] = Counter()
    for place, count in samples.items():
        stages[place.stage] += count
    return Profile(
        records=records,
        samples=total,
        wall_us=wall_s / records * 1e6,
        cpu_us=cpu_s / records * 1e6,
        stages={stage: count * us for stage, count in stages.most_common()},
        lines={place.line: count * us for place, count in samples.most_common()},
    )


async def _floors(connection: Connection, source: str, sink: str, data: Data) -> dict[str, float]:
    """CPU in us per record of the bare parts, one after the other."""
    starts = dict.fromkeys(partitions_of(source, data.partitions), 0)
    ends = await connection.admin().list_offsets(starts, "latest_stable")
    values: list[tuple[bytes, bytes]] = []
    decode = msgspec.json.Decoder(Event).decode

    async def fetch() -> None:
        async for batch in read_batches(connection, starts, ends):
            values.extend((record.key or b"", record.value or b"") for record in batch.records())

    async def decode_all() -> None:
        for _, value in values:
            decode(value)

    async def produce() -> None:
        producer = connection.producer(None)
        await producer.init()
        partitions = partitions_of(sink, data.partitions)
        now_ms = time.time_ns() // 1_000_000
        for begin in range(0, len(values), _CHUNK):
            chunk: list[OutRecord] = [(key, b"12345678", now_ms, ()) for key, _ in values[begin : begin + _CHUNK]]
            producer.send(partitions[begin // _CHUNK % len(partitions)], chunk)
            await producer.wait_for_room()
        await producer.flush()
        await producer.close()

    floors = {}
    for name, part in {"fetch, read batches": fetch, "decode JSON": decode_all, "produce": produce}.items():
        before = _cpu_s()
        await part()
        floors[name] = (_cpu_s() - before) / data.records * 1e6
    return floors


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _print(console: Console, profile: Profile, floors: dict[str, float], lines: int) -> None:
    table = Table(title=f"{profile.records:,} records, {profile.samples:,} samples", title_justify="left")
    table.add_column("stage", no_wrap=True)
    for name in ("us per record", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    for stage, us in profile.stages.items():
        table.add_row(stage, f"{us:.2f}", f"{us / profile.cpu_us:.0%}")
    table.add_section()
    table.add_row("CPU", f"{profile.cpu_us:.2f}", "100%")
    table.add_row("idle", f"{max(profile.wall_us - profile.cpu_us, 0):.2f}", "")
    for name, us in floors.items():
        table.add_row(f"bare client: {name}", f"{us:.2f}", "")
    console.print(table)
    for place, us in list(profile.lines.items())[:lines]:
        console.print(f"{us:6.2f} us  {place}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
