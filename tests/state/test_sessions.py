"""Session stores against a dict: what can be seen, in which order, after commits, restarts and restores."""

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
from streamlib.state.memory import InMemoryBackend
from streamlib.state.overlay import Overlay
from streamlib.state.session import SessionRows, SessionStore
from streamlib.state.stores import open_store, restored_rows
from streamlib.topology.nodes import SessionStoreSpec
from streamlib.windows import Windowed
from tests.engine.support import Fetched

RETENTION_MS = 150_000
Place = tuple[int, int, bytes]
"""End, start, key."""
Step = tuple[bytes, tuple[int, int], bytes | None] | str

KEYS = st.sampled_from([b"", b"a", b"ab", b"b", b"a\xff", b"a" + bytes(16)])
TIMES = st.integers(0, 600).map(lambda seconds: seconds * 1000)
SPANS = st.builds(lambda start, length: (start, start + length * 1000), TIMES, st.integers(0, 20))
PUTS = st.tuples(KEYS, SPANS, st.none() | st.binary(min_size=1, max_size=2))
"""Key, (start, end), value."""
STEPS = st.lists(PUTS | st.just("commit"), max_size=25)


def spec(**options: Any) -> SessionStoreSpec:
    raw = serde_for(bytes)
    return SessionStoreSpec(name="s", key=raw, value=raw, retention_ms=RETENTION_MS, **options)


@contextmanager
def memory(of: SessionStoreSpec) -> Iterator[Backend]:
    yield InMemoryBackend()


@contextmanager
def rocksdb(of: SessionStoreSpec) -> Iterator[Backend]:
    with tempfile.TemporaryDirectory() as folder:
        backend = RocksDBBackend(Path(folder), [of])
        try:
            yield backend
        finally:
            backend.close()


class Kept:
    """A store with the commits of a task, its changelog, and what should be in it."""

    def __init__(self, of: SessionStoreSpec, backend: Backend) -> None:
        self.spec = of
        self.backend = backend
        self.changelog: list[OutRecord] = []
        self.model: dict[Place, bytes] = {}
        self.observed = -1
        self.start()

    def start(self) -> None:
        self.overlay = Overlay("s", self.backend)
        self.rows = SessionRows(self.spec, self.overlay)

    def do(self, steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, str):
                self.commit()
                self.start()
            else:
                self.put(*step)

    def put(self, key: bytes, span: tuple[int, int], row: bytes | None) -> None:
        start, end = span
        self.observed = max(self.observed, end)
        put = self.rows.put_row(key, start, end, row, end)
        assert put == (end >= self.observed - RETENTION_MS)
        if put and row is not None:
            self.model[end, start, key] = row
        elif put:
            self.model.pop((end, start, key), None)

    def commit(self) -> None:
        self.changelog += self.rows.changelog_records()
        self.backend.write({"s": self.overlay.changes}, {})
        self.overlay.clear()
        for first, last in self.rows.expired():
            self.backend.delete_range("s", first, last)

    def visible(self) -> dict[Place, bytes]:
        return {place: row for place, row in self.model.items() if place[0] > self.observed - RETENTION_MS}


def everything(rows: SessionRows) -> dict[Place, bytes]:
    return {(end, start, key): row for key, start, end, row in rows.find_keys(None, None, 0, 10**9)}


def test_keys_up_to_one_are_found_when_it_begins_with_them() -> None:
    """Though with its times a key may come after a longer one without."""
    kept = Kept(spec(), InMemoryBackend())
    kept.do([(b"a", (0, 60_000), b"x")])
    longer = b"a" + bytes(16)
    assert list(kept.rows.find_keys(b"", longer, 0, 60_000)) == [(b"a", 0, 60_000, b"x")]
    assert list(kept.rows.find_keys(longer, longer, 0, 60_000)) == []


@pytest.mark.parametrize("backend_of", [memory, rocksdb])
@settings(max_examples=60, deadline=None)
@given(st.booleans(), STEPS, st.tuples(KEYS, KEYS), st.tuples(TIMES, TIMES), st.booleans())
def test_a_store_of_sessions_is_like_a_dict_that_forgets(
    backend_of: Callable[[SessionStoreSpec], Any],
    time_ordered: bool,
    steps: list[Step],
    keys: tuple[bytes, bytes],
    times: tuple[int, int],
    reverse: bool,
) -> None:
    of = spec(time_ordered=time_ordered)
    with backend_of(of) as backend:
        kept = Kept(of, backend)
        kept.do(steps)
        rows, visible = kept.rows, kept.visible()
        earliest_end, latest_start = times
        key, (lowest, highest) = keys[0], sorted(keys)
        assert everything(rows) == visible
        reached = sorted(place for place in visible if place[0] >= earliest_end and place[1] <= latest_start)
        own = [(start, end, visible[end, start, each]) for end, start, each in reached if each == key]
        assert list(rows.find(key, earliest_end, latest_start, reverse=reverse)) == (own[::-1] if reverse else own)
        found = rows.find_keys(lowest, highest, earliest_end, latest_start, reverse=reverse)
        assert sorted((end, start, each) for each, start, end, _ in found) == [
            place for place in reached if lowest <= place[2] <= highest
        ]
        for end, start, each in [*kept.model, (7, 5, key)]:
            assert rows.row(each, start, end) == visible.get((end, start, each))


