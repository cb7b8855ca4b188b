"""Topics and stores of a workload: writing inputs, and reading back what is there at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streamlib.partitioning import partition_for
from streamlib.records import Headers, OutRecord, TopicPartition
from streamlib.serdes import Serde, serde_for
from streamlib.simulation.differences import Result, Row, in_any_order, in_order
from streamlib.simulation.workloads.workload import PARTITIONS, Input, Seen
from streamlib.state.codec import unpack_timestamp

_TIME_BYTES = 8


class Topic:
    """A topic by name, and what its records are made of.

    >>> counts = Topic("counts", str, int)
    >>> counts.record(0, "a", 3, timestamp=10)
    Input(partition=TopicPartition(topic='counts', partition=0), record=(b'a', \
b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x03', 10, ()))
    """

    def __init__(self, name: str, key: Any, value: Any) -> None:
        self.name = name
        self.key = serde_for(key)
        self.value = serde_for(value)

    def record(self, partition: int, key: Any, value: Any, timestamp: int, headers: Headers = ()) -> Input:
        """A record to be written."""
        raw_key = None if key is None else self.key.encode(key)
        raw_value = None if value is None else self.value.encode(value)
        return Input(TopicPartition(self.name, partition), (raw_key, raw_value, timestamp, headers))

    def partition_of(self, key: Any) -> int:
        """Where a record of this key goes."""
        return partition_for(self.key.encode(key), PARTITIONS)

    def inputs(self, seen: Seen) -> dict[int, list[Row]]:
        """The records of each partition. What cannot be decoded is not among them: a run may have put that in, with the
        policy to skip it."""
        rows = {number: self._rows(seen.inputs, number) for number in range(PARTITIONS)}
        return {number: [row for row in found if self._is_decoded(row)] for number, found in rows.items()}

    def outputs(self, seen: Seen) -> dict[int, list[Row]]:
        """The records of each partition."""
        return {number: self._rows(seen.outputs, number) for number in range(PARTITIONS)}

    def outputs_by_key(self, seen: Seen) -> dict[Any, list[Row]]:
        """The records of each key. Keys have to be hashable."""
        by_key: dict[Any, list[Row]] = {}
        for rows in self.outputs(seen).values():
            for row in rows:
                by_key.setdefault(row.key, []).append(row)
        return by_key

    def in_order(self, seen: Seen, expected: Mapping[int, Sequence[Result]]) -> list[str]:
        """Whether each partition holds just these records in this order; where it first does not, in words."""
        found: list[str] = []
        for number, rows in self.outputs(seen).items():
            found += in_order(f"topic {self.name}, partition {number}", expected.get(number, ()), rows)
        return found

    def in_any_order(self, seen: Seen, expected: Mapping[int, Sequence[Result]]) -> list[str]:
        """Whether each partition holds just these records; in words what is too much or too little."""
        found: list[str] = []
        for number, rows in self.outputs(seen).items():
            found += in_any_order(f"topic {self.name}, partition {number}", expected.get(number, ()), rows)
        return found

    def repeated(self, seen: Seen, expected: Mapping[int, Sequence[Result]]) -> list[str]:
        """Whether each partition holds all of these records and no others, however often; in words what is wrong."""
        found: list[str] = []
        for number, rows in self.outputs(seen).items():
            wanted, there = dict.fromkeys(expected.get(number, ())), dict.fromkeys(row.result for row in rows)
            found += [f"topic {self.name}, partition {number}: {each} is lost" for each in wanted if each not in there]
            found += [f"{row.place}: {row.result} should not be there" for row in rows if row.result not in wanted]
        return found

    def _rows(self, logs: Mapping[TopicPartition, Sequence[tuple[int, OutRecord]]], number: int) -> list[Row]:
        partition = TopicPartition(self.name, number)
        return [
            Row(partition, offset, _decoded(self.key, key), _decoded(self.value, value), timestamp, headers)
            for offset, (key, value, timestamp, headers) in logs.get(partition, ())
        ]

    def _is_decoded(self, row: Row) -> bool:
        return not isinstance(row.key, _Undecodable) and not isinstance(row.value, _Undecodable)


class Store:
    """A plain key-value store by name, and what its rows are made of. Rows of a timed one are `(value, time)`."""

    def __init__(self, name: str, key: Any, value: Any, *, timed: bool = True) -> None:
        self.name = name
        self._key = serde_for(key)
        self._value = serde_for(value)
        self._timed = timed

    def holds(self, seen: Seen, expected: Mapping[Any, Any]) -> list[str]:
        """Whether it has just these rows; in words which are other ones."""
        return self._compare(self._rows(seen), expected)

    def holds_values(self, seen: Seen, expected: Mapping[Any, Any]) -> list[str]:
        """The same of a timed store whose times are open: `expected` has the values alone."""
        values = {key: row[0] if isinstance(row, tuple) else row for key, row in self._rows(seen).items()}
        return self._compare(values, expected)

    def keys(self, seen: Seen) -> set[Any]:
        """The keys of its rows."""
        return set(self._rows(seen))

    def _compare(self, rows: Mapping[Any, Any], expected: Mapping[Any, Any]) -> list[str]:
        found: list[str] = []
        for key in [*expected, *(key for key in rows if key not in expected)]:
            wanted, there = _in_words(expected.get(key)), _in_words(rows.get(key))
            if wanted != there:
                found.append(f"store {self.name}: {key!r} has {there}, not {wanted}")
        return found

    def _rows(self, seen: Seen) -> dict[Any, Any]:
        return {_decoded(self._key, key): self._row(row) for key, row in seen.stores.get(self.name, {}).items()}

    def _row(self, row: bytes) -> Any:
        if not self._timed:
            return _decoded(self._value, row)
        if len(row) < _TIME_BYTES:
            return _Undecodable(row)
        return _decoded(self._value, row[_TIME_BYTES:]), unpack_timestamp(row)[0]


class _Undecodable(bytes):
    """Bytes that are no key or value of their topic or store."""


def _decoded(serde: Serde[Any], raw: bytes | None) -> Any:
    if raw is None:
        return None
    try:
        return serde.decode(raw)
    except Exception:  # whatever it is, the bytes are shown
        return _Undecodable(raw)


def _in_words(row: Any) -> str:
    return "no row" if row is None else repr(row)
