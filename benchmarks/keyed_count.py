"""The topology that is measured: decode JSON, count by key in a store with a changelog, write the count."""

from __future__ import annotations

import os

import msgspec

from streamlib import StreamsBuilder
from streamlib.topology.topology import Topology

INPUT_VARIABLE = "BENCHMARK_INPUT"
OUTPUT_VARIABLE = "BENCHMARK_OUTPUT"


class Event(msgspec.Struct):
    """About 100 bytes as JSON."""

    user: str
    action: str
    amount: float
    number: int
    note: str


def event(number: int, user: str, size: int = 100) -> bytes:
    """The JSON of one event: 100 bytes, or another `size` that holds its fields."""
    head = b'{"user":"%s","action":"buy","amount":%.2f,"number":%d,"note":"' % (
        user.encode(),
        number % 1000 / 8,
        number,
    )
    return head + b"x" * (size - 2 - len(head)) + b'"}'


def topology() -> Topology:
    """Topics come from the environment: each run has its own."""
    builder = StreamsBuilder()
    (
        builder.stream(os.environ[INPUT_VARIABLE], key=str, value=Event)
        .group_by_key()
        .count(store="counts")
        .to_stream()
        .to(os.environ[OUTPUT_VARIABLE])
    )
    return builder.build()
