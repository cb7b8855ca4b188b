"""Topologies whose outputs betray every loss and every repeat by their structure."""

from __future__ import annotations

import time

from streamlib import StreamsBuilder
from streamlib.topology.topology import Topology


def counter(source: str, sink: str) -> Topology:
    """Per key 1, 2, 3 ...: a gap is a loss, a repeat a duplicate, in the state or in the output."""
    builder = StreamsBuilder()
    builder.stream(source, key=str, value=str).group_by_key().count(store="counts").to_stream().to(sink)
    return builder.build()


def copy(source: str, sink: str) -> Topology:
    """The output is the input."""
    builder = StreamsBuilder()
    builder.stream(source, key=str, value=str).to(sink)
    return builder.build()


def merged(source: str, sink: str) -> Topology:
    """A count over two topics."""
    builder = StreamsBuilder()
    other = builder.stream(f"{source}-2", key=str, value=str)
    builder.stream(source, key=str, value=str).merge(other).group_by_key().count(store="counts").to_stream().to(sink)
    return builder.build()


def regrouped(source: str, sink: str) -> Topology:
    """Two subtopologies: words are counted behind a repartition topic."""
    builder = StreamsBuilder()
    (
        builder.stream(source, key=str, value=str)
        .flat_map_values(str.split)
        .group_by(lambda _, word: word, key=str, value=str, name="word")
        .count(store="counts")
        .to_stream()
        .to(sink)
    )
    return builder.build()


def fails_on_poison(source: str, sink: str) -> Topology:
    """A count whose mapper raises at the value `poison`."""
    builder = StreamsBuilder()
    (
        builder.stream(source, key=str, value=str)
        .map_values(refuse_poison, value=str, name="refuse-poison")
        .group_by_key()
        .count(store="counts")
        .to_stream()
        .to(sink)
    )
    return builder.build()


def refuse_poison(value: str) -> str:
    if value == "poison":
        raise ValueError("this value is poison")
    return value


def slow_counter(source: str, sink: str) -> Topology:
    """A count that takes its time: a value `slow:1.5` holds the worker for 1.5 s."""
    builder = StreamsBuilder()
    (builder.stream(source, key=str, value=str).peek(hold).group_by_key().count(store="counts").to_stream().to(sink))
    return builder.build()


def hold(_: str, value: str) -> None:
    if value.startswith("slow:"):
        time.sleep(float(value.removeprefix("slow:")))
