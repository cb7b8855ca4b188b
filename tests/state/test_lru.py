"""Stores that keep the latest used rows."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib.records import OutRecord
from streamlib.serdes import serde_for
from streamlib.state.memory import InMemoryBackend
from streamlib.state.overlay import DEFAULT_MAX_VALUE_BYTES
from streamlib.state.stores import open_overlay, open_rows, open_store, restored_rows
from streamlib.topology.nodes import LruStoreSpec
from tests.engine.support import Fetched

PLAIN = LruStoreSpec(name="lru", kind="key_value", key=serde_for(str), value=serde_for(str), max_entries=2)
TIMED = LruStoreSpec(name="lru", kind="timestamped_key_value", key=serde_for(str), value=serde_for(str), max_entries=2)


class Clock:
    timestamp = 1000
    stream_time = 1000


class Opened:
    """A store that is committed and opened again as a task does it."""

    def __init__(self, spec: LruStoreSpec) -> None:
        self.spec = spec
        self.backend = InMemoryBackend()
        self.log: list[OutRecord] = []
        self.open()

    def open(self) -> None:
        overlay = open_overlay(self.spec, self.backend, DEFAULT_MAX_VALUE_BYTES, Clock())
        self.rows = open_rows(self.spec, overlay)
        self.store: Any = open_store(self.rows, Clock())

    def commit(self) -> list[OutRecord]:
        records = self.rows.changelog_records()
        self.log += records
        self.backend.write({"lru": self.rows.overlay.changes}, {})
        self.rows.overlay.clear()
        return records

    def restore(self) -> None:
        self.backend = InMemoryBackend()
        fetched = [Fetched(offset, record[2], *record[:2]) for offset, record in enumerate(self.log)]
        self.backend.write({"lru": restored_rows(self.spec, fetched, lambda key: None)}, {})
        self.open()

    def keys(self) -> list[str]:
        return [key for key, _ in self.store.all()]


@pytest.mark.parametrize("spec", [PLAIN, TIMED], ids=lambda spec: spec.kind)
def test_what_was_not_used_for_longest_goes(spec: LruStoreSpec) -> None:
    opened = Opened(spec)
    for key in "ab":
        opened.store.put(key, key)
    opened.store.get("a")
    opened.store.put("c", "c")
    assert opened.keys() == ["a", "c"]
    assert opened.store.get("b") is None


def test_what_goes_leaves_a_tombstone() -> None:
    opened = Opened(PLAIN)
    for key in "abc":
        opened.store.put(key, key)
    assert opened.commit() == [
        (b"a", None, 1000, ()),
        (b"b", b"b", 1000, ()),
        (b"c", b"c", 1000, ()),
    ]


def test_rows_that_were_read_are_logged_again_in_the_order_of_their_use() -> None:
    opened = Opened(TIMED)
    opened.store.put("a", "a", 5)
    opened.store.put("b", "b", 6)
    opened.commit()
    assert opened.commit() == []
    opened.store.get("b")
    opened.store.get("a")
    assert opened.commit() == [(b"b", b"b", 6, ()), (b"a", b"a", 5, ())]


def test_a_scan_is_no_use() -> None:
    opened = Opened(PLAIN)
    for key in "ab":
        opened.store.put(key, key)
    opened.commit()
    assert list(opened.store.range("a", "a")) == [("a", "a")]
    opened.store.put("c", "c")
    assert opened.keys() == ["b", "c"]


step = st.tuples(
    st.sampled_from(["put", "put", "get", "delete", "commit", "reopen", "restore"]), st.sampled_from("abcde")
)


@pytest.mark.parametrize("spec", [PLAIN, TIMED], ids=lambda spec: spec.kind)
@given(st.lists(step, max_size=40), st.integers(1, 4))
def test_it_is_a_dict_in_the_order_of_use(spec: LruStoreSpec, steps: list[tuple[str, str]], entries: int) -> None:
    opened = Opened(LruStoreSpec(name="lru", kind=spec.kind, key=spec.key, value=spec.value, max_entries=entries))
    model: OrderedDict[str, str] = OrderedDict()
    for number, (kind, key) in enumerate(steps):
        match kind:
            case "put":
                opened.store.put(key, str(number))
                model[key] = str(number)
                model.move_to_end(key)
                if len(model) > entries:
                    model.popitem(last=False)
            case "get":
                found = opened.store.get(key)
                assert (found is None) == (key not in model)
                if key in model:
                    model.move_to_end(key)
            case "delete":
                opened.store.put(key, None)
                model.pop(key, None)
            case _:
                opened.commit()
                if kind == "reopen":
                    opened.open()
                elif kind == "restore":
                    opened.restore()
        assert opened.keys() == sorted(model)
