"""An overlay over a backend behaves like one dict, and touches nothing until it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib.errors import StateStoreError
from streamlib.state.memory import InMemoryBackend
from streamlib.state.overlay import Overlay

KEYS = st.binary(max_size=2)
ROWS = st.dictionaries(KEYS, st.binary(max_size=3))
CHANGES = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=3)))
SEALED = st.none() | st.integers(0, 10)


def overlay_over(
    rows: dict[bytes, bytes], changes: list[tuple[bytes, bytes | None]], sealed: int | None = None
) -> Overlay:
    """Some of the changes may be sealed, and being committed."""
    backend = InMemoryBackend()
    backend.write({"s": rows}, {})
    overlay = Overlay("s", backend)
    for number, (key, row) in enumerate(changes):
        if number == sealed:
            overlay.seal()
        if row is None:
            overlay.delete(key, 0)
        else:
            overlay.put(key, row)
    return overlay


def model_of(rows: dict[bytes, bytes], changes: list[tuple[bytes, bytes | None]]) -> dict[bytes, bytes]:
    return {key: row for key, row in {**rows, **dict(changes)}.items() if row is not None}


@given(ROWS, CHANGES, KEYS, SEALED)
def test_get_is_that_of_a_dict(
    rows: dict[bytes, bytes], changes: list[tuple[bytes, bytes | None]], key: bytes, sealed: int | None
) -> None:
    assert overlay_over(rows, changes, sealed).get(key) == model_of(rows, changes).get(key)


@given(ROWS, CHANGES, st.none() | KEYS, st.none() | KEYS, st.booleans(), SEALED)
def test_scan_is_that_of_a_sorted_dict(
    rows: dict[bytes, bytes],
    changes: list[tuple[bytes, bytes | None]],
    start: bytes | None,
    end: bytes | None,
    reverse: bool,
    sealed: int | None,
) -> None:
    expected = sorted(
        (
            (key, row)
            for key, row in model_of(rows, changes).items()
            if (start is None or key >= start) and (end is None or key < end)
        ),
        reverse=reverse,
    )
    assert list(overlay_over(rows, changes, sealed).scan(start, end, reverse=reverse)) == expected


@given(ROWS, CHANGES)
def test_changes_do_not_reach_the_backend(rows: dict[bytes, bytes], changes: list[tuple[bytes, bytes | None]]) -> None:
    backend = InMemoryBackend()
    backend.write({"s": rows}, {})
    overlay = Overlay("s", backend)
    for key, row in changes:
        overlay.put(key, row or b"")
    overlay.clear()
    assert dict(backend.scan("s", None, None)) == rows
    assert dict(overlay.scan()) == rows


@given(CHANGES)
def test_size_is_that_of_the_changes_held(changes: list[tuple[bytes, bytes | None]]) -> None:
    overlay = overlay_over({}, changes)
    held = dict(changes)
    content = sum(len(key) + len(row or b"") for key, row in held.items())
    assert overlay.size_bytes == content + 100 * len(held)
    overlay.clear()
    assert overlay.size_bytes == 0


@given(ROWS, CHANGES, SEALED)
def test_a_scan_may_delete_what_it_comes_by(
    rows: dict[bytes, bytes], changes: list[tuple[bytes, bytes | None]], sealed: int | None
) -> None:
    overlay = overlay_over(rows, changes, sealed)
    for key, _ in overlay.scan():
        overlay.delete(key, 0)
    assert list(overlay.scan()) == []


def test_a_row_over_the_limit_is_refused_by_name() -> None:
    overlay = Overlay("baskets", InMemoryBackend(), max_value_bytes=10)
    overlay.put(b"ann", b"x" * 10)
    with pytest.raises(StateStoreError, match=r"store baskets: the value of key b'bob' takes 11 bytes.*limit of 10"):
        overlay.put(b"bob", b"x" * 11)
    assert overlay.get(b"bob") is None


def test_sealed_changes_stay_as_they_are_below_the_next_ones() -> None:
    backend = InMemoryBackend()
    backend.write({"s": {b"a": b"0", b"c": b"0", b"d": b"0"}}, {})
    overlay = Overlay("s", backend)
    overlay.put(b"b", b"1")
    overlay.put(b"c", b"1")
    overlay.delete(b"d", 0)
    sealed = overlay.seal()
    assert overlay.changes == {}
    assert overlay.size_bytes == 0
    overlay.put(b"c", b"2")
    overlay.delete(b"b", 0)
    overlay.put(b"e", b"2")
    assert sealed == {b"b": b"1", b"c": b"1", b"d": None}
    rows = [(b"a", b"0"), (b"c", b"2"), (b"e", b"2")]
    assert list(overlay.scan()) == rows
    assert list(overlay.scan(reverse=True)) == rows[::-1]
    assert [overlay.get(key) for key in (b"a", b"b", b"c", b"d", b"e")] == [b"0", None, b"2", None, b"2"]
    backend.write({"s": sealed}, {})
    overlay.committed()
    assert list(overlay.scan()) == rows
    assert overlay.seal() == {b"b": None, b"c": b"2", b"e": b"2"}


def test_nothing_is_sealed_before_the_last_commit_has_ended() -> None:
    overlay = overlay_over({}, [(b"a", b"1")])
    overlay.seal()
    with pytest.raises(AssertionError, match="before the last commit has ended"):
        overlay.seal()
