"""Tests on the model of a cluster, in virtual time."""

from __future__ import annotations

import random

from streamlib.kafka.pool import ConnectionPool
from streamlib.simulation.cluster.cluster import Cluster as Model
from streamlib.simulation.loop import Process, VirtualTimeLoop
from streamlib.simulation.network import LoopTimers, Network, bootstrap_servers
from tests.ports.cluster import Cluster, opened
from tests.ports.everywhere import Body, in_time

TRANSACTION_VERSIONS = (2, 1)
"""The kinds of cluster that the model can be: as Kafka 4 with KIP-890, as Kafka 3 without it."""

_BROKERS = 3
_SEED = 1


def run_on_model(transaction_version: int, body: Body) -> None:
    """In virtual time: waiting for something costs nothing."""
    loop = VirtualTimeLoop(random.Random(_SEED))
    cluster = open_model_cluster(loop, transaction_version)

    async def test() -> None:
        async with opened(cluster):
            await in_time(body, cluster)

    before = random.getstate()
    random.seed(_SEED)  # the client layer draws its jitter from the common generator
    try:
        loop.run_until_complete(test())
    finally:
        random.setstate(before)
        loop.finish()
    assert not loop.failures


def open_model_cluster(loop: VirtualTimeLoop, transaction_version: int) -> Cluster:
    """A new model, on the loop."""
    timers = LoopTimers(loop, random.Random(_SEED))
    model = Model(timers, brokers=_BROKERS, transaction_version=transaction_version)
    network = Network(loop, model, timers, random.Random(_SEED))
    test = Process("test")
    return Cluster(bootstrap_servers(range(_BROKERS)), lambda: ConnectionPool(network.opener(test)), "model")
