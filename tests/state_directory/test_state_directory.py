"""Slots, folders and ages."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamlib.config import StreamsConfig
from streamlib.errors import LockError, StateStoreError
from streamlib.records import TaskId
from streamlib.rocksdb import last_used_s
from streamlib.serdes import serde_for
from streamlib.state_directory import LocalStateDirectory
from streamlib.topology.nodes import StoreSpec

TASK = TaskId(0, 3)
KEPT = StoreSpec(name="kept", kind="key_value", key=serde_for(str), value=serde_for(str))
FLEETING = StoreSpec(name="fleeting", kind="key_value", key=serde_for(str), value=serde_for(str), persistent=False)


def directory(folder: Path, instance_id: str | None = None) -> LocalStateDirectory:
    return LocalStateDirectory(
        StreamsConfig(application_id="app", state_dir=str(folder), group_instance_id=instance_id)
    )


def make_old(folder: Path, hours: float) -> None:
    then = time.time() - hours * 3600
    for file in folder.rglob("*"):
        os.utime(file, (then, then))


def test_an_identity_outlives_its_worker_and_is_not_shared(tmp_path: Path) -> None:
    with directory(tmp_path) as first, directory(tmp_path) as second:
        identities = {first.identity, second.identity}
        assert len(identities) == 2
    with directory(tmp_path) as again:
        assert again.identity in identities


def test_a_static_member_is_called_by_its_id_and_there_is_one(tmp_path: Path) -> None:
    with directory(tmp_path, "w1") as first:
        assert first.identity == "w1"
        with pytest.raises(LockError, match=rf"held by process {os.getpid()}"):
            directory(tmp_path, "w1").__enter__()


def test_stores_are_found_again(tmp_path: Path) -> None:
    with directory(tmp_path) as here:
        backend = here.open(TASK, [KEPT, FLEETING])
        backend.write({"kept": {b"a": b"1"}, "fleeting": {b"a": b"2"}}, {"kept": 7, "fleeting": 8})
        backend.close()
        assert here.stored_positions().keys() == {TASK}
        again = here.open(TASK, [KEPT, FLEETING])
        assert (again.get("kept", b"a"), again.get("fleeting", b"a")) == (b"1", None)
        assert again.positions() == {"kept": 7}
        again.close()


def test_a_task_without_stores_on_disk_leaves_nothing_there(tmp_path: Path) -> None:
    with directory(tmp_path) as here:
        here.open(TASK, [FLEETING]).close()
        assert here.stored_positions() == {}


def test_a_copy_aside_is_apart(tmp_path: Path) -> None:
    with directory(tmp_path) as here:
        usual, aside = here.open(TASK, [KEPT]), here.open(TASK, [KEPT], aside=True)
        usual.write({"kept": {b"a": b"1"}}, {"kept": 7})
        assert aside.positions() == {}
        usual.close()
        assert here.stored_positions() == {TASK: {"kept": 7}}
        aside.close()


@pytest.mark.parametrize(("hours", "kept"), [(22, True), (24, False)])
def test_stores_that_nobody_held_for_a_day_are_built_anew(tmp_path: Path, hours: float, kept: bool) -> None:
    """Deletes that they have not seen may be gone from the changelog (delete.retention.ms)."""
    with directory(tmp_path) as here:
        backend = here.open(TASK, [KEPT])
        backend.write({"kept": {b"a": b"1"}}, {"kept": 7})
        backend.close()
        make_old(tmp_path / "app" / "0_3", hours)
        again = here.open(TASK, [KEPT])
        assert again.positions() == ({"kept": 7} if kept else {})
        again.close()


@pytest.mark.parametrize(("hours", "kept"), [(22, True), (24, False)])
def test_looking_how_far_stores_are_does_not_make_them_younger(tmp_path: Path, hours: float, kept: bool) -> None:
    """Each worker looks when it joins, whether it gets their tasks or not."""
    with directory(tmp_path) as here:
        backend = here.open(TASK, [KEPT])
        backend.write({"kept": {b"a": b"1"}}, {"kept": 7})
        backend.close()
    folder = tmp_path / "app" / "0_3"
    make_old(folder, hours)
    with directory(tmp_path) as here:
        assert here.stored_positions().get(TASK) == ({"kept": 7} if kept else {})
    assert time.time() - last_used_s(folder) > hours * 3600
    with directory(tmp_path) as here:
        again = here.open(TASK, [KEPT])
        assert again.positions() == ({"kept": 7} if kept else {})
        again.close()


def test_old_copies_aside_are_removed_when_a_worker_starts(tmp_path: Path) -> None:
    with directory(tmp_path) as here:
        here.open(TASK, [KEPT], aside=True).close()
        [aside] = (tmp_path / "app").glob("*.aside-*")
        make_old(aside, 24)
        with directory(tmp_path):
            assert not aside.exists()


def test_stores_in_use_are_never_old(tmp_path: Path) -> None:
    script = (
        "from tests.state_directory.test_state_directory import *; import sys\n"
        "here = directory(Path(sys.argv[1])); here.__enter__(); here.open(TASK, [KEPT]); print('open', flush=True)\n"
        "sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    make_old(tmp_path / "app" / "0_3", 24)
    with directory(tmp_path) as here, pytest.raises(LockError, match=rf"held by process {holder.pid}"):
        here.open(TASK, [KEPT])
    holder.communicate("")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateStoreError, match=r"file/app.*another state_dir"):
        directory(tmp_path / "file").__enter__()
