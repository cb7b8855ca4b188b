"""Stores on disk: one RocksDB database per task, in its folder.

    <folder>/owner.lock     held while the database is open; names the process
    <folder>/db/            the database: a column family per store, positions in the default one

A commit is one write batch over all column families, so after a crash each store's content is what its position says.
The write-ahead log is on and not synced at each commit: what the kernel has survives the death of the process; after
the death of the machine the newest commits may be gone, whole ones, and are restored from the changelogs.

A restore in bulk goes past the write-ahead log. RocksDB flushes the memtables of all column families together then
(`atomic_flush`), so after a crash a store's content is still what its position says, only from earlier. Before the
first commit everything is flushed (`settle`): a log that goes on after something it does not have would be recovered
without it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from struct import Struct
from typing import cast
from weakref import WeakSet

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from streamlib.errors import StateStoreError
from streamlib.file_lock import FileLock
from streamlib.state.backend import up_to_a_page
from streamlib.topology.nodes import StoreSpec

OWNER_LOCK = "owner.lock"

DEFAULT_MEMORY_BYTES = 256 << 20
"""For all databases of the process together, see `_Memory`."""

ROW_OVERHEAD_BYTES = 150
"""About what a cached row costs beside its bytes."""

_FAMILY_PREFIX = "store:"  # keeps a store called "default" apart from RocksDB's default column family
_POSITION = Struct(">q")
_UNFLUSHED = ("rocksdb.num-entries-active-mem-table", "rocksdb.num-immutable-mem-table")
_TRIGGER = "trigger"
_SELDOM = 10  # a row in so many is not worth looking for
_ARENA_BLOCK_BYTES = 16 << 10
_TRIGGER_BYTES = 64 << 10  # RocksDB has no smaller memtables


class RocksDBBackend:
    """The stores of one task on disk (`streamlib.state.backend.Backend`).

    Raises:
        LockError: another process holds the folder; its process id is in the message.
        StateStoreError: the database cannot be opened.
    """

    def __init__(self, folder: Path, stores: Sequence[StoreSpec], *, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
        self._folder = folder
        self._lock = _take_lock(folder)
        try:
            self._memory = _memory(memory_bytes)
            self._db = _open(folder / "db", [spec.name for spec in stores], self._memory)
        except BaseException:
            self._lock.release()
            raise
        self._families = {spec.name: self._db.get_column_family(_family(spec.name)) for spec in stores}
        self._handles = {name: self._db.get_column_family_handle(_family(name)) for name in self._families}
        self._memory.open.add(self)
        self._rows_of = {name: _Rows(family, self._row_bytes) for name, family in self._families.items()}
        # Scans that somebody has not read to their end; an open iterator would keep the database open.
        self._scans: WeakSet[Generator[tuple[bytes, bytes], None, None]] = WeakSet()
        self._load_options, self._bulk_options = _load_options(bulk=False), _load_options(bulk=True)
        self._unsettled = False  # loaded past the write-ahead log, and maybe not flushed yet
        self._settling = False  # nothing has been loaded since the stores' flushes were begun
        self._closed = False

    def get(self, store: str, key: bytes) -> bytes | None:
        return self._rows_of[store].get(key)

    def prefetch(self, store: str, keys: Sequence[bytes]) -> None:
        self._rows_of[store].prefetch(keys)

    def scan(
        self, store: str, start: bytes | None, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        rows = self._rows(self._families[store], start, end, reverse)
        self._scans.add(rows)
        return rows

    def peek(self, store: str, key: bytes) -> bytes | None:
        return cast(bytes | None, self._families[store].get(key))

    def page(
        self, store: str, start: bytes | None, end: bytes | None, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        rows = self._rows(self._families[store], start, end, reverse)
        try:
            return up_to_a_page(rows, limit)
        finally:
            rows.close()  # in this thread, which has opened it

    def estimate(self, store: str) -> int:
        return self._families[store].property_int_value("rocksdb.estimate-num-keys") or 0

    def write(self, changes: Mapping[str, Mapping[bytes, bytes | None]], positions: Mapping[str, int]) -> None:
        assert not self._unsettled, "a write after bulk loads that are not settled"
        batch = WriteBatch(raw_mode=True)
        for store, changed in changes.items():
            batch.set_default_column_family(self._handles[store])
            put, delete = batch.put, batch.delete
            for key, value in changed.items():
                if value is None:
                    delete(key)
                else:
                    put(key, value)
        _put_positions(batch, positions)
        size_bytes = batch.size_in_bytes()
        self._write(batch)
        for store, changed in changes.items():
            self._rows_of[store].learn(changed, size_bytes // len(changes))

    def load(
        self, changes: Mapping[str, Mapping[bytes, bytes | None]], positions: Mapping[str, int], *, bulk: bool
    ) -> None:
        batch = WriteBatch(raw_mode=True)
        for store, changed in changes.items():
            batch.set_default_column_family(self._handles[store])
            put, delete = batch.put, batch.delete
            for key in sorted(changed):  # each then finds its place from the one before: half the cost
                value = changed[key]
                if value is None:
                    delete(key)
                else:
                    put(key, value)
        _put_positions(batch, positions)
        self._write(batch, self._bulk_options if bulk else self._load_options)
        self._unsettled, self._settling = self._unsettled or bulk, False
        for store in changes:
            self._rows_of[store].forget()

    def settle(self) -> bool:
        if not self._unsettled:
            return True
        if self._settling and self._db.property_int_value("rocksdb.background-errors"):
            raise StateStoreError(f"the database in {self._folder} cannot be written; is the disk full?")
        if not self._settling:
            self._flush_all()
            self._settling = True
        if any(
            family.property_int_value(kind) for family in (*self._families.values(), self._db) for kind in _UNFLUSHED
        ):
            return False
        self._unsettled = self._settling = False
        return True

    def _flush_all(self) -> None:
        """Begin to flush all column families as one.

        What can be called flushes one at a time: a crash in between would leave content and positions of different
        loads. But one memtable that is full takes the others with it, so there is a small one to be filled.
        """
        handle = self._db.get_column_family_handle(_TRIGGER)
        for value in (bytes(2 * _TRIGGER_BYTES), b""):  # that a memtable is full is looked at by the next write
            batch = WriteBatch(raw_mode=True)
            batch.put(b"", value, handle)
            self._db.write(batch, self._bulk_options)

    def _write(self, batch: WriteBatch, options: WriteOptions | None = None) -> None:
        try:
            self._db.write(batch, options)
        except Exception as error:
            raise StateStoreError(
                f"the database in {self._folder} cannot be written: {error}; is the disk full? What is committed and "
                "not in it is restored from the changelogs at the next start"
            ) from error

    def delete_range(self, store: str, start: bytes, end: bytes) -> None:
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(start, end, self._handles[store])
        self._write(batch)
        self._rows_of[store].forget_range(start, end)

    def positions(self) -> dict[str, int]:
        rows = {name.decode(): position for name, position in self._rows(self._db, None, None, False)}
        known = (name for name in rows if name.partition("/")[0] in self._families)
        return {name: _POSITION.unpack(rows[name])[0] for name in known}

    def clear(self, store: str) -> None:
        """Content and position go in one batch: rows without a position would survive a restore from the start."""
        batch = WriteBatch(raw_mode=True)
        handle = self._handles[store]
        last = next(self.scan(store, None, None, reverse=True), None)
        if last is not None:
            batch.delete_range(b"", last[0], handle)
            batch.delete(last[0], handle)
        batch.delete(store.encode())
        self._db.write(batch)
        self._rows_of[store].forget()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with suppress(StateStoreError):  # what cannot be written is restored again
            while not self.settle():  # closing flushes the column families one by one
                time.sleep(0.001)
        self._memory.open.discard(self)
        for scan in list(self._scans):
            scan.close()
        # Each of these references keeps the database open.
        self._rows_of.clear()
        self._handles.clear()
        for family in self._families.values():
            family.close()
        self._families.clear()
        self._db.close()
        self._lock.release()

    def _row_bytes(self) -> int:
        return self._memory.row_bytes() // max(len(self._families), 1)

    @staticmethod
    def _rows(
        family: Rdict, start: bytes | None, end: bytes | None, reverse: bool
    ) -> Generator[tuple[bytes, bytes], None, None]:
        rows = cast(Iterator[tuple[bytes, bytes]], family.items(backwards=reverse, from_key=end if reverse else start))
        try:
            for row in rows:
                key = row[0]
                if reverse:
                    if start is not None and key < start:
                        return
                    if key == end:
                        continue  # RocksDB begins at the bound itself, ours is exclusive
                elif end is not None and key >= end:
                    return
                yield row
        finally:
            del rows  # now, not when somebody collects the frame


def read_positions(folder: Path) -> dict[str, int]:
    """The positions in a folder that is not open, without changing anything.

    Raises:
        LockError: it is open.
        StateStoreError: the database cannot be read.
    """
    path = folder / "db"
    if not (path / "CURRENT").exists():
        return {}
    last_used = last_used_s(folder)
    lock = _take_lock(folder)
    try:
        families = {name: Options(raw_mode=True) for name in Rdict.list_cf(str(path))}
        db = Rdict(str(path), Options(raw_mode=True), column_families=families, access_type=AccessType.read_only())
        try:
            return {name.decode(): _POSITION.unpack(at)[0] for name, at in RocksDBBackend._rows(db, None, None, False)}
        finally:
            db.close()
    except Exception as error:
        raise StateStoreError(f"cannot read the database in {path}: {error}") from error
    finally:
        for file in _files(folder):  # looking is not using, or an old store would count as fresh
            os.utime(file, (last_used, last_used))
        lock.release(used=False)


def last_used_s(folder: Path) -> float:
    """When a folder's database was last written, or its lock last taken or given back; s since the epoch."""
    try:
        return max((file.stat().st_mtime for file in _files(folder)), default=0.0)
    except FileNotFoundError:  # another worker is about to remove it
        return 0.0


