"""Buffers: their order, what they weigh, what their changelog looks like and that it brings all of it back."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib.errors import StateStoreError
from streamlib.serdes import serde_for
from streamlib.state.buffer import (
    VERSION,
    Buffered,
    BufferRows,
    BufferStore,
    Origin,
    pack_buffered,
    restored_buffer,
    unpack_buffered,
)
from streamlib.state.memory import InMemoryBackend
from streamlib.state.overlay import Overlay
from streamlib.state.stores import open_rows, open_store
from streamlib.topology.nodes import BufferStoreSpec
from streamlib.windows import END_OF_TIME_MS
from tests.engine.support import Fetched

SPEC = BufferStoreSpec(name="held", key=serde_for(str), value=serde_for(str))
SEVERAL = BufferStoreSpec(name="waiting", key=serde_for(str), value=serde_for(str), retain_duplicates=True)
ORIGIN = Origin(5, 7, "in", 1, (("h", b"x"), ("n", None)))
NOWHERE = Origin(0, 0, "", 0, ())


def opened(spec: BufferStoreSpec = SPEC, backend: InMemoryBackend | None = None) -> BufferRows:
    return BufferRows(spec, Overlay(spec.name, backend or InMemoryBackend()))


def entry(value: bytes) -> bytes:
    return pack_buffered(Buffered(None, None, value, NOWHERE))


def popped(rows: BufferRows) -> tuple[bytes, bytes | None]:
    key, buffered = rows.pop(0)
    return key, buffered.new


def test_an_entry_is_written_as_kafka_streams_does() -> None:
    context = struct.pack(">qqi2sii", 5, 7, 2, b"in", 1, 2) + struct.pack(">i1si1s", 1, b"h", 1, b"x")
    context += struct.pack(">i1si", 1, b"n", -1)
    values = struct.pack(">i1si1si1s", 1, b"p", 1, b"o", 1, b"n")
    assert pack_buffered(Buffered(b"p", b"o", b"n", ORIGIN)) == context + values


def test_an_old_value_that_is_the_prior_one_is_not_written_twice() -> None:
    packed = pack_buffered(Buffered(b"same", b"same", None, NOWHERE))
    assert packed.endswith(struct.pack(">i4sii", 4, b"same", -2, -1))
    assert unpack_buffered(packed) == Buffered(b"same", b"same", None, NOWHERE)


content = st.none() | st.binary(max_size=4)


@given(content, content, content, st.lists(st.tuples(st.text(max_size=3), content), max_size=3), st.text(max_size=4))
def test_an_entry_comes_back(
    prior: bytes | None, old: bytes | None, new: bytes | None, headers: list[tuple[str, bytes | None]], topic: str
) -> None:
    buffered = Buffered(prior, old, new, Origin(-1, 1 << 40, topic, 3, tuple(headers)))
    assert unpack_buffered(b"before" + pack_buffered(buffered), 6) == buffered


def test_the_oldest_leaves_first_and_of_equal_times_the_lower_key() -> None:
    rows = opened()
    for key, time in ((b"b", 2), (b"c", 1), (b"a", 2), (b"d", 1)):
        rows.put(key, time, entry(key), 0)
    assert rows.oldest_time == 1
    assert [popped(rows) for _ in range(len(rows))] == [(key, key) for key in (b"c", b"d", b"a", b"b")]
    assert rows.oldest_time == END_OF_TIME_MS


def test_a_later_entry_of_a_key_takes_the_place_of_the_first() -> None:
    rows = opened()
    rows.put_change(b"a", 5, (b"1", b"0"), ORIGIN, 0)
    rows.put_change(b"b", 6, (b"1", None), ORIGIN, 0)
    rows.put_change(b"a", 9, (b"2", b"1"), NOWHERE, 0)
    assert rows.pop(0) == (b"a", Buffered(b"0", b"1", b"2", NOWHERE))


def test_several_entries_of_a_key_leave_in_the_order_they_came() -> None:
    backend = InMemoryBackend()
    rows = opened(SEVERAL, backend)
    for number in range(3):
        rows.put(b"a", 5, entry(str(number).encode()), 0)
    rows.changelog_records()
    backend.write({SEVERAL.name: rows.overlay.changes}, {})
    rows = opened(SEVERAL, backend)
    rows.put(b"a", 5, entry(b"3"), 0)
    assert [popped(rows) for _ in range(4)] == [(b"a", b"0"), (b"a", b"1"), (b"a", b"2"), (b"a", b"3")]


def test_it_weighs_what_kafka_streams_says() -> None:
    rows = opened()
    rows.put_change(b"key", 5, (b"new", b"old"), ORIGIN, 0)
    # time, key; timestamp, offset, topic, partition, headers; prior, which is the old value too; new
    assert rows.size_bytes == 8 + 3 + 8 + 8 + 2 + 4 + (1 + 1 + 1) + 3 + 3
    rows.put_change(b"key", 6, (None, b"new"), NOWHERE, 0)
    assert rows.size_bytes == 8 + 3 + 8 + 8 + 0 + 4 + 3 + 3
    rows.pop(0)
    assert rows.size_bytes == 0


def test_the_changelog_is_that_of_kafka_streams() -> None:
    rows = opened()
    rows.put(b"a", 5, entry(b"1"), 70)
    rows.put(b"b", 4, entry(b"2"), 71)
    rows.pop(72)
    assert rows.changelog_records() == [
        (b"a", entry(b"1") + struct.pack(">q", 5), 70, VERSION),
        (b"b", None, 72, ()),
    ]


def test_another_format_is_refused() -> None:
    record = Fetched(3, 0, b"a", b"whatever", (("v", b"\x02"),))
    with pytest.raises(StateStoreError, match="held: the changelog record at offset 3 is not in format 3"):
        restored_buffer(SPEC, [record], lambda key: None)


def test_one_can_look_into_a_buffer() -> None:
    rows = open_rows(SPEC, Overlay(SPEC.name, InMemoryBackend()))
    assert isinstance(rows, BufferRows)
    rows.put_change(b"b", 1, (b"x", None), ORIGIN, 0)
    rows.put_change(b"a", 2, (None, b"x"), ORIGIN, 0)
    store: Any = open_store(rows, ORIGIN)
    assert isinstance(store, BufferStore)
    assert list(store.all()) == [("a", (None, 5)), ("b", ("x", 5))]
    assert (store.get("b"), store.get("c"), len(store)) == (("x", 5), None, 2)


class Model:
    """Keys with their times and values."""

    def __init__(self) -> None:
        self.waiting: dict[bytes, tuple[int, Buffered]] = {}

    def put(self, key: bytes, time: int, change: tuple[bytes | None, bytes | None]) -> None:
        new, old = change
        first, before = self.waiting.get(key, (time, None))
        self.waiting[key] = first, Buffered(old if before is None else before.prior, old, new, ORIGIN)

    def pop(self) -> tuple[bytes, Buffered]:
        key = min(self.waiting, key=lambda key: (self.waiting[key][0], key))
        return key, self.waiting.pop(key)[1]


step = st.one_of(
    st.tuples(st.just("put"), st.binary(max_size=2), st.integers(0, 5), st.tuples(content, content)),
    st.just(("pop",)),
    st.just(("commit",)),
    st.just(("restart",)),
    st.just(("lose the disk",)),
)


@given(st.lists(step, max_size=30))
def test_a_buffer_is_what_its_changelog_says(steps: list[tuple[Any, ...]]) -> None:
    model, backend = Model(), InMemoryBackend()
    rows, log = opened(SPEC, backend), []
    for kind, *arguments in steps:
        if kind == "put":
            key, time, change = arguments
            rows.put_change(key, time, change, ORIGIN, 0)
            model.put(key, time, change)
        elif kind == "pop" and model.waiting:
            assert rows.pop(0) == model.pop()
        elif kind != "pop":
            log += rows.changelog_records()
            backend.write({SPEC.name: rows.overlay.changes}, {})
            rows.overlay.clear()
            if kind == "lose the disk":
                fetched = [Fetched(at, time, key, value, headers) for at, (key, value, time, headers) in enumerate(log)]
                backend = InMemoryBackend()
                backend.write({SPEC.name: restored_buffer(SPEC, fetched, lambda key: None)}, {})
            if kind != "commit":
                size = rows.size_bytes
                rows = opened(SPEC, backend)
                assert rows.size_bytes == size
        assert len(rows) == len(model.waiting)
        assert rows.oldest_time == min((time for time, _ in model.waiting.values()), default=END_OF_TIME_MS)
