"""Both backends do the same, and RocksDB survives its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlib.errors import LockError
from streamlib.rocksdb import RocksDBBackend
from streamlib.serdes import serde_for
from streamlib.state.backend import Backend
from streamlib.state.memory import InMemoryBackend
from streamlib.state.split import SplitBackend
from streamlib.topology.nodes import StoreSpec

STORES = [
    StoreSpec(name=name, kind="key_value", key=serde_for(bytes), value=serde_for(bytes)) for name in ("one", "default")
]
NAMES = st.sampled_from([spec.name for spec in STORES])
KEYS = st.binary(max_size=2)
WRITES = st.lists(
    st.tuples(
        st.dictionaries(NAMES, st.dictionaries(KEYS, st.none() | st.binary(max_size=3))),
        st.dictionaries(NAMES, st.integers(0, 99)),
    ),
    max_size=6,
)


@contextmanager
def rocksdb() -> Iterator[tuple[Path, RocksDBBackend]]:
    with tempfile.TemporaryDirectory() as folder:
        backend = RocksDBBackend(Path(folder), STORES)
        try:
            yield Path(folder), backend
        finally:
            backend.close()


def content(backend: Backend) -> dict[str, list[tuple[bytes, bytes]]]:
    return {spec.name: list(backend.scan(spec.name, None, None)) for spec in STORES}


@settings(max_examples=60, deadline=None)
@given(WRITES, st.none() | KEYS, st.none() | KEYS, st.booleans(), st.none() | NAMES)
def test_both_backends_are_equal(
    writes: list[tuple[dict[str, dict[bytes, bytes | None]], dict[str, int]]],
    start: bytes | None,
    end: bytes | None,
    reverse: bool,
    cleared: str | None,
) -> None:
    memory = InMemoryBackend()
    with rocksdb() as (_, disk):
        for changes, positions in writes:
            memory.write(changes, positions)
            disk.write(changes, positions)
            for store, changed in changes.items():
                assert [disk.get(store, key) for key in changed] == [memory.get(store, key) for key in changed]
        if cleared is not None:
            memory.clear(cleared)
            disk.clear(cleared)
        assert content(disk) == content(memory)
        assert disk.positions() == memory.positions()
        for spec in STORES:
            rows = list(disk.scan(spec.name, start, end, reverse=reverse))
            assert rows == list(memory.scan(spec.name, start, end, reverse=reverse))
            for backend in (memory, disk):
                assert backend.page(spec.name, start, end, 3, reverse=reverse) == rows[:3]
                assert all(backend.peek(spec.name, key) == row for key, row in rows)
                assert backend.peek(spec.name, b"not there") is None
            assert all(disk.get(spec.name, key) == row for key, row in content(memory)[spec.name])


@settings(max_examples=60, deadline=None)
@given(WRITES, NAMES)
def test_stores_in_memory_and_on_disk_side_by_side_are_as_in_one_place(
    writes: list[tuple[dict[str, dict[bytes, bytes | None]], dict[str, int]]], in_memory: str
) -> None:
    whole, disk = InMemoryBackend(), InMemoryBackend()
    split = SplitBackend(disk, frozenset({in_memory}))
    for changes, positions in writes:
        whole.write(changes, positions)
        split.write(changes, positions)
    assert content(split) == content(whole)
    assert split.positions() == whole.positions()
    assert in_memory not in disk.positions()
    assert not list(disk.scan(in_memory, None, None))
    split.clear(in_memory)
    assert not list(split.scan(in_memory, None, None))


@settings(max_examples=15, deadline=None)
@given(WRITES)
def test_a_reopened_database_is_as_it_was(
    writes: list[tuple[dict[str, dict[bytes, bytes | None]], dict[str, int]]],
) -> None:
    with rocksdb() as (folder, backend):
        for changes, positions in writes:
            backend.write(changes, positions)
        before = content(backend), backend.positions()
        backend.close()
        again = RocksDBBackend(folder, STORES)
        assert (content(again), again.positions()) == before
        again.close()


def test_rows_larger_than_the_memory_are_still_read_right() -> None:
    with tempfile.TemporaryDirectory() as folder:
        backend = RocksDBBackend(Path(folder), STORES, memory_bytes=1 << 20)
        for start in range(0, 2000, 100):
            backend.write({"one": {b"%d" % n: b"%d" % n * 200 for n in range(start, start + 100)}}, {})
        for _ in range(2):
            assert all(backend.get("one", b"%d" % n) == b"%d" % n * 200 for n in range(2000))
        backend.write({"one": {b"7": None}}, {})
        assert backend.get("one", b"7") is None
        backend.close()


def test_many_databases_with_little_in_them_are_not_flushed_at_each_write() -> None:
    """All memtables of a process share one bound, and each takes some of it however little is in it."""
    with tempfile.TemporaryDirectory() as folder:
        backends = [RocksDBBackend(Path(folder) / str(number), STORES) for number in range(120)]
        try:
            for position in range(3):
                for backend in backends:
                    backend.write({"one": {b"%d" % number: bytes(10) for number in range(100)}}, {"one": position})
            assert not list(Path(folder).glob("*/db/*.sst"))
        finally:
            for backend in backends:
                backend.close()


def test_a_scan_that_was_not_read_to_its_end_does_not_keep_the_database_open() -> None:
    with rocksdb() as (folder, backend):
        backend.write({"one": {b"a": b"1", b"b": b"2"}}, {})
        scan = backend.scan("one", None, None)
        assert next(scan) == (b"a", b"1")
        backend.close()
        RocksDBBackend(folder, STORES).close()
        assert list(scan) == []


def test_a_store_that_left_the_topology_does_not_hinder_opening() -> None:
    with rocksdb() as (folder, backend):
        backend.write({"one": {b"a": b"1"}}, {"one": 1})
        backend.close()
        fewer = RocksDBBackend(folder, STORES[1:])
        assert fewer.positions() == {}
        fewer.close()
        again = RocksDBBackend(folder, STORES)
        assert again.get("one", b"a") == b"1"
        again.close()


def test_a_second_process_is_told_who_holds_the_folder() -> None:
    program = """