@given(STEPS, TIMES, TIMES)
def test_sessions_are_found_by_end_even_those_that_cannot_be_seen_any_more(
    steps: list[Step], one: int, other: int
) -> None:
    kept = Kept(spec(time_ordered=True), InMemoryBackend())
    kept.do([step for step in steps if step != "commit"])
    first, last = min(one, other), max(one, other)
    expected = sorted((place, row) for place, row in kept.model.items() if first <= place[0] <= last)
    assert [((end, start, key), row) for key, start, end, row in kept.rows.ended(first, last)] == expected
    assert kept.rows.first_end(first) == min((end for end, _, _ in kept.model if end >= first), default=None)


@given(st.booleans(), STEPS)
def test_a_store_comes_back_from_its_changelog(time_ordered: bool, steps: list[Step]) -> None:
    of = spec(time_ordered=time_ordered)
    kept = Kept(of, InMemoryBackend())
    kept.do([*steps, "commit"])
    copy = InMemoryBackend()
    for offset, (key, value, timestamp, _) in enumerate(kept.changelog):
        rows = restored_rows(of, [Fetched(offset, timestamp, key, value)], partial(copy.get, "s"))
        copy.write({"s": rows}, {})
    again = SessionRows(of, Overlay("s", copy))
    assert again.observed == kept.observed
    assert everything(again) == kept.visible()
    if time_ordered:
        assert again.ended(again.oldest_visible, 10**9) == kept.rows.ended(again.oldest_visible, 10**9)


def test_a_changelog_record_is_that_of_kafka_streams() -> None:
    rows = SessionRows(spec(), Overlay("s", InMemoryBackend()))
    rows.put_row(b"k", 5, 6, b"v", 9)
    rows.put_row(b"k", 7, 8, None, 9)
    ends_and_starts = [bytes([0] * 7 + [end] + [0] * 7 + [start]) for end, start in [(6, 5), (8, 7)]]
    assert rows.changelog_records() == [
        (b"k" + ends_and_starts[0], b"v", 9, ()),
        (b"k" + ends_and_starts[1], None, 9, ()),
    ]


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (6, 5)])
def test_a_session_that_cannot_be_is_refused(start: int, end: int) -> None:
    rows = SessionRows(spec(), Overlay("s", InMemoryBackend()))
    with pytest.raises(StateStoreError, match=f"store s: a session cannot last from {start} to {end} ms"):
        rows.put_row(b"k", start, end, b"", 0)


def test_the_typed_view_has_windowed_keys() -> None:
    class Clock:
        timestamp = 12

    of = SessionStoreSpec(name="s", key=serde_for(str), value=serde_for(int), retention_ms=RETENTION_MS)
    store = open_store(SessionRows(of, Overlay("s", InMemoryBackend())), Clock())
    assert isinstance(store, SessionStore)
    for number, session in enumerate([Windowed("b", 5, 7), Windowed("a", 8, 20), Windowed("a", 0, 3)]):
        store.put(session, number)
    assert store.get(Windowed("b", 5, 7)) == store.fetch_session("b", 5, 7) == 0
    assert store.get(Windowed("b", 5, 8)) is None
    assert list(store.fetch("a")) == [(Windowed("a", 0, 3), 2), (Windowed("a", 8, 20), 1)]
    assert list(store.fetch("a", reverse=True)) == list(store.fetch("a"))[::-1]
    assert [session for session, _ in store.find_sessions("a", 4, 8)] == [Windowed("a", 8, 20)]
    assert [session.key for session, _ in store.find_sessions_of_keys("a", None, 0, 6)] == ["a", "b"]
    assert [session.key for session, _ in store.fetch_keys("b", "c")] == ["b"]
    store.remove(Windowed("a", 8, 20))
    assert [session.key for session, _ in store.all()] == ["a", "b"]
