"""Window stores behind a record cache: what the store has forgotten is still there, as long as it is little."""

from __future__ import annotations

from typing import Any

from streamlib.serdes import serde_for
from streamlib.state.memory import InMemoryBackend
from streamlib.state.overlay import Overlay
from streamlib.state.segments import MIN_SEGMENT_MS
from streamlib.state.stores import open_store
from streamlib.state.window import WindowRows
from streamlib.topology.nodes import WindowStoreSpec

SPEC = WindowStoreSpec(
    name="w", kind="window", key=serde_for(str), value=serde_for(str), retention_ms=10, window_size_ms=5
)
LONG_AGO, TODAY = 0, 1_700_000_000_000


class Clock:
    timestamp = 0


class Opened:
    """A store to which each put is a commit."""

    def __init__(self, max_kept_bytes: int) -> None:
        self.backend = InMemoryBackend()
        self.rows = WindowRows(SPEC, Overlay("w", self.backend))
        self.rows.keep_forgotten(max_kept_bytes)
        self.store: Any = open_store(self.rows, Clock())

    def put(self, start: int) -> None:
        self.store.put("a", str(start), start)
        self.rows.changelog_records()
        self.backend.write({"w": self.rows.overlay.changes}, {})
        self.rows.overlay.clear()
        for first, end in self.rows.expired():
            self.backend.delete_range("w", first, end)

    def starts(self) -> list[int]:
        return [key.start for key, _ in self.store.all()]


def test_rows_older_than_the_retention_are_seen() -> None:
    opened = Opened(1000)
    for start in (LONG_AGO, TODAY - MIN_SEGMENT_MS, TODAY):
        opened.put(start)
    assert opened.starts() == [LONG_AGO, TODAY - MIN_SEGMENT_MS, TODAY]
    assert opened.store.get("a", LONG_AGO) == "0"
    assert [start for start, _ in opened.store.fetch("a", 0, TODAY, reverse=True)][-1] == LONG_AGO


def test_the_oldest_go_when_there_is_too_much() -> None:
    opened = Opened(80)  # two rows of about 35
    for start in (LONG_AGO, TODAY - MIN_SEGMENT_MS, TODAY):
        opened.put(start)
    assert opened.starts() == [TODAY - MIN_SEGMENT_MS, TODAY]
    assert len(list(opened.backend.scan("w", b"", b"\x80"))) == 2


def test_what_is_within_the_retention_stays() -> None:
    opened = Opened(1)
    for start in (TODAY - 3, TODAY):
        opened.put(start)
    assert opened.starts() == [TODAY - 3, TODAY]
