"""Versioned stores against a model that keeps every version in a list."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlib.errors import StateStoreError
from streamlib.rocksdb import RocksDBBackend
from streamlib.serdes import serde_for
from streamlib.state.backend import Backend
from streamlib.state.memory import InMemoryBackend
from streamlib.state.overlay import Overlay
from streamlib.state.stores import restored_rows
from streamlib.state.versioned import VersionedKeyValueStore, VersionedRecord, VersionedRows
from streamlib.topology.nodes import VersionedStoreSpec
from tests.engine.support import Fetched

MINUTE = 60_000
KEYS = ["a", "aa", "b"]


def spec_of(history_ms: int) -> VersionedStoreSpec:
    return VersionedStoreSpec(name="v", key=serde_for(str), value=serde_for(str), history_retention_ms=history_ms)


class NoClock:
    timestamp = 0


class Opened:
    """A store on a backend that can be committed, closed, opened again, and restored from its changelog."""

    def __init__(self, history_ms: int) -> None:
        self.spec = spec_of(history_ms)
        self.backend: Backend = InMemoryBackend()
        self.changelog: list[Fetched] = []
        self.open()

    def open(self) -> None:
        self.overlay = Overlay("v", self.backend)
        self.rows = VersionedRows(self.spec, self.overlay)
        self.store: VersionedKeyValueStore[str, str] = VersionedKeyValueStore(self.rows, NoClock())

    def commit(self) -> None:
        for key, value, timestamp, _ in self.rows.changelog_records():
            self.changelog.append(Fetched(len(self.changelog), timestamp, key, value))
        self.backend.write({"v": self.overlay.changes}, {})
        self.overlay.clear()
        for start, end in self.rows.expired():
            self.backend.delete_range("v", start, end)

    def restore(self, batch_size: int) -> None:
        self.backend = InMemoryBackend()
        for start in range(0, len(self.changelog), batch_size):
            records = self.changelog[start : start + batch_size]
            rows = restored_rows(self.spec, records, lambda key: self.backend.get("v", key))
            self.backend.write({"v": rows}, {})
        self.open()

    def compact(self) -> None:
        """Only the last record of each key is left."""
        last = {record.key: record for record in self.changelog}
        self.changelog = [record for record in self.changelog if last[record.key] is record]


class Model:
    """Every version there ever was.

    One thing is not plain: a newest version that comes after nothing, or after a delete that was the newest when it was
    put, is taken back by a delete of the same time.
    """

    def __init__(self, history_ms: int) -> None:
        self.history_ms = history_ms
        self.observed = -1
        self.versions: dict[str, dict[int, str | None]] = {key: {} for key in KEYS}
        self.alone = dict.fromkeys(KEYS, True)  # whether nothing, or only a delete, comes before the newest version

    @property
    def oldest(self) -> int:
        return max(0, self.observed - self.history_ms)

    def put(self, key: str, value: str | None, time: int) -> int:
        if time < self.observed - self.history_ms:
            return -(1 << 63)
        self.observed = max(self.observed, time)
        versions, newest = self.versions[key], max(self.versions[key], default=-1)
        if time > newest:
            self.alone[key] = versions.get(newest) is None
        elif time == newest:
            if value is None and versions[time] is not None and self.alone[key]:
                del versions[time]
                return -1
            self.alone[key] = self.alone[key] and versions[time] is not None
        elif not any(time < later < newest for later in versions):
            self.alone[key] = False
        versions[time] = value
        return min((later for later in self.versions[key] if later > time), default=-1)

    def get(self, key: str, time: int) -> VersionedRecord[str] | None:
        began = max((each for each in self.versions[key] if each <= time), default=None)
        if began is None:
            return None
        ended = min((each for each in self.versions[key] if each > began), default=None)
        value = self.versions[key][began]
        if value is None or (ended is not None and time < self.oldest):
            return None
        return VersionedRecord(value, began, ended)

    def newest(self, key: str) -> VersionedRecord[str] | None:
        return self.get(key, 1 << 62)

    def delete(self, key: str, time: int) -> VersionedRecord[str] | None:
        if time < self.observed - self.history_ms:
            return None
        before = self.get(key, time)
        self.put(key, None, time)
        return before

    def history(self, key: str, first: int, last: int) -> list[VersionedRecord[str | None]]:
        if first > last:
            return []
        first = max(first, self.oldest)
        times = sorted(self.versions[key])
        found = [
            VersionedRecord(self.versions[key][time], time, ended)
            for time, ended in zip(times, [*times[1:], None], strict=bool(times))
            if time <= last and (ended is None or (ended > first and first <= last))
        ]
        return found[1:] if found and found[0].value is None and found[0].timestamp <= first else found


class Write(NamedTuple):
    key: str
    value: str | None
    back_ms: int
    delete: bool
    commit: bool


WRITES = st.lists(
    st.builds(
        Write,
        st.sampled_from(KEYS),
        st.none() | st.sampled_from(["", "x", "y"]),
        st.integers(-2 * MINUTE, 3 * MINUTE).map(lambda ms: ms // 7000 * 7000),
        st.booleans(),
        st.booleans(),
    ),
    max_size=40,
)


@pytest.mark.parametrize("history_ms", [0, 50_000, 3 * MINUTE])
@pytest.mark.parametrize("end", ["open", "reopened", "restored", "restored record by record"])
@settings(max_examples=60)
@given(writes=WRITES)
def test_it_reads_as_the_list_of_its_versions(history_ms: int, end: str, writes: list[Write]) -> None:
    opened, model, now = Opened(history_ms), Model(history_ms), 0
    for write in writes:
        time = max(0, now - write.back_ms)
        now = max(now, time)
        if write.delete:
            assert opened.store.delete(write.key, time) == model.delete(write.key, time)
        else:
            assert opened.store.put(write.key, write.value, time) == model.put(write.key, write.value, time)
        if write.commit:
            opened.commit()
    if end != "open":
        opened.commit()
    if end == "reopened":
        opened.open()
    elif end != "open":
        opened.restore(1 if end.endswith("record") else 7)
    check(opened.store, model, now)


def check(store: VersionedKeyValueStore[str, str], model: Model, now: int) -> None:
    times = sorted({0, now, now + 1, model.oldest, *range(0, now + MINUTE, 3500)})
    for key in KEYS:
        assert store.get(key) == model.newest(key)
        for time in times:
            assert store.get(key, time) == model.get(key, time), (key, time)
        for first in times[::5]:
            for last in times[::4]:
                assert list(store.history(key, first, last)) == model.history(key, first, last), (key, first, last)
    assert [key for key, _ in store.all()] == [key for key in sorted(KEYS) if model.newest(key) is not None]


@settings(max_examples=60)
@given(writes=WRITES)
def test_the_newest_version_survives_compaction(writes: list[Write]) -> None:
    opened, model, now = Opened(MINUTE), Model(MINUTE), 0
    for write in writes:
        time = max(0, now - write.back_ms)
        now = max(now, time)
        opened.store.put(write.key, write.value, time)
        model.put(write.key, write.value, time)
        if write.commit:
            opened.commit()
    opened.commit()
    opened.compact()
    opened.restore(5)
    for key in KEYS:
        assert opened.store.get(key) == model.newest(key)


def test_it_reads_the_same_from_disk(tmp_path: Path) -> None:
    opened, model, random = Opened(MINUTE), Model(MINUTE), Random(1)
    opened.backend = RocksDBBackend(tmp_path, [opened.spec])
    opened.open()
    for now in range(0, 10 * MINUTE, 2000):
        key, value, time = (
            random.choice(KEYS),
            random.choice([None, "", "x", "y"]),
            max(0, now - random.randrange(50_000)),
        )
        assert opened.store.put(key, value, time) == model.put(key, value, time)
        if random.random() < 0.2:
            opened.commit()
        if random.random() < 0.05:
            opened.commit()
            opened.backend.close()
            opened.backend = RocksDBBackend(tmp_path, [opened.spec])
            opened.open()
    check(opened.store, model, 10 * MINUTE)
    opened.backend.close()


def test_what_is_put_is_logged_in_order_and_the_newest_once_more_after_a_late_one() -> None:
    opened = Opened(MINUTE)
    opened.store.put("a", "one", 1000)
    opened.store.put("a", "two", 2000)
    opened.store.put("a", None, 1500)
    opened.store.put("b", "x", 1700)
    assert [record[:3] for record in opened.rows.changelog_records()] == [
        (b"a", b"one", 1000),
        (b"a", b"two", 2000),
        (b"a", None, 1500),
        (b"a", b"two", 2000),
        (b"b", b"x", 1700),
    ]
    assert opened.rows.changelog_records() == []


def test_several_values_for_one_version_are_one_changelog_record() -> None:
    opened = Opened(MINUTE)
    for value in ("one", "two", None, "three", "four"):
        opened.store.put("a", value, 1000)
    assert [record[1] for record in opened.rows.changelog_records()] == [b"two", None, b"four"]


def test_a_delete_takes_a_version_of_the_same_time_back_that_follows_on_nothing() -> None:
    store = Opened(MINUTE).store
    assert (store.put("a", "x", 3000), store.put("a", None, 3000)) == (-1, -1)
    assert store.put("a", "earlier", 2000) == -1
    assert store.get("a") == VersionedRecord("earlier", 2000)
    assert (store.put("a", "y", 3000), store.put("a", None, 3000)) == (-1, -1)
    assert store.put("a", "between", 2500) == 3000
    assert store.get("a") is None


def test_a_changelog_of_kafka_streams_has_versions_that_were_refused() -> None:
    opened = Opened(1000)
    opened.changelog = [Fetched(0, 5000, b"a", b"x"), Fetched(1, 3000, b"b", b"too old"), Fetched(2, 4000, b"b", b"y")]
    opened.restore(10)
    assert [(key, version.value) for key, version in opened.store.all()] == [("a", "x"), ("b", "y")]


def test_what_cannot_be_seen_any_more_is_removed_by_and_by() -> None:
    opened = Opened(MINUTE)
    for number in range(60):
        opened.store.put("a", str(number), number * 10_000)
        opened.store.put(f"gone {number}", "x", number * 10_000)
        opened.store.delete(f"gone {number}", number * 10_000 + 1)
        opened.commit()
    left = list(opened.backend.scan("v", None, None))
    assert len(left) < 60, left
    assert opened.store.get("a", opened.rows.oldest_visible) == VersionedRecord("53", 530_000, 540_000)
    opened.store.put("a", "much later", 100 * MINUTE)
    opened.commit()
    assert [key for key, _ in opened.backend.scan("v", None, None)] == [
        b"\x00a",
        b"\x01" + (100).to_bytes(8) + (1).to_bytes(4) + b"a" + (590_000).to_bytes(8),
        b"\xff",
    ]


def test_a_version_is_not_from_before_1970() -> None:
    with pytest.raises(StateStoreError, match="store v: a version cannot be from -1 ms"):
        Opened(MINUTE).store.put("a", "x", -1)


def test_the_changelog_topic_keeps_all_versions_for_the_history_and_a_day() -> None:
    assert spec_of(MINUTE).topic_config == {
        "cleanup.policy": "compact",
        "min.compaction.lag.ms": str(86_400_000 + MINUTE),
    }
