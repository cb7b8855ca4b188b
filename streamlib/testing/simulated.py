"""A user's own topology under faults: real workers on a model of Kafka, in virtual time, decided by a seed."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from streamlib.config import StreamsConfig
from streamlib.engine.plan import dead_letter_topics, sink_topics, source_topics
from streamlib.errors import TopologyError
from streamlib.partitioning import partition_for
from streamlib.records import OutRecord, Record, TopicPartition
from streamlib.serdes import Place, Serde, serde_for
from streamlib.simulation.checks import same_by_key
from streamlib.simulation.faults import Drawing, Fault
from streamlib.simulation.report import report
from streamlib.simulation.scenario import BROKERS, Scenario, host_names
from streamlib.simulation.simulation import Outcome, Simulation
from streamlib.simulation.workloads.workload import Input, Seen, Workload
from streamlib.topology.nodes import SourceNode
from streamlib.topology.topology import Topology

Check: TypeAlias = Callable[[Seen], list[str]]

DRAWN_FAULTS = 6
HORIZON_MS = 10_000.0
TRACE_LINES = 60


class SimulationFailedError(AssertionError):
    """Something was lost, done twice, or never done. The message has the seed, the faults and the trace's end."""


class Simulated:
    """What came of a simulated run."""

    def __init__(self, outcome: Outcome, seen: Seen) -> None:
        self._outcome = outcome
        self._seen = seen

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What was made to go wrong."""
        return self._outcome.scenario.faults

    @property
    def digest(self) -> str:
        """Equal for two runs in which the same things happened at the same times."""
        return self._outcome.digest

    @property
    def trace(self) -> Iterator[str]:
        """All that happened, line by line."""
        return self._outcome.trace.lines()

    def records(self, topic: str, *, key: Any = None, value: Any = None) -> list[Record[Any, Any]]:
        """The committed records of a topic, partition by partition. Without types, bytes."""
        keys, values = _serde(key), _serde(value)
        return [
            Record(_decoded(keys, raw[0]), _decoded(values, raw[1]), raw[2], raw[3])
            for partition, rows in sorted(self._seen.outputs.items())
            if partition.topic == topic
            for _, raw in rows
        ]


def simulate(
    topology: Topology,
    inputs: Mapping[str, Iterable[Record[Any, Any]]],
    *,
    faults: Sequence[Fault] | None = None,
    seed: int = 0,
    workers: int = 2,
    partitions: int = 2,
    check: Check | None = None,
) -> Simulated:
    """Run a topology with several workers, exactly once, while things go wrong; see that nothing is lost or twice.

    The workers are real; Kafka, the network, disks and time are modelled. The same arguments give the same run, in
    every process. Try many seeds: a run takes milliseconds.

    Args:
        topology: what to test. Its functions have to be deterministic and must not sleep.
        inputs: records for its source topics, encoded as the topology decodes them; they go to partitions by key.
        faults: what goes wrong; drawn from the seed if not given, none if empty.
        seed: decides order, latencies and, unless given, faults.
        workers: how many.
        partitions: of every topic.
        check: says in words what is wrong with what came out. Without it, the results of each key have to be those of
            a run in which nothing goes wrong: for topologies whose results do not depend on the order in which
            partitions are read.

    Raises:
        SimulationFailedError: with the seed, the faults and how it came about.
        TopologyError: inputs for a topic that the topology does not read.

    >>> from streamlib import Record, StreamsBuilder
    >>> builder = StreamsBuilder()
    >>> builder.stream("words", key=str, value=str).group_by_key().count().to_stream().to("counts")
    >>> words = [Record(word, "", 0) for word in ("to", "be", "or", "not", "to", "be")]
    >>> simulated = simulate(builder.build(), {"words": words}, seed=7)
    >>> sorted((record.key, record.value) for record in simulated.records("counts", key=str, value=int))
    [('be', 1), ('be', 2), ('not', 1), ('or', 1), ('to', 1), ('to', 2)]
    """
    rng = random.Random(seed)
    if faults is None:
        faults = Drawing(rng, host_names(workers), BROKERS, HORIZON_MS * 0.8).draw(DRAWN_FAULTS)
    encoded = _encoded(topology, inputs, partitions)
    if check is None:
        calm = _run(topology, encoded, partitions, Scenario(seed=seed, workload="yours", workers=1))[1]
        check = partial(_same_as, calm.outputs, sink_topics(topology))
    scenario = Scenario(
        seed=seed, workload="yours", workers=workers, inputs=len(encoded), horizon_ms=HORIZON_MS, faults=tuple(faults)
    )
    outcome, seen = _run(topology, encoded, partitions, scenario, check)
    return Simulated(outcome, seen)


def _run(
    topology: Topology,
    inputs: list[Input],
    partitions: int,
    scenario: Scenario,
    check: Check = lambda seen: [],
) -> tuple[Outcome, Seen]:
    seen: list[Seen] = []

    def checked(found: Seen) -> list[str]:
        seen.append(found)
        return check(found)

    dead_letters = dead_letter_topics(topology, StreamsConfig(application_id=scenario.workload).error_policies)
    names = {*source_topics(topology), *sink_topics(topology), *dead_letters}
    workload = Workload(
        name=scenario.workload,
        about="a topology of the user's",
        topics=dict.fromkeys(sorted(names), partitions),
        outputs=tuple(sorted(sink_topics(topology))),
        topology=lambda: topology,
        inputs=lambda rng, count: inputs,
        check=checked,
    )
    outcome = Simulation(scenario, workload).run()
    if not outcome.ok:
        raise SimulationFailedError(report(outcome, trace_lines=TRACE_LINES))
    return outcome, seen[0]


def _same_as(calm: Mapping[TopicPartition, list[tuple[int, OutRecord]]], sinks: Iterable[str], seen: Seen) -> list[str]:
    wanted = frozenset(sinks)

    def of_sinks(rows: Mapping[TopicPartition, list[tuple[int, OutRecord]]]) -> dict[TopicPartition, Any]:
        return {partition: found for partition, found in rows.items() if partition.topic in wanted}

    return same_by_key(of_sinks(calm), of_sinks(seen.outputs))


def _encoded(topology: Topology, inputs: Mapping[str, Iterable[Record[Any, Any]]], partitions: int) -> list[Input]:
    """The records, each topic's in its order, the topics side by side in order of time."""
    sources = {topic: node for node in topology.nodes.values() if isinstance(node, SourceNode) for topic in node.topics}
    if unknown := sorted(inputs.keys() - sources.keys()):
        raise TopologyError(f"the topology does not read {unknown[0]}; it reads {', '.join(sorted(sources))}")
    of_topics = [_of_topic(topic, sources[topic], records, partitions) for topic, records in inputs.items()]
    return list(heapq.merge(*of_topics, key=lambda item: item.record[2]))


def _of_topic(topic: str, source: SourceNode, records: Iterable[Record[Any, Any]], partitions: int) -> list[Input]:
    found, keys, values = [], source.key.at(Place(topic=topic, is_key=True)), source.value.at(Place(topic=topic))
    for number, record in enumerate(records):
        key, value = _raw(keys, record.key), _raw(values, record.value)
        chosen = number % partitions if key is None else partition_for(key, partitions)
        found.append(Input(TopicPartition(topic, chosen), (key, value, record.timestamp, record.headers)))
    return found


def _raw(serde: Serde[Any], value: Any) -> bytes | None:
    return None if value is None else serde.encode(value)


def _decoded(serde: Serde[Any], value: bytes | None) -> Any:
    return None if value is None else serde.decode(value)


def _serde(kind: Any) -> Serde[Any]:
    return serde_for(bytes if kind is None else kind)
