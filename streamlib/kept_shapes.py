"""What rows in a folder look like: `types.json` beside the database, for the next program that opens it.

It says what was written, not what is there: rows that were restored have been looked at one by one (`engine/task.py`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from streamlib.errors import StateStoreError
from streamlib.state.shapes import StoreShape
from streamlib.topology.nodes import StoreSpec

FILE = "types.json"

# Here, not where it is used: msgspec 0.22 crashes where two threads are the first to read a type.
_SHAPES = msgspec.json.Decoder(dict[str, StoreShape])


def check_shapes(folder: Path, stores: Sequence[StoreSpec]) -> None:
    """See that the stores read what is in the folder, then note what they will write. Whoever calls holds its lock.

    Raises:
        StateStoreError: there are rows that a store cannot read, or the note cannot be read or written.
    """
    path = folder / FILE
    kept = _read(path)
    for spec in stores:
        if spec.name in kept and (problems := kept[spec.name].problems(spec)):
            raise StateStoreError(
                f"store {spec.name} in {folder} has rows that this program does not read: {'; '.join(problems)}: "
                "declare how older values are upgraded, @upgrades(...), or keep the new ones in a store of another "
                "name. If no such row is left, delete the folder: the rows are restored from the changelog, and looked "
                "at"
            )
    now = {spec.name: kept.get(spec.name, StoreShape()).with_rows_of(spec) for spec in stores}
    if kept | now != kept:
        _write(path, kept | now)


def _read(path: Path) -> dict[str, StoreShape]:
    try:
        return _SHAPES.decode(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        raise StateStoreError(
            f"cannot read {path}: {error}; delete the folder, its stores are restored from their changelogs"
        ) from error


def _write(path: Path, shapes: dict[str, StoreShape]) -> None:
    """All or nothing: a process may be killed at any moment."""
    fresh = path.with_suffix(".new")
    try:
        fresh.write_bytes(msgspec.json.encode(shapes))
        os.replace(fresh, path)
    except OSError as error:
        raise StateStoreError(f"cannot write {path}: {error}") from error
