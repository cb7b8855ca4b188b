"""Window stores against a dict: what can be seen, in which order, after commits, restarts and restores."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlib.errors import StateStoreError
from streamlib.records import OutRecord
from streamlib.rocksdb import RocksDBBackend
from streamlib.serdes import serde_for
from streamlib.state.backend import Backend
from streamlib.state.codec import ValueAndTimestamp, pack_timestamp
from streamlib.state.memory import InMemoryBackend
from streamlib.state.overlay import Overlay
from streamlib.state.stores import open_store, restored_rows
from streamlib.state.window import WindowRows, WindowStore
from streamlib.topology.nodes import StoreKind, WindowStoreSpec
from tests.engine.support import Fetched

RETENTION_MS = 150_000
KEYS = st.sampled_from([b"", b"a", b"ab", b"b", b"a\xff", b"a" + bytes(16)])
STARTS = st.integers(0, 600).map(lambda seconds: seconds * 1000)
PUTS = st.tuples(KEYS, STARTS, st.none() | st.binary(min_size=1, max_size=2))
"""Key, start, value."""
COMMIT = st.just("commit")
Step = tuple[bytes, int, bytes | None] | str


def spec(kind: StoreKind = "timestamped_window", **options: Any) -> WindowStoreSpec:
    return WindowStoreSpec(
        name="w",
        kind=kind,
        key=serde_for(bytes),
        value=serde_for(bytes),
        retention_ms=RETENTION_MS,
        window_size_ms=1000,
        **options,
    )


@contextmanager
def memory(of: WindowStoreSpec) -> Iterator[Backend]:
    yield InMemoryBackend()


@contextmanager
def rocksdb(of: WindowStoreSpec) -> Iterator[Backend]:
    with tempfile.TemporaryDirectory() as folder:
        backend = RocksDBBackend(Path(folder), [of])
        try:
            yield backend
        finally:
            backend.close()


class Kept:
    """A store with the commits of a task, its changelog, and what should be in it."""

    def __init__(self, of: WindowStoreSpec, backend: Backend) -> None:
        self.spec = of
        self.backend = backend
        self.changelog: list[OutRecord] = []
        self.model: dict[tuple[int, bytes], bytes] = {}
        self.observed = -1
        self.start()

    def start(self) -> None:
        self.overlay = Overlay("w", self.backend)
        self.rows = WindowRows(self.spec, self.overlay)

    def do(self, steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, str):
                self.commit()
                self.start()
            else:
                self.put(*step)

    def put(self, key: bytes, start: int, value: bytes | None) -> None:
        row = None if value is None else pack_timestamp(start) + value
        self.observed = max(self.observed, start)
        put = self.rows.put_row(key, start, row, start)
        assert put == (start >= self.oldest)
        if not put or row is None:
            self.model.pop((start, key), None) if put else None
        else:
            self.model[start, key] = row

    def commit(self) -> None:
        self.changelog += self.rows.changelog_records()
        self.backend.write({"w": self.overlay.changes}, {})
        self.overlay.clear()
        for first, last in self.rows.expired():
            self.backend.delete_range("w", first, last)

    @property
    def oldest(self) -> int:
        """The earliest start that can be seen."""
        return self.observed - RETENTION_MS + (0 if self.spec.time_ordered else 1)

    def visible(self) -> dict[tuple[int, bytes], bytes]:
        return {place: row for place, row in self.model.items() if place[0] >= self.oldest}


def everything(rows: WindowRows) -> dict[tuple[int, bytes], bytes]:
    return {(start, key): row for key, start, row in rows.fetch_keys(None, None, 0, 10**9)}


@pytest.mark.parametrize("backend_of", [memory, rocksdb])
@settings(max_examples=60, deadline=None)
@given(
    st.booleans(), st.lists(PUTS | COMMIT, max_size=25), st.tuples(KEYS, KEYS), st.tuples(STARTS, STARTS), st.booleans()
)
def test_a_store_of_windows_is_like_a_dict_that_forgets(
    backend_of: Callable[[WindowStoreSpec], Any],
    time_ordered: bool,
    steps: list[Step],
    keys: tuple[bytes, bytes],
    starts: tuple[int, int],
    reverse: bool,
) -> None:
    of = spec(time_ordered=time_ordered)
    with backend_of(of) as backend:
        kept = Kept(of, backend)
        kept.do(steps)
        rows, visible = kept.rows, kept.visible()
        first, last = sorted(starts)
        key = keys[0]
        assert everything(rows) == visible
        in_span = sorted(
            (start, row) for (start, each), row in visible.items() if each == key and first <= start <= last
        )
        assert list(rows.fetch(key, first, last, reverse=reverse)) == (in_span[::-1] if reverse else in_span)
        assert rows.row(key, first) == visible.get((first, key))
        lowest, highest = sorted(keys)
        found = rows.fetch_keys(lowest, highest, first, last, reverse=reverse)
        assert sorted((start, each) for each, start, _ in found) == sorted(
            (start, each) for start, each in visible if lowest <= each <= highest and first <= start <= last
        )


def test_keys_up_to_one_are_found_when_it_begins_with_them() -> None:
    """Though with its time a key may come after a longer one without."""
    kept = Kept(spec(), InMemoryBackend())
    kept.do([(b"a", 60_000, b"x")])
    longer = b"a" + bytes(16)
    assert [(key, start) for key, start, _ in kept.rows.fetch_keys(b"", longer, 0, 60_000)] == [(b"a", 60_000)]
    assert list(kept.rows.fetch_keys(longer, longer, 0, 60_000)) == []


@given(st.lists(PUTS | COMMIT, max_size=25), STARTS, STARTS)
def test_windows_are_found_by_start_even_those_that_cannot_be_seen_any_more(
    steps: list[Step], one: int, other: int
) -> None:
    kept = Kept(spec(time_ordered=True), InMemoryBackend())
    kept.do([step for step in steps if step != "commit"])
    first, last = min(one, other), max(one, other)
    expected = sorted((start, key, row) for (start, key), row in kept.model.items() if first <= start <= last)
    found = [(start, key, row) for key, start, row in kept.rows.starting(first, last)]
    assert sorted(found) == expected
    assert [start for start, _, _ in found] == sorted(start for start, _, _ in found)
    assert kept.rows.first_start(first) == min((start for start, _ in kept.model if start >= first), default=None)


@given(st.booleans(), st.lists(PUTS | COMMIT, max_size=25))
def test_a_store_comes_back_from_its_changelog(time_ordered: bool, steps: list[Step]) -> None:
    of = spec(time_ordered=time_ordered)
    kept = Kept(of, InMemoryBackend())
    kept.do([*steps, "commit"])
    copy = InMemoryBackend()
    for offset, (key, value, timestamp, _) in enumerate(kept.changelog):
        rows = restored_rows(of, [Fetched(offset, timestamp, key, value)], partial(copy.get, "w"))
        copy.write({"w": rows}, {})
    again = WindowRows(of, Overlay("w", copy))
    assert everything(again) == kept.visible()


def test_duplicates_are_kept_in_the_order_they_were_put() -> None:
    rows = WindowRows(spec("window", retain_duplicates=True), Overlay("w", InMemoryBackend()))
    for value in (b"2", b"1", None, b"3"):
        rows.put_row(b"k", 5, value, 5)
    assert list(rows.fetch(b"k", 0, 10)) == [(5, b"2"), (5, b"1"), (5, b"3")]


def test_a_changelog_record_is_that_of_kafka_streams() -> None:
    rows = WindowRows(spec(), Overlay("w", InMemoryBackend()))
    rows.put_row(b"k", 5, pack_timestamp(7) + b"v", 9)
    rows.put_row(b"k", 6, None, 9)
    start_and_number = [bytes(7) + bytes([start]) + bytes(4) for start in (5, 6)]
    assert rows.changelog_records() == [
        (b"k" + start_and_number[0], b"v", 7, ()),
        (b"k" + start_and_number[1], None, 9, ()),
    ]


def test_a_window_before_1970_is_refused() -> None:
    rows = WindowRows(spec(), Overlay("w", InMemoryBackend()))
    with pytest.raises(StateStoreError, match="store w: a window cannot be at -1 ms"):
        rows.put_row(b"k", -1, b"", 0)


def test_the_typed_view_has_windowed_keys() -> None:
    class Clock:
        timestamp = 12

    rows = WindowRows(spec(), Overlay("w", InMemoryBackend()))
    store = open_store(rows, Clock())
    assert isinstance(store, WindowStore)
    store.put(b"k", b"v", 3000)
    store.put(b"k", ValueAndTimestamp(b"w", 5), 4000)
    assert store.get(b"k", 3000) == ValueAndTimestamp(b"v", 12)
    assert [(tuple(window), row.value) for window, row in store.all()] == [
        ((b"k", 3000, 4000), b"v"),
        ((b"k", 4000, 5000), b"w"),
    ]
