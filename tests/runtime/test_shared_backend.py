"""Stores that others look into from threads of theirs, while the task works on them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib.errors import StateStoreMigratedError
from streamlib.rocksdb import RocksDBBackend
from streamlib.runtime.shared_backend import PagedReader, SharedBackend
from streamlib.serdes import serde_for
from streamlib.state.backend import PAGE_BYTES, Backend
from streamlib.state.memory import InMemoryBackend
from streamlib.topology.nodes import StoreSpec

SPEC = StoreSpec(name="s", kind="key_value", key=serde_for(bytes), value=serde_for(bytes))
ROWS = 1_000


def made(kind: str, folder: Path) -> Backend:
    return InMemoryBackend() if kind == "memory" else RocksDBBackend(folder, [SPEC])


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_each_page_is_one_commit_and_readers_outlive_the_store(kind: str, tmp_path: Path) -> None:
    """Every commit gives all rows the same value: who saw two values in a page has seen half a commit."""
    backend = SharedBackend(made(kind, tmp_path), "task 0_0")
    keys = [b"%04d" % number for number in range(ROWS)]
    backend.write({"s": dict.fromkeys(keys, b"0")}, {})
    over, pages = threading.Event(), [0, 0, 0]

    def look(reader: int) -> None:
        page = backend.page("s", None, None, 100, reverse=bool(pages[reader] % 2))
        assert len({value for _, value in page}) == 1
        assert len(page) == 100
        assert backend.peek("s", keys[pages[reader] % ROWS]) is not None

    def read(reader: int) -> bool:
        while True:
            try:
                look(reader)
            except StateStoreMigratedError as error:
                return "task 0_0 has just left this worker" in str(error) and over.is_set()
            pages[reader] += 1

    with ThreadPoolExecutor(3) as threads:
        readers = [threads.submit(read, number) for number in range(3)]
        commit = 0
        while commit < 50 or min(pages) < 20:
            commit += 1
            backend.write({"s": dict.fromkeys(keys, b"%d" % commit)}, {})
            assert backend.get("s", keys[commit % ROWS]) == b"%d" % commit
            assert not any(reader.done() for reader in readers)
        over.set()
        backend.close()
        assert all(reader.result() for reader in readers)
    if kind == "disk":  # nothing keeps it open
        RocksDBBackend(tmp_path, [SPEC]).close()


KEYS = st.binary(max_size=2)


@given(
    st.dictionaries(KEYS, st.binary(max_size=3)), st.none() | KEYS, st.none() | KEYS, st.booleans(), st.integers(1, 5)
)
def test_pages_put_together_are_the_scan(
    content: dict[bytes, bytes], start: bytes | None, end: bytes | None, reverse: bool, most: int
) -> None:
    backend = InMemoryBackend()
    backend.write({"s": content}, {})
    whole = list(backend.scan("s", start, end, reverse=reverse))
    found: list[tuple[bytes, bytes]] = []
    after: bytes | None = None
    while True:
        reader = PagedReader(backend, after)
        rows = reader.scan("s", start, end, reverse=reverse)
        page = [row for row, _ in zip(rows, range(most), strict=False)]
        if not page:
            break
        found += page
        after = page[-1][0]
    assert found == whole
    assert list(PagedReader(backend).scan("s", start, end, reverse=reverse)) == whole


def test_a_page_of_large_rows_has_few_of_them() -> None:
    backend: Any = InMemoryBackend()
    backend.write({"s": {b"%d" % number: bytes(PAGE_BYTES // 2) for number in range(9)}}, {})
    assert len(backend.page("s", None, None, 100)) == 2
    assert len(list(PagedReader(backend).scan("s", None, None))) == 9
