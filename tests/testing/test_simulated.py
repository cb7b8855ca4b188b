"""`simulate`: a user's own topology under faults."""

from __future__ import annotations

from collections import Counter

import pytest

from streamlib import DeadLetter, Record, StreamsBuilder
from streamlib.errors import TopologyError
from streamlib.simulation.faults import Fault, KilledAtRequest, ReplyLost
from streamlib.simulation.workloads.workload import Seen
from streamlib.testing import SimulationFailedError, simulate
from streamlib.topology.topology import Topology

WORDS = [
    Record(word, "", 1_000 + number)
    for number, word in enumerate(["a", "b", "c", "a", "d", "e", "a", "b", "f", "g", "c", "a"] * 3)
]
KILLED: list[Fault] = [
    KilledAtRequest("w0", "EndTxn", 1, "sent", 500.0),
    KilledAtRequest("w1", "TxnOffsetCommit", 1, "after", 500.0),
    ReplyLost("w0", "Produce", 2, quietly=False),
]


def counting() -> Topology:
    builder = StreamsBuilder()
    builder.stream("words", key=str, value=str).group_by_key().count(store="counts").to_stream().to("out")
    return builder.build()


def counting_in_memory() -> Topology:
    """As people do it who do not know of stores: what was counted is not undone when the work is done again."""
    counts: Counter[str] = Counter()

    def count(key: str, _: str) -> int:
        counts[key] += 1
        return counts[key]

    builder = StreamsBuilder()
    builder.stream("words", key=str, value=str).map_values(count, with_key=True).to("out", value=int)
    return builder.build()


@pytest.mark.parametrize("seed", range(10))
def test_sound_topology_holds_under_drawn_faults(seed: int) -> None:
    simulated = simulate(counting(), {"words": WORDS}, seed=seed)
    counts = Counter(word.key for word in WORDS)
    found = [(record.key, record.value) for record in simulated.records("out", key=str, value=int)]
    assert sorted(found) == sorted((key, n) for key, count in counts.items() for n in range(1, count + 1))


@pytest.mark.parametrize("seed", range(3))
def test_topics_for_dead_letters_are_there(seed: int) -> None:
    def refused(word: str, _: str) -> str:
        if word == "a":
            raise ValueError(word)
        return word

    builder = StreamsBuilder()
    words = builder.stream("words", key=str, value=str)
    words.map_values(refused, with_key=True, on_error=DeadLetter("dead")).to("out")
    simulated = simulate(builder.build(), {"words": WORDS}, seed=seed)
    dead = [record.key for record in simulated.records("dead", key=str)]
    assert dead == [word.key for word in WORDS if word.key == "a"]


def test_state_outside_of_stores_is_found_out() -> None:
    with pytest.raises(SimulationFailedError) as failed:
        simulate(counting_in_memory(), {"words": WORDS}, faults=KILLED, seed=3)
    text = str(failed.value)
    assert "SEED=3" in text
    assert "KilledAtRequest(host='w0', api='EndTxn', nth=1, moment='sent', down_ms=500.0)" in text
    assert "topic out" in text


def test_own_check_is_asked() -> None:
    seen: list[Seen] = []

    def check(found: Seen) -> list[str]:
        seen.append(found)
        return ["I do not like it"]

    with pytest.raises(SimulationFailedError, match="I do not like it"):
        simulate(counting(), {"words": WORDS}, faults=[], check=check)
    assert sum(map(len, seen[0].inputs.values())) == len(WORDS)
    assert seen[0].stores["counts"]


def test_same_arguments_give_the_same_run() -> None:
    first, second = (simulate(counting(), {"words": WORDS}, seed=5) for _ in range(2))
    assert first.digest == second.digest
    assert first.faults == second.faults
    assert list(first.trace) == list(second.trace)


def test_input_for_a_topic_that_is_not_read_is_refused() -> None:
    with pytest.raises(TopologyError, match="does not read wrods; it reads words"):
        simulate(counting(), {"wrods": WORDS})
