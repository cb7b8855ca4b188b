"""CPU time per record of the engine alone: a keyed count of 100-byte JSON orders, without fetching and producing.

    python -m benchmarks.engine [--records 200000] [--profile]
    python -m benchmarks.engine --metrics                    what it costs to measure, by recording level
    python -m benchmarks.engine --tracing                    what it costs to trace, by how much is sampled

What is measured: `Task.process` in slices of 1,000 records, `take_outputs` after each, and every 10,000 records a
commit: changelog records, offsets, the write to the backend.
"""

from __future__ import annotations

import argparse
import cProfile
import math
import pstats
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from streamlib.engine.at_work import at_work
from streamlib.engine.counts import Counts
from streamlib.engine.plan import make_plan
from streamlib.engine.task import Task
from streamlib.engine.tracing import Tracing
from streamlib.metrics import RecordingLevel
from streamlib.records import Headers, TaskId, TopicPartition
from streamlib.rocksdb import RocksDBBackend
from streamlib.runtime.meter import Meter
from streamlib.runtime.metered_backend import MeteredBackend
from streamlib.runtime.sampling import Sampling
from streamlib.runtime.slice_end import SliceEnd
from streamlib.serdes import serde_for
from streamlib.state.backend import Backend
from streamlib.state.memory import InMemoryBackend
from streamlib.topology import operators as op
from streamlib.topology.nodes import Node, ProcessorNode, SinkNode, SourceNode, StoreSpec
from streamlib.topology.topology import Topology

SLICE_RECORDS = 1_000
COMMIT_RECORDS = 10_000
USERS = 10_000
ROUNDS = 9
INPUT = TopicPartition("orders", 0)
CHANGELOG = TopicPartition("bench-counts-changelog", 0)


class Order(msgspec.Struct):
    user: str
    item: str
    amount: float
    note: str


class Fetched(NamedTuple):
    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: Headers


class Batch(NamedTuple):
    partition: TopicPartition
    next_offset: int
    size_bytes: int
    content: Sequence[Fetched]

    def records(self) -> Sequence[Fetched]:
        return self.content


def topology() -> Topology:
    text, number, order = serde_for(str), serde_for(int), serde_for(Order)
    counts = StoreSpec(name="counts", kind="timestamped_key_value", key=text, value=number)
    nodes: list[Node] = [
        SourceNode(name="orders", topics=("orders",), key=text, value=order),
        ProcessorNode(name="paid", operator=op.Filter(lambda user, order: order.amount > 0), parents=("orders",)),
        ProcessorNode(name="count", operator=op.StreamCount("counts"), parents=("paid",), stores=("counts",)),
        ProcessorNode(name="stream", operator=op.TableToStream(), parents=("count",)),
        SinkNode(name="out", topic="counted", key=text, value=number, parents=("stream",)),
    ]
    return Topology(nodes, [counts])


def batches(records: int) -> list[Batch]:
    """Orders of 100 bytes, keys in a scattered order, 500 a batch."""
    encode = msgspec.json.encode
    fetched = []
    for offset in range(records):
        user = f"user-{offset * 7919 % USERS:05d}"
        order = Order(user, f"item-{offset % 97:04d}", 9.99, "n" * 38)
        fetched.append(Fetched(offset, 1_700_000_000_000 + offset, user.encode(), encode(order), ()))
    return [
        Batch(INPUT, min(start + 500, records), 55_000, fetched[start : start + 500])
        for start in range(0, records, 500)
    ]


Level: TypeAlias = RecordingLevel | Literal["console"]


