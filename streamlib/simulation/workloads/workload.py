"""What a workload is: a topology, inputs for it, and a check of what came out.

The outputs of a workload betray by their structure whatever was lost, done twice, or done in front of a state that did
not go with it. Its check is told nothing but what the topics and stores hold at the end, so it holds for any order in
which records came in, any number of workers, and any faults on the way (FoundationDB's workloads).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from streamlib.records import OutRecord, TopicPartition
from streamlib.topology.topology import Topology

PARTITIONS = 2
"""Of every topic of the workloads that come along."""


class Input(NamedTuple):
    """A record for an input topic."""

    partition: TopicPartition
    record: OutRecord


class Seen(msgspec.Struct):
    """What is there at the end of a run.

    Attributes:
        inputs: offsets and records of the input topics; those of aborted transactions and those that cannot be decoded
            may be left out.
        outputs: offsets and records of committed transactions, of all other topics by their full names.
        stores: by name, the rows of plain key-value stores as their backends hold them, those of all tasks together.
    """

    inputs: dict[TopicPartition, list[tuple[int, OutRecord]]]
    outputs: dict[TopicPartition, list[tuple[int, OutRecord]]]
    stores: dict[str, dict[bytes, bytes]]


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """A workload; a value, as everything that runs of it is made anew.

    Attributes:
        name: one word.
        about: what its outputs look like, and what they betray, in a line.
        topics: the topics to create, inputs and outputs, with their partitions.
        outputs: those whose committed records are checked.
        topology: makes the topology, once for each worker.
        inputs: `inputs(rng, count)`: about so many records in the order in which they are to arrive. Closing records,
            which let the last results out, come on top.
        check: says in words what is wrong; nothing if all is well.
        check_repeated: the same where records may have been processed more than once, at least once: nothing is lost.
            None where that cannot be told from the outputs.
        prepared: input topics that have to be filled before the first worker starts.
    """

    name: str
    about: str
    topics: Mapping[str, int]
    outputs: tuple[str, ...]
    topology: Callable[[], Topology]
    inputs: Callable[[random.Random, int], list[Input]]
    check: Callable[[Seen], list[str]]
    check_repeated: Callable[[Seen], list[str]] | None = None
    prepared: tuple[str, ...] = ()
