"""Streams groups: membership of the protocol in which the coordinator assigns tasks (KIP-1071)."""

from typing import Any

from streamlib.kafka.protocol.schema import Api, Field, array, struct
from streamlib.kafka.protocol.schema import Field as F


def _tasks(name: str, *, nullable: str = "") -> Field:
    """Tasks, nested by subtopology."""
    fields = (F("subtopology_id", "string"), F("partitions", "[]int32"))
    return array(name, *fields, **_optional(nullable))


def _topics(name: str) -> Field:
    """Internal topics as they have to be; 0 partitions are as many as their sources have, 0 replicas the default."""
    return array(
        name,
        F("name", "string"),
        F("partitions", "int32"),
        F("replication_factor", "int16"),
        _pairs("topic_configs"),
    )


def _pairs(name: str, *, nullable: str = "") -> Field:
    fields = (F("key", "string"), F("value", "string"))
    return array(name, *fields, **_optional(nullable))


def _offsets(name: str, *, nullable: str = "") -> Field:
    """How far the stores of tasks are, as sums over their changelogs."""
    fields = (F("subtopology_id", "string"), F("partition", "int32"), F("offset", "int64"))
    return array(name, *fields, **_optional(nullable))


def _optional(nullable: str) -> dict[str, Any]:
    return {"nullable": nullable, "default": None} if nullable else {}


def _assignment(name: str) -> Field:
    return struct(name, _tasks("active_tasks"), _tasks("standby_tasks"), _tasks("warmup_tasks"))


_ENDPOINT = (F("host", "string"), F("port", "uint16"))

STREAMS_GROUP_HEARTBEAT = Api(
    "StreamsGroupHeartbeat",
    key=88,
    versions=(0, 0),
    flexible=0,
    request=(
        F("group_id", "string"),
        F("member_id", "string"),
        F("member_epoch", "int32"),
        F("endpoint_information_epoch", "int32"),
        F("instance_id", "string", nullable="0+", default=None),
        F("rack_id", "string", nullable="0+", default=None),
        F("rebalance_timeout_ms", "int32", default=-1),
        struct(
            "topology",
            F("epoch", "int32"),
            array(
                "subtopologies",
                F("subtopology_id", "string"),
                F("source_topics", "[]string"),
                F("source_topic_regex", "[]string"),
                _topics("state_changelog_topics"),
                F("repartition_sink_topics", "[]string"),
                _topics("repartition_source_topics"),
                array(
                    "copartition_groups",
                    F("source_topics", "[]int16"),
                    F("source_topic_regex", "[]int16"),
                    F("repartition_source_topics", "[]int16"),
                ),
            ),
            nullable="0+",
            default=None,
        ),
        _tasks("active_tasks", nullable="0+"),
        _tasks("standby_tasks", nullable="0+"),
        _tasks("warmup_tasks", nullable="0+"),
        F("process_id", "string", nullable="0+", default=None),
        struct("user_endpoint", *_ENDPOINT, nullable="0+", default=None),
        _pairs("client_tags", nullable="0+"),
        _offsets("task_offsets", nullable="0+"),
        _offsets("task_end_offsets", nullable="0+"),
        F("shutdown_application", "bool"),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        F("error_code", "int16"),
        F("error_message", "string", nullable="0+", default=None),
        F("member_id", "string"),
        F("member_epoch", "int32"),
        F("heartbeat_interval_ms", "int32"),
        F("acceptable_recovery_lag", "int32"),
        F("task_offset_interval_ms", "int32"),
        array("status", F("status_code", "int8"), F("status_detail", "string"), nullable="0+"),
        _tasks("active_tasks", nullable="0+"),
        _tasks("standby_tasks", nullable="0+"),
        _tasks("warmup_tasks", nullable="0+"),
        F("endpoint_information_epoch", "int32"),
        array(
            "partitions_by_user_endpoint",
            struct("user_endpoint", *_ENDPOINT),
            array("active_partitions", F("topic", "string"), F("partitions", "[]int32")),
            array("standby_partitions", F("topic", "string"), F("partitions", "[]int32")),
            nullable="0+",
            default=None,
        ),
    ),
)

STREAMS_GROUP_DESCRIBE = Api(
    "StreamsGroupDescribe",
    key=89,
    versions=(0, 0),
    flexible=0,
    request=(
        F("group_ids", "[]string"),
        F("include_authorized_operations", "bool"),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        array(
            "groups",
            F("error_code", "int16"),
            F("error_message", "string", nullable="0+", default=None),
            F("group_id", "string"),
            F("group_state", "string"),
            F("group_epoch", "int32"),
            F("assignment_epoch", "int32"),
            struct(
                "topology",
                F("epoch", "int32"),
                array(
                    "subtopologies",
                    F("subtopology_id", "string"),
                    F("source_topics", "[]string"),
                    F("repartition_sink_topics", "[]string"),
                    _topics("state_changelog_topics"),
                    _topics("repartition_source_topics"),
                    nullable="0+",
                    default=None,
                ),
                nullable="0+",
                default=None,
            ),
            array(
                "members",
                F("member_id", "string"),
                F("member_epoch", "int32"),
                F("instance_id", "string", nullable="0+", default=None),
                F("rack_id", "string", nullable="0+", default=None),
                F("client_id", "string"),
                F("client_host", "string"),
                F("topology_epoch", "int32"),
                F("process_id", "string"),
                struct("user_endpoint", *_ENDPOINT, nullable="0+", default=None),
                _pairs("client_tags"),
                _offsets("task_offsets"),
                _offsets("task_end_offsets"),
                _assignment("assignment"),
                _assignment("target_assignment"),
                F("is_classic", "bool"),
            ),
            F("authorized_operations", "int32", default=-2147483648),
        ),
    ),
)