import sys
from pathlib import Path
from streamlib.errors import LockError
from streamlib.rocksdb import RocksDBBackend
try:
    RocksDBBackend(Path(sys.argv[1]), [])
except LockError as error:
    print(error)
"""
    with rocksdb() as (folder, _):
        said = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
        assert f"held by process {os.getpid()}" in said.stdout
        with pytest.raises(LockError):
            RocksDBBackend(folder, STORES)


WRITER = """
import sys
from pathlib import Path
from streamlib.rocksdb import RocksDBBackend
from tests.state.test_backends import STORES
backend = RocksDBBackend(Path(sys.argv[1]), STORES)
start = backend.positions().get("one", 0)
for n in range(start + 1, start + 1_000_000):
    row = b"%d" % n
    backend.write({"one": {b"k%d" % i: row for i in range(20)}, "default": {b"last": row}}, {"one": n, "default": n})
    if n == start + 50:
        print("writing", flush=True)
"""


def test_content_is_what_the_position_says_after_kill_9() -> None:
    with tempfile.TemporaryDirectory() as folder:
        position = 0
        for _ in range(3):
            writer = subprocess.Popen(
                [sys.executable, "-c", WRITER, folder], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
            )
            assert writer.stdout is not None
            with writer.stdout:
                assert writer.stdout.readline() == "writing\n"
                writer.send_signal(signal.SIGKILL)
            writer.wait()
            backend = RocksDBBackend(Path(folder), STORES)
            assert backend.positions()["one"] == backend.positions()["default"] >= position + 50
            position = backend.positions()["one"]
            row = b"%d" % position
            assert {value for _, value in backend.scan("one", None, None)} == {row}
            assert len(list(backend.scan("one", None, None))) == 20
            assert backend.get("default", b"last") == row
            backend.close()


@settings(max_examples=15, deadline=None)
@given(WRITES, st.lists(st.booleans(), min_size=6, max_size=6))
def test_what_is_loaded_is_as_what_is_written(
    writes: list[tuple[dict[str, dict[bytes, bytes | None]], dict[str, int]]], bulk: list[bool]
) -> None:
    memory = InMemoryBackend()
    with rocksdb() as (folder, disk):
        for (changes, positions), in_bulk in zip(writes, bulk, strict=False):
            memory.write(changes, positions)
            disk.load(changes, positions, bulk=in_bulk)
            for store, changed in changes.items():
                assert [disk.get(store, key) for key in changed] == [memory.get(store, key) for key in changed]
        assert (content(disk), disk.positions()) == (content(memory), memory.positions())
        until_settled(disk)
        disk.close()
        again = RocksDBBackend(folder, STORES)
        assert (content(again), again.positions()) == (content(memory), memory.positions())
        again.close()


def until_settled(backend: RocksDBBackend) -> None:
    deadline = time.monotonic() + 30
    while not backend.settle():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_nothing_is_committed_before_a_bulk_load_is_settled() -> None:
    """The log would be recovered after a crash without what went past it."""
    with rocksdb() as (_, backend):
        backend.load({"one": {b"a": b"1"}}, {"one": 1}, bulk=True)
        with pytest.raises(AssertionError, match="not settled"):
            backend.write({"one": {b"a": b"2"}}, {"one": 2})
        until_settled(backend)
        backend.write({"one": {b"a": b"2"}}, {"one": 2})
        assert backend.settle()


LOADER = """
import os
import signal
import sys
import time
from pathlib import Path
from streamlib.rocksdb import RocksDBBackend
from tests.state.test_backends import STORES, until_settled
backend = RocksDBBackend(Path(sys.argv[1]), STORES, memory_bytes=16 << 20)
start = backend.positions().get("one", 0)
for n in range(start + 1, start + 4_001):
    rows = {b"%08d-%d" % (n, i): b"%d" % n * 20 for i in range(20)}
    backend.load({"one": rows, "default": {b"last": b"%d" % n}}, {"one": n, "default": n}, bulk=True)
