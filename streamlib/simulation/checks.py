"""What has to hold at the end of a run of any topology, told from plain data: offsets, records, rows.

Each check says in words what is wrong, and nothing if all is well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec

from streamlib.records import OutRecord, TaskId, TopicPartition
from streamlib.simulation.differences import Row, in_any_order, in_order
from streamlib.state.codec import unpack_timestamp
from streamlib.state.memory import InMemoryBackend
from streamlib.state.overlay import Overlay
from streamlib.state.rows import LOCAL
from streamlib.state.segments import META, unpack_time
from streamlib.state.session import SPAN_BYTES, unpack_span
from streamlib.state.stores import restored_rows
from streamlib.state.versioned import NEWEST, VersionedRows
from streamlib.state.window import PLACE_BYTES, unpack_place
from streamlib.topology.nodes import (
    BufferStoreSpec,
    LruStoreSpec,
    RetainedStoreSpec,
    SessionStoreSpec,
    StoreSpec,
    TtlStoreSpec,
    VersionedStoreSpec,
)
from streamlib.windows import END_OF_TIME_MS

Logs: TypeAlias = Mapping[TopicPartition, Sequence[tuple[int, OutRecord]]]
"""Offsets and records of committed transactions, in order."""


def drained(committed: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> list[str]:
    """Whether a group has processed all there is.

    Args:
        committed: the group's offsets; a partition from which nothing was read may be missing.
        ends: the offsets after the last record, control markers included, of all partitions it should have read.

    >>> partition = TopicPartition("orders", 0)
    >>> drained({partition: 3}, {partition: 5})
    ['topic orders, partition 0: the group has committed offset 3, the end is 5']
    """
    return [
        f"topic {partition.topic}, partition {partition.partition}: the group has committed "
        f"{'nothing' if at is None else f'offset {at}'}, the end is {end}"
        for partition, end in sorted(ends.items())
        if (at := committed.get(partition)) != end and (at is not None or end > 0)
    ]


def no_hanging_transaction(stable_ends: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> list[str]:
    """Whether all transactions have come to an end. One that has not keeps readers back for ever.

    Args:
        stable_ends: up to where a reader of committed records can read (the last stable offset).
        ends: the offsets after the last record.

    >>> partition = TopicPartition("orders", 0)
    >>> no_hanging_transaction({partition: 3}, {partition: 5})
    ['topic orders, partition 0: a transaction from offset 3 on is still open, the end is 5']
    """
    return [
        f"topic {partition.topic}, partition {partition.partition}: a transaction from offset {stable} on is still "
        f"open, the end is {end}"
        for partition, end in sorted(ends.items())
        if (stable := stable_ends.get(partition, 0)) < end
    ]


class StoreCopy(msgspec.Struct, frozen=True):
    """A store of a task as it is on some disk.

    Attributes:
        task: whose it is.
        spec: what it is.
        rows: as the backend holds them.
        position: the offset in the changelog up to which (exclusive) they are complete; 0 if nothing was written.
    """

    task: TaskId
    spec: StoreSpec
    rows: Mapping[bytes, bytes]
    position: int

    @property
    def name(self) -> str:
        """Which store it is, in words."""
        return f"store {self.spec.name} of task {self.task}"


def store_follows_changelog(copy: StoreCopy, changelog: Sequence[tuple[int, OutRecord]], end: int) -> list[str]:
    """Whether a store's rows are those that its changelog has up to the store's position, and that is within it.

    What the store may have forgotten, or the changelog, since it is older than the retention, may be missing in either.

    Args:
        copy: the store. One that has a changelog.
        changelog: offsets and committed records of its partition; compacted or not.
        end: of the changelog, control markers included.
    """
    found: list[str] = []
    if copy.position > end:
        found.append(f"{copy.name} is at offset {copy.position} of its changelog, which ends at {end}")
    below = [(offset, record) for offset, record in changelog if offset < copy.position]
    # The last record of a key may be beyond the position, and the one that is in the store compacted away.
    later = {record[0] for offset, record in changelog if offset >= copy.position}
    if isinstance(copy.spec, VersionedStoreSpec):
        return found + _compare_histories(copy, copy.spec, below, later)
    return found + _compare_rows(copy, below, later)


def same_by_key(reference: Logs, outputs: Logs) -> list[str]:
    """Whether each key of each topic has the values and times, in their order, that it has in another run.

    It holds of a topology that is deterministic: the results of a key do not depend on the order in which records of
    several partitions are processed. The first difference of each key is told. Records of one key in several partitions
    have no order, so there each has to be as often as in the other run.

    Args:
        reference: all output topics of a run that can be trusted.
        outputs: those of the run to judge.

    >>> reference = {TopicPartition("counts", 0): [(0, (b"a", b"1", 10, ())), (1, (b"a", b"2", 20, ()))]}
    >>> same_by_key(reference, {TopicPartition("counts", 0): [(0, (b"a", b"2", 20, ()))]})
    ["topic counts, partition 0, offset 0: b'a' = b'1' at 10 ms is missing in front of b'a' = b'2' at 20 ms"]
    """
    expected, there = _by_topic_and_key(reference), _by_topic_and_key(outputs)
    found: list[str] = []
    for topic, key in sorted({*expected, *there}, key=repr):
        wanted, rows = expected.get((topic, key), []), there.get((topic, key), [])
        scattered = any(len({row.partition for row in side}) > 1 for side in (wanted, rows))
        compare = in_any_order if scattered else in_order
        found += compare(f"topic {topic}, key {key!r}", [row.result for row in wanted], rows)
    return found


def _by_topic_and_key(logs: Logs) -> dict[tuple[str, bytes | None], list[Row]]:
    """Without headers: of what is forwarded by several records they may be those of any."""
    by_key: dict[tuple[str, bytes | None], list[Row]] = {}
    for partition in sorted(logs):
        for offset, (key, value, timestamp, _) in logs[partition]:
            row = Row(partition, offset, key, value, timestamp)
            by_key.setdefault((partition.topic, key), []).append(row)
    return by_key


# -- Stores against changelogs ---------------------------------------------------------------------------------------


class Content(NamedTuple):
    """What a row and its changelog record have in common. Some have no time, and none of them is compared."""

    value: bytes
    time: int | None = None


class Format(NamedTuple):
    """How rows of one kind of store, and changelog records, become content by changelog key."""

    of_row: Callable[[bytes, bytes], tuple[bytes, Content]]
    of_record: Callable[[bytes, bytes, int], Content]


def _format_of(spec: StoreSpec) -> Format:
    if isinstance(spec, LruStoreSpec):
        return Format(lambda key, row: (key, Content(row[16:], unpack_timestamp(row, 8)[0])), _timed)
    if isinstance(spec, BufferStoreSpec):
        return _buffer_format(spec)
    if isinstance(spec, RetainedStoreSpec):
        timed = spec.kind == "timestamped_window"
        return Format(lambda key, row: (key[8:], _split(row) if timed else Content(row)), _timed if timed else _plain)
    if spec.kind == "timestamped_key_value" or isinstance(spec, TtlStoreSpec):
        return Format(lambda key, row: (key, _split(row)), _timed)
    return Format(lambda key, row: (key, Content(row)), _plain)


def _buffer_format(spec: BufferStoreSpec) -> Format:
    """Entries have their times in front, in the changelog behind; where there are several for a key, in the key."""
    if spec.retain_duplicates:
        return Format(lambda key, row: (key, Content(row[8:])), lambda key, value, time: Content(value[:-8]))
    return Format(lambda key, row: (key, Content(row[8:] + row[:8])), _plain)


def _split(row: bytes) -> Content:
    return Content(row[8:], unpack_timestamp(row)[0])


def _plain(key: bytes, value: bytes, time: int) -> Content:
    return Content(value)


def _timed(key: bytes, value: bytes, time: int) -> Content:
    return Content(value, time)


def _compare_rows(copy: StoreCopy, below: Iterable[tuple[int, OutRecord]], later: set[bytes | None]) -> list[str]:
    form, retained = _format_of(copy.spec), isinstance(copy.spec, RetainedStoreSpec)
    rows = dict(form.of_row(key, row) for key, row in copy.rows.items() if not (retained and key[0] >= LOCAL))
    logged: dict[bytes, Content] = {}
    for _, (key, value, time, _) in below:
        assert key is not None, f"{copy.name}: a changelog record without a key"
        if value is None:
            logged.pop(key, None)
        else:
            logged[key] = form.of_record(key, value, time)
    first_kept = _first_kept(copy, logged)
    return [
        f"{copy.name}: {key!r} has {_shown(rows.get(key))}, the changelog says {_shown(logged.get(key))}"
        for key in sorted({*rows, *logged})
        if rows.get(key) != logged.get(key) and key not in later
        if (key in rows and key in logged) or first_kept is None or _time_of(copy.spec, key) >= first_kept
    ]


def _first_kept(copy: StoreCopy, logged: Iterable[bytes]) -> int | None:
    """From when on rows have to be there; None if for ever."""
    if not isinstance(copy.spec, RetainedStoreSpec):
        return None
    observed = unpack_time(copy.rows[META])[0] if META in copy.rows else -1
    return max([observed, *(_time_of(copy.spec, key) for key in logged)]) - copy.spec.retention_ms + 1


def _time_of(spec: StoreSpec, key: bytes) -> int:
    """By what a window or a session is forgotten: the start of the one, the end of the other."""
    if isinstance(spec, SessionStoreSpec):
        return int(unpack_span(key, len(key) - SPAN_BYTES)[0])
    return int(unpack_place(key, len(key) - PLACE_BYTES)[0])


def _shown(content: Content | None) -> str:
    if content is None:
        return "no row"
    return repr(content.value) if content.time is None else f"{content.value!r} at {content.time} ms"


def _compare_histories(
    copy: StoreCopy, spec: VersionedStoreSpec, below: Sequence[tuple[int, OutRecord]], later: set[bytes | None]
) -> list[str]:
    """Versions are laid out by what came before, so what is compared is what can be read."""
    replayed = InMemoryBackend()
    records = [_Logged(offset, *record) for offset, record in below]
    replayed.write({spec.name: restored_rows(spec, records, lambda key: None) if records else {}}, {})
    stored = InMemoryBackend()
    stored.write({spec.name: copy.rows}, {})
    keys = {record.key for record in records if record.key is not None}
    keys |= {place[len(NEWEST) :] for place in copy.rows if place.startswith(NEWEST)}
    found: list[str] = []
    for key in sorted(keys - later):
        there, logged = _history(spec, stored, key), _history(spec, replayed, key)
        if there != logged:
            found.append(f"{copy.name}: {key!r} has the versions {there}, the changelog says {logged}")
    return found


class _Logged(NamedTuple):
    """A changelog record as a fetcher gives it."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Any


def _history(spec: VersionedStoreSpec, backend: InMemoryBackend, key: bytes) -> list[tuple[bytes | None, int]]:
    return VersionedRows(spec, Overlay(spec.name, backend)).history(key, 0, END_OF_TIME_MS - 1)
