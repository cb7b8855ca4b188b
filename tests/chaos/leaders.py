"""Moves partitions' leaders, Kafka's own topics among them, and so their coordinators, without any broker going down.

Each partition's replicas are put into another order, then the first of them is elected. No client at hand can do both.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import TopicMetadata

from streamlib.kafka.protocol.request import Request, Response
from streamlib.kafka.protocol.schema import Api, array
from streamlib.kafka.protocol.schema import Field as F

TIMEOUT_S = 10

REASSIGN = Api(
    "AlterPartitionReassignments",
    key=45,
    versions=(0, 0),
    flexible=0,
    request=(
        F("timeout_ms", "int32"),
        array(
            "topics",
            F("name", "string"),
            array("partitions", F("partition_index", "int32"), F("replicas", "[]int32", nullable="0+")),
        ),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        F("error_code", "int16"),
        F("error_message", "string", nullable="0+"),
        array(
            "responses",
            F("name", "string"),
            array(
                "partitions",
                F("partition_index", "int32"),
                F("error_code", "int16"),
                F("error_message", "string", nullable="0+"),
            ),
        ),
    ),
)

ELECT = Api(
    "ElectLeaders",
    key=43,
    versions=(2, 2),
    flexible=2,
    request=(
        F("election_type", "int8"),  # 0: the first replica
        array("topic_partitions", F("topic", "string"), F("partitions", "[]int32")),
        F("timeout_ms", "int32"),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        F("error_code", "int16"),
        array(
            "replica_election_results",
            F("topic", "string"),
            array(
                "partition_result",
                F("partition_id", "int32"),
                F("error_code", "int16"),
                F("error_message", "string", nullable="0+"),
            ),
        ),
    ),
)


async def move_leaders(bootstrap_servers: str, rng: random.Random) -> int:
    """Put all replicas into a random order and elect the first ones; how many partitions have a new leader.

    Does nothing where the cluster is not able to: a broker may be down at the same time.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    try:
        topics = await asyncio.to_thread(_topics, admin)
        async with asyncio.timeout(TIMEOUT_S):
            await _order(bootstrap_servers, topics, rng)
        after = _leaders(await asyncio.to_thread(_topics, admin))
    except (KafkaException, OSError, asyncio.IncompleteReadError):
        return 0
    return sum(leader != after.get(partition) for partition, leader in _leaders(topics).items())


def _topics(admin: AdminClient) -> dict[str, TopicMetadata]:
    return dict(sorted(admin.list_topics(timeout=TIMEOUT_S).topics.items()))


def _leaders(topics: Mapping[str, TopicMetadata]) -> dict[tuple[str, int], int]:
    return {(name, number): p.leader for name, topic in topics.items() for number, p in topic.partitions.items()}


async def _order(bootstrap_servers: str, topics: Mapping[str, TopicMetadata], rng: random.Random) -> None:
    orders = [
        {
            "name": name,
            "partitions": [
                {"partition_index": number, "replicas": rng.sample(sorted(p.replicas), len(p.replicas))}
                for number, p in sorted(topic.partitions.items())
            ],
        }
        for name, topic in topics.items()
    ]
    partitions = [{"topic": name, "partitions": sorted(topic.partitions)} for name, topic in topics.items()]
    timeout = {"timeout_ms": TIMEOUT_S * 1000}
    await _ask(bootstrap_servers, REASSIGN, {"topics": orders, **timeout})
    await _ask(bootstrap_servers, ELECT, {"election_type": 0, "topic_partitions": partitions, **timeout})


async def _ask(bootstrap_servers: str, api: Api, body: dict[str, Any]) -> None:
    """Of the first broker that is up; it passes the request on to the controller.

    Raises:
        OSError: nobody is up, or the answer is an error.
    """
    for address in bootstrap_servers.split(","):
        host, port = address.split(":")
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
        except ConnectionRefusedError:
            continue
        request = Request(api, api.versions[1], body)
        message = request.build_request_header(correlation_id=1, client_id="chaos").encode() + request.encode()
        try:
            writer.write(len(message).to_bytes(4, "big") + message)
            answer = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
        finally:
            writer.close()
        code = Response(answer, 4).body(api, api.versions[1]).error_code
        if code:
            raise OSError(f"{api.name}: error {code}")
        return
    raise OSError(f"no broker of {bootstrap_servers} is up")
