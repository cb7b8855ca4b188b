"""Which keys come often, and which nodes take long: told from samples, where somebody wants to know.

    worker's loop    processed --the last record of a slice--> TopKeys       once for each slice
                     sent --how many--> topics                               once for each slice
    a thread         where is the loop? --> nodes                            `LOOKS_PER_S` times a second

The last record of a slice stands for all of it: of keys that come often, that is true often. Nothing is done for a
record, and nothing at all where there is no `Sampling`.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

import msgspec

from streamlib.records import OutRecord, TopicPartition

LOOKS_PER_S = 20
WINDOW_S = 30
KEYS = 64
"""So many keys of a topic are counted at a time: each with more than a 64th of the records is among them."""


class CountedKey(msgspec.Struct, frozen=True):
    """A key, how many records it had, and by how much that may be too many."""

    topic: str
    key: bytes
    count: int
    over: int
    of: int


class TopKeys:
    """The most frequent keys of a stream in little memory: "space-saving" (Metwally, Agrawal, El Abbadi 2005).

    A key that is not counted takes the place, and the count, of the one with the least. Each key with more than
    `total / size` is there, and no count is too low.

    >>> keys = TopKeys(size=2)
    >>> for key in (b"a", b"b", b"a", b"c", b"a"):
    ...     keys.add(key, 1)
    >>> keys.counts[b"a"], keys.total
    (3, 5)
    """

    __slots__ = ("_size", "counts", "over", "total")

    def __init__(self, size: int = KEYS) -> None:
        self._size = size
        self.counts: dict[bytes, int] = {}
        self.over: dict[bytes, int] = {}  # what keys have inherited
        self.total = 0

    def add(self, key: bytes, count: int) -> None:
        """It came so many times."""
        self.total += count
        counts = self.counts
        if key in counts:
            counts[key] += count
            return
        if len(counts) < self._size:
            counts[key] = count
            return
        least = min(counts, key=counts.__getitem__)
        self.over.pop(least, None)
        floor = counts.pop(least)
        counts[key], self.over[key] = floor + count, floor


class Sampling:
    """Of one worker; `processed`, `sent`, `turn` and what is read are for its loop."""

    def __init__(self) -> None:
        self._now: dict[str, TopKeys] = {}
        self._before: dict[str, TopKeys] = {}
        self._age_s = 0
        self.written: Counter[str] = Counter()
        self._nodes: deque[Counter[str]] = deque([Counter()], maxlen=WINDOW_S)
        self._looks: deque[int] = deque([0], maxlen=WINDOW_S)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, node_at_work: Callable[[], str]) -> None:
        """Begin to look where the loop is: at which node, or "" if it is at none."""
        self._over.clear()
        self._thread = threading.Thread(target=self._watch, args=(node_at_work,), name="sampling", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def processed(self, record: tuple[TopicPartition, int, bytes | None] | None, count: int) -> None:
        """A slice of so many records ended with this one."""
        if record is None or record[2] is None:
            return
        topic = record[0].topic
        keys = self._now.get(topic)
        if keys is None:
            keys = self._now[topic] = TopKeys()
        keys.add(record[2], count)

    def sent(self, outputs: Mapping[TopicPartition, Sequence[OutRecord]]) -> None:
        """These are written."""
        for partition, records in outputs.items():
            self.written[partition.topic] += len(records)

    def turn(self) -> None:
        """Another second has begun."""
        self._nodes.append(Counter())
        self._looks.append(0)
        self._age_s += 1
        if self._age_s >= WINDOW_S:
            self._age_s, self._before, self._now = 0, self._now, {}

    def busy(self) -> dict[str, float]:
        """By node, the part of the looks that have found the loop there."""
        looks = sum(self._looks)
        found: Counter[str] = Counter()
        for second in list(self._nodes):
            found.update(second.copy())
        return {node: count / looks for node, count in found.items()} if looks else {}

    def hot_keys(self, most: int) -> list[CountedKey]:
        """Of each topic, those that came most often in this window and the one before; once is not often."""
        found = []
        for topic in sorted(self._now.keys() | self._before.keys()):
            windows = [window[topic] for window in (self._now, self._before) if topic in window]
            total = sum(keys.total for keys in windows)
            counts: Counter[bytes] = Counter()
            over: Counter[bytes] = Counter()
            for keys in windows:
                counts.update(keys.counts)
                over.update(keys.over)
            sure = [CountedKey(topic, key, count, over[key], total) for key, count in counts.most_common(most)]
            found += [each for each in sure if each.count - each.over > 1]
        return found

    def _watch(self, node_at_work: Callable[[], str]) -> None:
        while not self._over.wait(1 / LOOKS_PER_S):
            try:
                node = node_at_work()
            except Exception:  # the frames hold users' objects, whose attributes may do anything
                node = ""
            self._looks[-1] += 1
            if node:
                self._nodes[-1][node] += 1