def run(backend: Backend, work: Sequence[Batch], level: Level | None = None, tracing: Tracing | None = None) -> float:
    """Microseconds of CPU per record, of all threads; with a level, what a worker measures is measured. The console's
    is INFO with samples of keys and nodes."""
    plan = make_plan(topology(), "bench", {"orders": 1, "counted": 6})
    meter = None if level is None else Meter()
    counts = Counts() if level == "DEBUG" else None
    if meter is not None and level == "DEBUG":
        backend = MeteredBackend(backend, TaskId(0, 0), meter)
    spans = None if tracing is None else tracing.of_task("bench", TaskId(0, 0))
    task = Task(plan, TaskId(0, 0), backend, now_ms=lambda: 0, counts=counts, tracing=spans)
    task.start({}, {INPUT: 0})
    if meter is not None and level == "console":
        meter.sampling = Sampling()
        nodes, this_thread = frozenset(plan.topology.nodes), threading.get_ident()
        meter.sampling.start(lambda: at_work(sys._current_frames().get(this_thread), nodes).node)
    total = changelog_end = 0
    started = time.process_time()
    for batch in work:
        task.enqueue(batch)
        total += _slice(task, meter)
        task.take_outputs()
        if total % COMMIT_RECORDS == 0:
            changes = task.seal().changelog
            changelog_end += sum(map(len, changes.values()))
            task.commit({CHANGELOG: changelog_end})
    spent = time.process_time() - started
    if meter is not None and meter.sampling is not None:
        meter.sampling.stop()
    task.rollback()
    task.close()
    return spent / total * 1e6


def _slice(task: Task, meter: Meter | None) -> int:
    """As the worker's loop does it."""
    if meter is None:
        return task.process(SLICE_RECORDS, SliceEnd(_now_ms, math.inf))
    meter.polled(meter.elapsed_ms())
    meter.punctuated(0, 0.0)
    began_ms = _now_ms()
    done = task.process(SLICE_RECORDS, SliceEnd(_now_ms, math.inf))
    meter.processed(task, done, _now_ms() - began_ms, 0)
    return done


def measured(work: Sequence[Batch]) -> None:
    """By turns, so that all of them have the same machine; medians."""
    levels: list[Level | None] = [None, "INFO", "console", "DEBUG"]
    costs: dict[Level | None, list[float]] = {level: [] for level in levels}
    for round_ in range(ROUNDS):
        for level in levels[round_ % 4 :] + levels[: round_ % 4]:
            costs[level].append(run(InMemoryBackend(), work, level))
    nothing = statistics.median(costs[None])
    for level in levels:
        cost = statistics.median(costs[level])
        print(f"{level or 'nothing':8} {cost:.2f} us/record  {cost / nothing - 1:+.1%}")


def traced(work: Sequence[Batch]) -> None:
    """By turns, as above. Spans are made and thrown away: exporting them is another process's matter."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    from streamlib.monitoring.tracing import OpenTelemetryTracing

    def sampling(share: float, *, roots: float = 1.0) -> Tracing:
        provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(share)), shutdown_on_exit=False)
        return OpenTelemetryTracing(provider, roots=roots)

    ways = {
        "off": None,
        "roots=0, no record has a trace": sampling(1, roots=0),
        "roots=0.01, all of them sampled": sampling(1, roots=0.01),
        "the sampler takes none": sampling(0),
        "the sampler takes 1%": sampling(0.01),
        "all sampled": sampling(1),
    }
    costs: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, tracing in ways.items():
            costs[way].append(run(InMemoryBackend(), work, tracing=tracing))
    nothing = statistics.median(costs["off"])
    for way in ways:
        cost = statistics.median(costs[way])
        print(f"{way:40} {cost:.2f} us/record  {cost / nothing - 1:+.1%}")


def _now_ms() -> float:
    return time.monotonic() * 1000


def profiled(backend: Backend, work: Sequence[Batch]) -> float:
    """The same, with the functions that take the longest; the profiler triples the figure."""
    profile = cProfile.Profile()
    result = profile.runcall(run, backend, work)
    pstats.Stats(profile).sort_stats("tottime").print_stats(15)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--metrics", action="store_true")
    parser.add_argument("--tracing", action="store_true")
    arguments = parser.parse_args()
    work = batches(arguments.records)
    print(f"{len(work[0].content[0].value)}-byte orders, {arguments.records:,} records, {USERS:,} keys")
    run(InMemoryBackend(), work[:20])  # warm up
    if arguments.metrics:
        measured(work)
        return
    if arguments.tracing:
        traced(work)
        return
    measure = profiled if arguments.profile else run
    print(f"memory   {measure(InMemoryBackend(), work):.2f} us/record")
    with tempfile.TemporaryDirectory() as folder:
        backend = RocksDBBackend(Path(folder), list(topology().stores.values()))
        print(f"rocksdb  {measure(backend, work):.2f} us/record")


if __name__ == "__main__":
    main()