if sys.argv[2] == "settling":
    backend.settle()
    time.sleep(os.getpid() % 7 / 1000)
if sys.argv[2] == "settled":
    until_settled(backend)
    backend.write({"default": {b"last": b"committed"}}, {"default": n + 1})
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_loader(folder: str, when: str) -> None:
    program = [sys.executable, "-c", LOADER, folder, when]
    loader = subprocess.run(program, cwd=Path(__file__).parents[2], check=False, capture_output=True, text=True)
    assert loader.returncode == -signal.SIGKILL, loader.stderr


def test_content_is_what_the_position_says_after_kill_9_in_a_bulk_load() -> None:
    """Past the log the latest loads are lost, but of all stores the same, and with their positions."""
    with tempfile.TemporaryDirectory() as folder:
        position = 0
        for when in ("loading", "settling", "loading", "settling"):
            killed_loader(folder, when)
            backend = RocksDBBackend(Path(folder), STORES)
            assert position < backend.positions()["one"] == backend.positions()["default"] <= position + 4_000
            assert when == "settling" or backend.positions()["one"] < position + 4_000
            position = backend.positions()["one"]
            assert backend.get("default", b"last") == b"%d" % position
            keys = [key for key, _ in backend.scan("one", None, None)]
            assert keys[-20:] == sorted(b"%08d-%d" % (position, i) for i in range(20))
            assert len(keys) == 20 * position
            backend.close()


def test_a_settled_bulk_load_and_the_commits_after_it_survive_kill_9() -> None:
    with tempfile.TemporaryDirectory() as folder:
        killed_loader(folder, "settled")
        backend = RocksDBBackend(Path(folder), STORES)
        assert backend.positions() == {"one": 4_000, "default": 4_001}
        assert backend.get("default", b"last") == b"committed"
        assert sum(1 for _ in backend.scan("one", None, None)) == 80_000
        backend.close()


FULL_DISK = """
import resource, sys
from pathlib import Path
from streamlib.errors import StateStoreError
from tests.state.test_backends import STORES
from streamlib.rocksdb import RocksDBBackend

backend = RocksDBBackend(Path(sys.argv[1]), STORES)
backend.write({"one": {b"before": b"1"}}, {"one": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # files end there, as they do on a disk that is full
try:
    backend.write({"one": {b"after": b"2" * (2 << 20)}}, {"one": 2})
except StateStoreError as error:
    print(error)
"""


def test_disk_that_is_full_is_said_with_the_folder_and_nothing_of_it_is_there(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert f"the database in {tmp_path} cannot be written" in ran.stdout
    assert "is the disk full?" in ran.stdout
    backend = RocksDBBackend(tmp_path, STORES)
    try:
        assert content(backend)["one"] == [(b"before", b"1")]
        assert backend.positions() == {"one": 1}
    finally:
        backend.close()
