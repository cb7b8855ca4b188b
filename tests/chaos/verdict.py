"""Holds what a cluster has in the end against what exactly-once means: rows in, violations out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from struct import Struct

import msgspec

from tests.chaos.readback import Row
from tests.chaos.stores import Stored
from tests.chaos.topologies import GRACE_MS, WINDOW_MS

MOST_EXAMPLES = 5

_LONG = Struct(">q")
_PLACE = Struct(">qi")  # a window's start and a number, behind the key

Counts = dict[bytes, int]


class Tally(msgspec.Struct):
    """What came of one output: how many records, how many too few and too many, and examples."""

    records: int = 0
    lost: int = 0
    duplicated: int = 0
    examples: list[str] = []

    def say(self, text: str) -> None:
        """Keep it as an example, unless there are enough."""
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append(text)

    @property
    def exact(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.duplicated or self.examples)


def count_keys(inputs: Iterable[Row]) -> Counts:
    """What a count over keys has to come to."""
    return Counter(row.key for row in inputs)


def count_words(inputs: Iterable[Row]) -> Counts:
    """What a count over the words of values has to come to."""
    return Counter(word for row in inputs for word in (row.value or b"").split())


def count_windows(inputs: Sequence[Row]) -> Counts:
    """What a count over tumbling windows has to come to, by the changelog's keys.

    In each partition time is the highest timestamp so far, and a window that ended longer ago than the grace is closed.
    """
    counts: Counts = Counter()
    for rows in by_partition(inputs).values():
        time_ms = -1
        for row in rows:
            time_ms = max(time_ms, row.timestamp_ms)
            start = row.timestamp_ms // WINDOW_MS * WINDOW_MS
            if start + WINDOW_MS > time_ms - GRACE_MS:
                counts[row.key + _PLACE.pack(start, 0)] += 1
    return counts


def named_windows(counts: Mapping[bytes, int]) -> Counts:
    """The same by the output's keys."""
    return {
        place[: -_PLACE.size] + b"@%d" % _PLACE.unpack(place[-_PLACE.size :])[0]: count
        for place, count in counts.items()
    }


def check_counts(outputs: Iterable[Row], wanted: Mapping[bytes, int]) -> Tally:
    """Per key 1, 2, 3 ... up to the number of its inputs, each once and in order."""
    found: dict[bytes, list[int]] = defaultdict(list)
    for row in outputs:
        found[row.key].append(_LONG.unpack(row.value or b"")[0])
    tally = Tally(records=sum(map(len, found.values())))
    for key in sorted(found.keys() | wanted.keys()):
        _compare(tally, key, found[key], range(1, wanted.get(key, 0) + 1))
    return tally


def check_ledger(outputs: Iterable[Row], inputs: Iterable[Row]) -> Tally:
    """Every input's partition, offset and value, once and in order; output partitions are those of the inputs."""
    found, wanted = by_partition(outputs), by_partition(inputs)
    tally = Tally(records=sum(map(len, found.values())))
    for number in sorted(found.keys() | wanted.keys()):
        lines = [b"%d:%d:%s" % (row.partition, row.offset, row.value or b"") for row in wanted.get(number, ())]
        _compare(tally, b"partition %d" % number, [row.value or b"" for row in found.get(number, ())], lines)
    return tally


def check_table(what: str, rows: Mapping[bytes, int], wanted: Mapping[bytes, int]) -> Iterator[str]:
    """The last value of each key is the recount's."""
    wrong = [key for key in sorted(rows.keys() | wanted.keys()) if rows.get(key) != wanted.get(key)]
    for key in wrong[:MOST_EXAMPLES]:
        yield f"{what}: {key!r} is {rows.get(key)}, recounted {wanted.get(key)} ({len(wrong)} keys differ)"


def table(changelog: Iterable[Row]) -> Counts:
    """What a changelog's records come to."""
    last = {row.key: row.value for row in changelog}
    return {key: _LONG.unpack(value)[0] for key, value in last.items() if value is not None}


def check_disks(stores: Sequence[Stored], changelogs: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """Each store on disk is the changelog below its position, and somebody has every partition to its end.

    Of a key with a later record the compacted changelog may not tell what was there before: it is not compared.
    """
    newest: set[tuple[str, int]] = set()
    for store in stores:
        rows = by_partition(changelogs[store.store]).get(store.partition, [])
        last = {row.key: row for row in rows}
        where = f"{store.worker}: store {store.store} of partition {store.partition} at {store.position}"
        if all(row.offset < store.position for row in last.values()):
            newest.add((store.store, store.partition))
        for key, row in last.items():
            if row.offset < store.position and store.rows.get(key) != row.value:
                yield f"{where}: {key!r} is {store.rows.get(key)!r}, its changelog says {row.value!r}"
        if strange := store.rows.keys() - last.keys():
            yield f"{where}: rows that its changelog does not have: {sorted(strange)[:MOST_EXAMPLES]}"
    written = {(name, row.partition) for name, rows in changelogs.items() for row in rows}
    for name, partition in sorted(written - newest):
        yield f"nobody has store {name} of partition {partition} to the end of its changelog"


def check_inputs(inputs: Mapping[str, Sequence[Row]], committed: Mapping[str, set[str]]) -> Iterator[str]:
    """The cluster itself kept what it acknowledged; without that, no other check means anything."""
    for topic, acknowledged in committed.items():
        values = [(row.value or b"").decode() for row in inputs[topic]]
        if missing := acknowledged - set(values):
            yield f"the cluster lost {len(missing)} acknowledged records of {topic}: {sorted(missing)[:MOST_EXAMPLES]}"
        if len(values) != len(set(values)):
            yield f"the cluster holds records of {topic} twice"


def by_partition(rows: Iterable[Row]) -> dict[int, list[Row]]:
    """Rows of each partition, in order."""
    found: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.partition].append(row)
    return dict(found)


def _compare(tally: Tally, where: bytes, found: Sequence[object], wanted: Sequence[object]) -> None:
    if list(found) == list(wanted):
        return
    missing, surplus = Counter(wanted) - Counter(found), Counter(found) - Counter(wanted)
    tally.lost += missing.total()
    tally.duplicated += surplus.total()
    if missing or surplus:
        tally.say(f"{where!r}: lost {_some(missing)}, too many {_some(surplus)}")
    else:
        tally.say(f"{where!r}: out of order")


def _some(values: Counter[object]) -> str:
    return f"{list(values)[:MOST_EXAMPLES]} ({values.total()} in all)"
