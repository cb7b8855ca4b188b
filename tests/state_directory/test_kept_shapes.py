"""What rows look like is kept in their folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamlib.errors import StateStoreError
from streamlib.kept_shapes import FILE
from streamlib.serdes import serde_for
from streamlib.topology.nodes import StoreSpec
from tests.state_directory.test_state_directory import TASK, directory


class Total(msgspec.Struct):
    amount: float


class WithNote(msgspec.Struct):
    amount: float
    note: str = ""


class Renamed(msgspec.Struct):
    total: float


def opened(folder: Path, *stores: StoreSpec) -> None:
    with directory(folder) as here:
        here.open(TASK, stores).close()


def store(value: Any, name: str = "totals") -> StoreSpec:
    return StoreSpec(name=name, kind="key_value", key=serde_for(str), value=serde_for(value))


def test_a_changed_type_is_refused_with_store_field_and_what_to_do(tmp_path: Path) -> None:
    opened(tmp_path, store(Total))
    with pytest.raises(
        StateStoreError,
        match=r"store totals in .*0_3 .*field amount is not there any more; field total is new.*@upgrades",
    ):
        opened(tmp_path, store(Renamed))
    opened(tmp_path, store(Total))  # the folder is not held, and as it was


def test_a_compatible_change_passes_there_and_back(tmp_path: Path) -> None:
    for type_ in (Total, WithNote, Total):
        opened(tmp_path, store(type_))


def test_a_store_that_was_not_opened_meanwhile_is_remembered(tmp_path: Path) -> None:
    opened(tmp_path, store(Total))
    opened(tmp_path, store(int, "other"))
    with pytest.raises(StateStoreError, match="store totals"):
        opened(tmp_path, store(Renamed), store(int, "other"))


def test_rows_from_before_shapes_were_kept_are_taken_for_what_they_are_now(tmp_path: Path) -> None:
    opened(tmp_path, store(Total))
    (kept,) = tmp_path.rglob(FILE)
    kept.unlink()
    opened(tmp_path, store(Renamed))


def test_a_file_that_is_damaged_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    opened(tmp_path, store(Total))
    (kept,) = tmp_path.rglob(FILE)
    kept.write_text("{")
    with pytest.raises(StateStoreError, match=r"types\.json.*delete the folder"):
        opened(tmp_path, store(Total))