def _files(folder: Path) -> Sequence[Path]:
    return [*folder.glob("*"), *folder.glob("db/*")]


class _Rows:
    """Rows of one store as Python objects: what was committed or read lately (a hit costs 0.1 us, RocksDB 1.3 us).

    Two generations: when the young one has its bytes, it becomes the old one, and what nobody asked for since goes.
    Invariant: what is here is what the database holds.
    """

    __slots__ = ("_bytes", "_limit_bytes", "_misses", "_old", "_read", "_read_many", "_row_bytes", "_share", "_young")

    def __init__(self, family: Rdict, share: Callable[[], int]) -> None:
        self._read = cast(Callable[[bytes], bytes | None], family.get)
        self._read_many = cast(Callable[[list[bytes]], list[bytes | None]], family.get)
        self._share = share  # the bytes this store may keep; changes with the number of open databases
        self._limit_bytes = share() // 2  # of one generation
        self._young: dict[bytes, bytes | None] = {}
        self._old: dict[bytes, bytes | None] = {}
        self._bytes = 0  # of the young generation
        self._misses = 0  # of `get` since the last `prefetch`, or what that has read
        self._row_bytes = ROW_OVERHEAD_BYTES  # of those that were prefetched last, on average

    def get(self, key: bytes) -> bytes | None:
        young = self._young
        if key in young:
            return young[key]
        if key in self._old:
            row = self._old[key]
        else:
            row = self._read(key)
            self._misses += 1
        young[key] = row
        self._bytes += len(key) + len(row or b"") + ROW_OVERHEAD_BYTES
        if self._bytes > self._limit_bytes:
            self._make_room()
        return row

    def prefetch(self, keys: Sequence[bytes]) -> None:
        """Read what will be asked for and is not here, in one go (a third of the cost), as long as that is much of it.

        Where next to nothing is missing, looking for it would cost more than it saves.
        """
        misses, self._misses = self._misses, 0
        if misses * _SELDOM < len(keys):
            return
        young, old = self._young, self._old
        missing = [key for key in dict.fromkeys(keys) if key not in young and key not in old]
        missing = missing[: self._limit_bytes // self._row_bytes]  # more would push itself out again
        self._misses = len(missing)
        if not missing:
            return
        rows = self._read_many(missing)
        young.update(zip(missing, rows, strict=True))
        size = sum(map(len, missing)) + sum(len(row) for row in rows if row is not None)
        size += len(missing) * ROW_OVERHEAD_BYTES
        self._row_bytes = size // len(missing)
        self._bytes += size
        if self._bytes > self._limit_bytes:
            self._make_room()

    def learn(self, changed: Mapping[bytes, bytes | None], size_bytes: int) -> None:
        """Rows that were committed, `size_bytes` in all."""
        self._young.update(changed)
        self._bytes += size_bytes + len(changed) * ROW_OVERHEAD_BYTES
        if self._bytes > self._limit_bytes:
            self._make_room()

    def forget_range(self, start: bytes, end: bytes) -> None:
        """Rows that were deleted."""
        self._young = {key: row for key, row in self._young.items() if not start <= key < end}
        self._old = {key: row for key, row in self._old.items() if not start <= key < end}

    def forget(self) -> None:
        self._young = {}
        self._old = {}
        self._bytes = 0

    def _make_room(self) -> None:
        self._limit_bytes = self._share() // 2
        if self._bytes <= self._limit_bytes:
            return
        # One commit may bring more than all there is room for.
        self._old = self._young if self._bytes <= 2 * self._limit_bytes else {}
        self._young = {}
        self._bytes = 0


class _Memory:
    """What all databases of the process share: half of the memory for blocks that were read and for writes that are not
    on disk yet (RocksDB counts both against one cache), half for rows as Python objects."""

    def __init__(self, memory_bytes: int) -> None:
        self.blocks = Cache(memory_bytes // 2)
        self.writes = WriteBufferManager.new_write_buffer_manager_with_cache(memory_bytes // 4, False, self.blocks)
        self.write_buffer_bytes = max(min(memory_bytes // 16, 16 << 20), 1 << 20)
        self.open: WeakSet[RocksDBBackend] = WeakSet()
        self._row_bytes = memory_bytes // 2

    def row_bytes(self) -> int:
        """The share of one database that is open."""
        return self._row_bytes // max(len(self.open), 1)


@cache  # one per process: this is what makes the setting a bound on the process and not on each task
def _memory(memory_bytes: int) -> _Memory:
    return _Memory(memory_bytes)


def _take_lock(folder: Path) -> FileLock:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateStoreError(f"cannot create the state folder {folder}: {error.strerror}") from error
    return FileLock.take(folder / OWNER_LOCK)


def _open(path: Path, stores: Sequence[str], memory: _Memory) -> Rdict:
    # RocksDB wants every column family that exists to be opened, those of stores since removed too.
    existing = Rdict.list_cf(str(path)) if (path / "CURRENT").exists() else []
    families = {name for name in existing if name != "default"} | {_family(store) for store in stores}
    options = {name: _options(memory) for name in sorted(families)}
    options[_TRIGGER] = _options(memory)
    options[_TRIGGER].set_write_buffer_size(_TRIGGER_BYTES)
    try:
        return Rdict(str(path), _options(memory), column_families=options)
    except Exception as error:
        raise StateStoreError(
            f"cannot open the database in {path}: {error}; if it is damaged, delete the folder: "
            "its stores are rebuilt from their changelogs"
        ) from error


def _options(memory: _Memory) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_atomic_flush(True)
    # A restore writes faster than one flush at a time: the next memtables wait in line, not the event loop.
    options.set_max_write_buffer_number(4)
    options.set_level_zero_slowdown_writes_trigger(60)
    options.set_level_zero_stop_writes_trigger(100)
    options.set_write_buffer_manager(memory.writes)
    options.set_write_buffer_size(memory.write_buffer_bytes)
    # Of each memtable at least one block counts against what all may hold. With RocksDB's own, an eighth of a memtable,
    # 48 databases were above that with next to nothing in them, and each write was flushed: 3 ms instead of 0.1.
    options.set_arena_block_size(_ARENA_BLOCK_BYTES)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_keep_log_file_num(2)
    options.set_max_background_jobs(2)
    options.set_block_based_table_factory(_table(memory))
    return options


def _load_options(*, bulk: bool) -> WriteOptions:
    options = WriteOptions()
    options.disable_wal = bulk  # type: ignore[method-assign, assignment]  # a property, whatever the stub says
    options.memtable_insert_hint_per_batch = True
    return options


def _put_positions(batch: WriteBatch, positions: Mapping[str, int]) -> None:
    batch.set_default_column_family(None)
    for store, position in positions.items():
        batch.put(store.encode(), _POSITION.pack(position))


def _table(memory: _Memory) -> BlockBasedOptions:
    table = BlockBasedOptions()
    table.set_block_cache(memory.blocks)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_bloom_filter(10, False)
    return table


def _family(store: str) -> str:
    return f"{_FAMILY_PREFIX}{store}"
