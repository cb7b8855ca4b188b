"""Typed views: what they store, log and give back."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib.errors import SerializationError, StateStoreError
from streamlib.serdes import serde_for
from streamlib.state.codec import ValueAndTimestamp, prefix_end
from streamlib.state.key_value import KeyValueRows, KeyValueStore, TimestampedKeyValueStore
from streamlib.state.memory import InMemoryBackend
from streamlib.state.overlay import Overlay
from streamlib.state.stores import open_rows, open_store, restored_rows
from streamlib.topology.nodes import StoreSpec
from tests.engine.support import Fetched

PLAIN = StoreSpec(name="plain", kind="key_value", key=serde_for(str), value=serde_for(int))
TIMED = StoreSpec(name="timed", kind="timestamped_key_value", key=serde_for(str), value=serde_for(int))


class Clock:
    timestamp = 1000


def plain() -> tuple[KeyValueStore[str, int], Overlay]:
    overlay = Overlay("plain", InMemoryBackend())
    return KeyValueStore(KeyValueRows(PLAIN, overlay), Clock()), overlay


def timed() -> tuple[TimestampedKeyValueStore[str, int], Overlay]:
    overlay = Overlay("timed", InMemoryBackend())
    return TimestampedKeyValueStore(KeyValueRows(TIMED, overlay), Clock()), overlay


def test_a_timestamped_row_is_stored_as_kafka_streams_does() -> None:
    store, overlay = timed()
    store.put("ann", 3, 77)
    assert overlay.changes == {b"ann": struct.pack(">qq", 77, 3)}
    assert store.get("ann") == ValueAndTimestamp(3, 77)


def test_the_changelog_of_a_timestamped_store_has_the_rows_time() -> None:
    store, overlay = timed()
    store.put("ann", 3, 77)
    store.put("bob", 4, 78)
    store.delete("bob")
    assert KeyValueRows(TIMED, overlay).changelog_records() == [
        (b"ann", struct.pack(">q", 3), 77, ()),
        (b"bob", None, 1000, ()),
    ]


def test_the_changelog_of_a_plain_store_has_the_time_of_the_record_in_process() -> None:
    store, overlay = plain()
    store.put("ann", 3)
    store.put("bob", None)
    assert KeyValueRows(PLAIN, overlay).changelog_records() == [
        (b"ann", struct.pack(">q", 3), 1000, ()),
        (b"bob", None, 1000, ()),
    ]


def test_several_updates_of_a_key_are_one_changelog_record() -> None:
    store, overlay = plain()
    for n in range(5):
        store.put("ann", n)
    assert KeyValueRows(PLAIN, overlay).changelog_records() == [(b"ann", struct.pack(">q", 4), 1000, ())]


@pytest.mark.parametrize("spec", [PLAIN, TIMED], ids=lambda spec: spec.kind)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 9))))
def test_changelog_records_rebuild_the_rows(spec: StoreSpec, puts: list[tuple[str, int | None]]) -> None:
    overlay = Overlay(spec.name, InMemoryBackend())
    rows = open_rows(spec, overlay)
    store: Any = open_store(rows, Clock())
    for key, value in puts:
        store.put(key, value)
    records = [Fetched(0, timestamp, key, value) for key, value, timestamp, _ in rows.changelog_records()]
    assert restored_rows(spec, records, lambda key: None) == overlay.changes


def test_ranges_include_both_bounds() -> None:
    store, _ = plain()
    store.put_all([(key, n) for n, key in enumerate(["a", "b", "ba", "c", "d"])])
    assert [key for key, _ in store.range("b", "c")] == ["b", "ba", "c"]
    assert [key for key, _ in store.reverse_range("b", "c")] == ["c", "ba", "b"]
    assert [key for key, _ in store.range(None, "b")] == ["a", "b"]
    assert [key for key, _ in store.range("c")] == ["c", "d"]
    assert [key for key, _ in store.reverse_all()] == ["d", "c", "ba", "b", "a"]
    assert [key for key, _ in store.prefix_scan("b")] == ["b", "ba"]


def test_put_if_absent_and_delete_tell_what_was_there() -> None:
    store, _ = plain()
    assert store.put_if_absent("a", 1) is None
    assert store.put_if_absent("a", 2) == 1
    assert store.delete("a") == 1
    assert store.get("a") is None


def test_a_value_that_cannot_be_encoded_names_store_and_key() -> None:
    store, _ = plain()
    with pytest.raises(SerializationError, match=r"store plain: cannot encode the value 'x' of key 'ann'"):
        store.put("ann", "x")  # type: ignore[arg-type]


def test_a_key_cannot_be_none() -> None:
    store, _ = plain()
    with pytest.raises(StateStoreError, match="store plain: a key cannot be None"):
        store.put(None, 1)  # type: ignore[arg-type]


@given(st.binary(max_size=4), st.binary(max_size=6))
def test_prefix_end_is_the_first_key_after_the_prefix(prefix: bytes, key: bytes) -> None:
    end = prefix_end(prefix)
    inside = key >= prefix and (end is None or key < end)
    assert inside == key.startswith(prefix)
