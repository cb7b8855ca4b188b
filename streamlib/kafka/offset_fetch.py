"""OffsetFetch for one group: brokers from version 8 of it on are asked for several groups at once."""

from __future__ import annotations

from typing import Any

from streamlib.kafka.by_topic import answers
from streamlib.kafka.client import KafkaClient, Response
from streamlib.kafka.errors import check_code
from streamlib.records import OffsetAndMetadata, TopicPartition

_SEVERAL_GROUPS = 8


def request(client: KafkaClient, group_id: str, topics: list[dict[str, Any]] | None) -> dict[str, Any]:
    """What to ask; without topics, for all that have committed offsets."""
    one = {"group_id": group_id, "topics": topics}
    return {"groups": [one]} if client.version("OffsetFetch") >= _SEVERAL_GROUPS else one


def answer(client: KafkaClient, response: Response) -> Response:
    """What is said about the group."""
    return response.groups[0] if client.version("OffsetFetch") >= _SEVERAL_GROUPS else response


def committed(ours: Response, where: str) -> dict[TopicPartition, OffsetAndMetadata]:
    """Committed offsets; partitions without are left out.

    Raises:
        KafkaError: one of them cannot be had.
    """
    found = {}
    for partition, each in answers(ours.topics):
        check_code(each.error_code, "OffsetFetch", f"{where}, {partition}")
        if each.committed_offset >= 0:
            found[partition] = OffsetAndMetadata(each.committed_offset, each.metadata or "")
    return found
