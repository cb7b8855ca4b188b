"""Where the answers of each API hold their error codes, and what an answer to a request looks like that says only that.

Facts: Kafka's message definitions (`streamlib/kafka/protocol/messages/`) and the javadoc of its response classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from streamlib.errors import ErrorCode

Body: TypeAlias = Mapping[str, Any]

# Codes about a coordinator, a group or a producer as such: said once for the whole request where there is room for it.
_ABOUT_ALL = frozenset(
    {
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
        ErrorCode.GROUP_AUTHORIZATION_FAILED,
        ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
        ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)


class Place(NamedTuple):
    """An API's answers: codes for the `whole`, codes of each `item` at the end of a path of arrays, or both."""

    answer: Callable[[Body, int], dict[str, Any]]  # to this request in this version, without any code yet
    whole: tuple[str, ...] | None = None  # arrays on the way to it; () is the answer itself
    item: tuple[str, ...] | None = None
    field: str = "error_code"

    def usual(self, code: ErrorCode) -> str:
        """Where a broker would say it."""
        if self.whole is None or (self.item is not None and code not in _ABOUT_ALL):
            return "each"
        return "whole"

    def wholes(self, body: Any) -> Iterator[Any]:
        assert self.whole is not None, "this API has no code for the whole request"
        holders = list(_walk(body, self.whole))
        # Older versions have the same field further up.
        yield from holders or [body]

    def items(self, body: Any) -> Iterator[Any]:
        assert self.item is not None, "this API has one code only"
        yield from _walk(body, self.item)


class Names(NamedTuple):
    """What a message calls topics, their names, their partitions and those numbers; numbers alone if `number` is ""."""

    topics: str = "topics"
    name: str = "name"
    partitions: str = "partitions"
    number: str = "partition_index"


def _walk(body: Any, path: tuple[str, ...]) -> Iterator[Any]:
    if not path:
        yield body
        return
    for element in getattr(body, path[0]) or ():
        yield from _walk(element, path[1:])


def _mirrored(asked: Names, answered: Names, **defaults: Any) -> Callable[[Body, int], dict[str, Any]]:
    """An answer with each partition of the request; `defaults` are fields of a partition that have none."""

    def answer(body: Body, version: int) -> dict[str, Any]:
        return {answered.topics: [topic(each) for each in body[asked.topics]]}

    def topic(each: Body) -> dict[str, Any]:
        numbers = [part[asked.number] if asked.number else part for part in each[asked.partitions]]
        partitions = [{answered.number: number, **defaults} for number in numbers]
        return {answered.name: each[asked.name], answered.partitions: partitions}

    return answer


def _empty(body: Body, version: int) -> dict[str, Any]:
    return {}


def _named(array: str, name: str, asked: str, asked_name: str) -> Callable[[Body, int], dict[str, Any]]:
    """An answer with each element of one of the request's arrays."""
    return lambda body, version: {array: [{name: each[asked_name]} for each in body[asked]]}


def _offset_fetch(body: Body, version: int) -> dict[str, Any]:
    topics = _mirrored(Names(number="", partitions="partition_indexes"), Names(), committed_offset=-1)
    if version < 8:
        return topics(body, version)
    return {"groups": [{"group_id": group["group_id"], **topics(group, version)} for group in body["groups"]]}


def _find_coordinator(body: Body, version: int) -> dict[str, Any]:
    if version < 4:
        return {"node_id": -1}
    return {"coordinators": [{"key": key, "node_id": -1} for key in body["coordinator_keys"]]}


def _leave_group(body: Body, version: int) -> dict[str, Any]:
    members = body["members"]
    return {"members": [{name: member[name] for name in ("member_id", "group_instance_id")} for member in members]}


_PARTITIONS = ("topics", "partitions")
_SAME = _mirrored(Names(), Names())

PLACES: Mapping[str, Place] = {
    "Produce": Place(
        _mirrored(
            Names("topic_data", "name", "partition_data", "index"),
            Names("responses", "name", "partition_responses", "index"),
            base_offset=-1,
        ),
        item=("responses", "partition_responses"),
    ),
    "Fetch": Place(
        _mirrored(Names(name="topic", number="partition"), Names("responses", "topic"), high_watermark=-1, records=b""),
        whole=(),
        item=("responses", "partitions"),
    ),
    "ListOffsets": Place(_SAME, item=_PARTITIONS),
    "DeleteRecords": Place(_SAME, item=_PARTITIONS),
    "JoinGroup": Place(_empty, whole=()),
    "SyncGroup": Place(_empty, whole=()),
    "Heartbeat": Place(_empty, whole=()),
    "LeaveGroup": Place(_leave_group, whole=(), item=("members",)),
    "OffsetCommit": Place(_SAME, item=_PARTITIONS),
    "OffsetFetch": Place(_offset_fetch, whole=("groups",), item=("groups", "topics", "partitions")),
    "InitProducerId": Place(_empty, whole=()),
    "AddPartitionsToTxn": Place(
        _mirrored(Names(number=""), Names("results_by_topic", "name", "results_by_partition")),
        item=("results_by_topic", "results_by_partition"),
        field="partition_error_code",
    ),
    "AddOffsetsToTxn": Place(_empty, whole=()),
    "TxnOffsetCommit": Place(_SAME, item=_PARTITIONS),
    "EndTxn": Place(_empty, whole=()),
    # A client takes no answer that names no broker, so only what a broker has said of the topics can be changed.
    "Metadata": Place(_empty, item=("topics",)),
    "FindCoordinator": Place(_find_coordinator, whole=("coordinators",)),
    "CreateTopics": Place(_named("topics", "name", "topics", "name"), item=("topics",)),
    "DescribeConfigs": Place(_named("results", "resource_name", "resources", "resource_name"), item=("results",)),
}
