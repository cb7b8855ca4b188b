"""The jobs on streamlib: `streamlib run benchmarks.compare.programs.streamlib_jobs:topology`."""

from __future__ import annotations

import os
from datetime import timedelta

import msgspec

from benchmarks.compare.data import WINDOW_MS
from benchmarks.compare.jobs import Enriched, WindowCount
from benchmarks.keyed_count import Event
from streamlib import StreamsBuilder, TimeWindows
from streamlib.dsl.kstream import KStream
from streamlib.topology.topology import Topology
from streamlib.windows import Windowed


class Profile(msgspec.Struct):
    """A row of the table."""

    city: str


def topology() -> Topology:
    """The job that the environment names."""
    builder = StreamsBuilder()
    events = builder.stream(os.environ["BENCHMARK_INPUT"], key=str, value=Event)
    output = os.environ["BENCHMARK_OUTPUT"]
    match os.environ["BENCHMARK_JOB"]:
        case "passthrough":
            events.to(output)
        case "keyed-count":
            events.group_by_key().count(store="counts").to_stream().to(output)
        case "window-count":
            _windows(events).to(output)
        case "table-join":
            profiles = builder.table(os.environ["BENCHMARK_TABLE"], key=str, value=Profile, store="profiles")
            events.join(profiles, _enriched).to(output)
        case other:
            raise ValueError(f"no such job: {other}")
    return builder.build()


def _windows(events: KStream[str, Event]) -> KStream[str, WindowCount]:
    windows = TimeWindows.of_size(timedelta(milliseconds=WINDOW_MS), grace=timedelta(0))
    counts = events.group_by_key().windowed_by(windows).count(store="counts")
    return counts.to_stream().map(_window_count)


def _window_count(window: Windowed[str], count: int) -> tuple[str, WindowCount]:
    return window.key, WindowCount(window.start, count)


def _enriched(event: Event, profile: Profile) -> Enriched:
    return Enriched(event.number, event.amount, profile.city)
