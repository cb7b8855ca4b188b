"""What the workers' disks hold after they have stopped, read without streamlib."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from struct import Struct

import msgspec
from rocksdict import AccessType, Options, Rdict

STORES = ("counts", "words", "windows")

_POSITION = Struct(">q")
_OWN = 0x80  # keys of window stores from here on are not rows
_PREFIX = 8  # a segment in front of a window's key, a time in front of each value


class Stored(msgspec.Struct, frozen=True):
    """One store on one worker's disk: the changelog's rows below `position`, values without their times."""

    worker: str
    store: str
    partition: int
    position: int
    rows: dict[bytes, bytes]


def stored(worker: str, folder: Path) -> Iterator[Stored]:
    """The stores of all tasks in an application's folder."""
    for db in sorted(folder.glob("*_*/db")):
        partition = int(db.parent.name.partition("_")[2])
        families = [name for name in Rdict.list_cf(str(db)) if name != "default"]
        options = {name: Options(raw_mode=True) for name in families}
        database = Rdict(str(db), Options(raw_mode=True), options, AccessType.read_only())
        for name in families:
            store = name.removeprefix("store:")
            position = database.get(store.encode())
            if position is None:
                continue
            rows = _rows(database.get_column_family(name), segmented=store == "windows")
            yield Stored(worker, store, partition, _POSITION.unpack(position)[0], dict(rows))
        database.close()


def _rows(family: Rdict, *, segmented: bool) -> Iterator[tuple[bytes, bytes]]:
    for key, value in family.items():
        assert isinstance(key, bytes)
        if not segmented:
            yield key, value[_PREFIX:]
        elif key[0] < _OWN:
            yield key[_PREFIX:], value[_PREFIX:]
