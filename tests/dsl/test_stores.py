"""Stores of windows and sessions for processors: what they are, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamlib import ProcessorContext, Record, Stores, StreamsBuilder, TopologyError, Windowed
from streamlib.state.codec import ValueAndTimestamp
from streamlib.testing import TopologyTestDriver
from streamlib.topology.nodes import StoreSpec
from tests.testing.restarts import keep_disks, lose_disks

MINUTE = timedelta(minutes=1)
TYPES: dict[str, Any] = {"key": str, "value": int}
NUMBER: Any = 5


def test_stores_of_windows_say_how_long_and_where_they_are_kept() -> None:
    spec = Stores.window_store(
        "w",
        **TYPES,
        retention=MINUTE,
        window_size=timedelta(seconds=5),
        persistent=False,
        changelog_config={"segment.ms": "1000"},
    )
    assert (spec.retention_ms, spec.window_size_ms, spec.persistent, spec.changelog) == (60_000, 5_000, False, True)
    assert spec.topic_config["cleanup.policy"] == "compact,delete"
    assert spec.topic_config["segment.ms"] == "1000"
    assert not Stores.session_store("s", **TYPES, retention=MINUTE, changelog=False).changelog


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Stores.window_store("w", **TYPES, retention=NUMBER, window_size=MINUTE),
            "w: the retention is a datetime",
        ),
        (
            lambda: Stores.window_store("w", **TYPES, retention=MINUTE, window_size=NUMBER),
            "w: the size of its windows is a",
        ),
        (lambda: Stores.window_store("w", **TYPES, retention=MINUTE, window_size=2 * MINUTE), "at least as long"),
        (lambda: Stores.session_store("s", **TYPES, retention=-MINUTE), "s: the retention is more than zero"),
        (lambda: Stores.session_store("s", **TYPES, retention=timedelta(0)), "s: the retention is more than zero"),
    ],
)
def test_what_cannot_be_kept_is_refused(make: Callable[[], StoreSpec], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        make()


class Numbering:
    """Writes what it finds in three stores, then adds the record to each."""

    def init(self, context: ProcessorContext) -> None:
        self.context = context
        self.duplicates = context.state_store("duplicates")
        self.timed = context.state_store("timed")
        self.sessions = context.state_store("sessions")

    def process(self, record: Record[str, int]) -> None:
        key, value, time = record.key, record.value, record.timestamp
        found = (
            [value for _, value in self.duplicates.fetch(key, 0, time)],
            self.timed.get(key, time),
            [tuple(session) for session, _ in self.sessions.fetch(key)],
        )
        self.context.forward(record.with_value(repr(found)))
        self.duplicates.put(key, value, time)
        self.timed.put(key, value, time)
        self.sessions.put(Windowed(key, time, time + value), value)


@pytest.mark.parametrize("restart", [keep_disks, lose_disks])
def test_a_processor_finds_its_windows_and_sessions_after_a_restart(
    restart: Callable[[TopologyTestDriver], None],
) -> None:
    builder = StreamsBuilder()
    windows: dict[str, Any] = {**TYPES, "retention": MINUTE, "window_size": MINUTE}
    stores = [
        Stores.window_store("duplicates", **windows, retain_duplicates=True),
        Stores.timestamped_window_store("timed", **windows),
        Stores.session_store("sessions", **TYPES, retention=MINUTE),
    ]
    builder.stream("in", key=str, value=int).process(Numbering, *stores).to("out", value=str)
    with TopologyTestDriver(builder.build()) as driver:
        topic, out = driver.input_topic("in", key=str, value=int), driver.output_topic("out", key=str, value=str)
        topic.pipe_input("k", 3, 10)
        topic.pipe_input("k", 4, 10)
        out.read_records()
        restart(driver)
        topic.pipe_input("k", 5, 10)
        assert out.read_value() == repr(
            ([3, 4], ValueAndTimestamp(4, 10), [("k", 10, 13), ("k", 10, 14)]),
        )
        topic.pipe_input("k", 6, 10)
        assert out.read_value() == repr(
            ([3, 4, 5], ValueAndTimestamp(5, 10), [("k", 10, 13), ("k", 10, 14), ("k", 10, 15)]),
        )
