"""Which keys come often, and where the loop was seen."""

from __future__ import annotations

import random
import threading
from collections import Counter

import pytest

from streamlib.records import TopicPartition
from streamlib.runtime.sampling import KEYS, WINDOW_S, Sampling, TopKeys

PARTITION = TopicPartition("orders", 3)


@pytest.mark.parametrize("seed", range(5))
def test_every_key_with_a_share_is_found_and_counts_are_never_too_low(seed: int) -> None:
    """What "space-saving" promises, on a stream with a few hot keys among thousands of others."""
    chance, keys, exact = random.Random(seed), TopKeys(), Counter[bytes]()
    for _ in range(20_000):
        name = f"hot-{chance.randrange(5)}" if chance.random() < 0.4 else f"cold-{chance.randrange(8_000)}"
        count = chance.randrange(1, 4)
        exact[name.encode()] += count
        keys.add(name.encode(), count)
    assert keys.total == exact.total()
    assert len(keys.counts) <= KEYS
    for key, count in exact.items():
        assert key in keys.counts or count <= keys.total / KEYS
    for key, count in keys.counts.items():
        assert exact[key] <= count <= exact[key] + keys.over.get(key, 0)


def test_the_last_record_of_a_slice_stands_for_all_of_it() -> None:
    sampling = Sampling()
    sampling.processed((PARTITION, 7, b"a"), 900)
    sampling.processed((PARTITION, 8, b"b"), 100)
    sampling.processed((PARTITION, 9, None), 50)
    sampling.processed(None, 50)
    assert [(each.key, each.count, each.of) for each in sampling.hot_keys(5)] == [
        (b"a", 900, 1_000),
        (b"b", 100, 1_000),
    ]


def test_what_came_once_is_not_hot() -> None:
    sampling = Sampling()
    for number in range(KEYS * 3):
        sampling.processed((PARTITION, number, f"{number}".encode()), 1)
    assert sampling.hot_keys(5) == []


def test_keys_are_forgotten_after_two_windows() -> None:
    sampling = Sampling()
    sampling.processed((PARTITION, 7, b"a"), 10)
    for _ in range(WINDOW_S):
        sampling.turn()
    sampling.processed((PARTITION, 8, b"a"), 5)
    assert [each.count for each in sampling.hot_keys(5)] == [15]
    for _ in range(WINDOW_S):
        sampling.turn()
    assert [each.count for each in sampling.hot_keys(5)] == [5]
    for _ in range(WINDOW_S):
        sampling.turn()
    assert sampling.hot_keys(5) == []


def test_written_records_are_counted_by_topic() -> None:
    sampling = Sampling()
    record = (None, b"x", 0, ())
    sampling.sent(
        {PARTITION: [record] * 3, TopicPartition("orders", 1): [record], TopicPartition("other", 0): [record]}
    )
    assert sampling.written == {"orders": 4, "other": 1}


def test_a_node_is_as_busy_as_it_was_seen() -> None:
    reached, go_on = threading.Event(), threading.Event()
    places = iter(["map", "map", "sink", ""])

    def place() -> str:
        found = next(places, None)
        if found is None:
            reached.set()
            go_on.wait(10)
        return found or ""

    sampling = Sampling()
    sampling.start(place)
    assert reached.wait(10)
    assert sampling.busy() == {"map": 0.5, "sink": 0.25}
    go_on.set()
    sampling.stop()
