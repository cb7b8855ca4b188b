"""Consumer groups: membership of the classic protocol, and committed offsets."""

from streamlib.kafka.protocol.schema import Api, array
from streamlib.kafka.protocol.schema import Field as F

JOIN_GROUP = Api(
    "JoinGroup",
    key=11,
    versions=(4, 9),
    flexible=6,
    request=(
        F("group_id", "string"),
        F("session_timeout_ms", "int32"),
        F("rebalance_timeout_ms", "int32", default=-1),
        F("member_id", "string"),
        F("group_instance_id", "string", "5+", nullable="0+", default=None),
        F("protocol_type", "string"),
        array(
            "protocols",
            F("name", "string"),
            F("metadata", "bytes"),
        ),
        F("reason", "string", "8+", nullable="0+", default=None, ignorable=True),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        F("error_code", "int16"),
        F("generation_id", "int32", default=-1),
        F("protocol_type", "string", "7+", nullable="0+", default=None, ignorable=True),
        F("protocol_name", "string", nullable="7+"),
        F("leader", "string"),
        F("skip_assignment", "bool", "9+"),
        F("member_id", "string"),
        array(
            "members",
            F("member_id", "string"),
            F("group_instance_id", "string", "5+", nullable="0+", default=None, ignorable=True),
            F("metadata", "bytes"),
        ),
    ),
)

SYNC_GROUP = Api(
    "SyncGroup",
    key=14,
    versions=(2, 5),
    flexible=4,
    request=(
        F("group_id", "string"),
        F("generation_id", "int32"),
        F("member_id", "string"),
        F("group_instance_id", "string", "3+", nullable="0+", default=None),
        F("protocol_type", "string", "5+", nullable="0+", default=None, ignorable=True),
        F("protocol_name", "string", "5+", nullable="0+", default=None, ignorable=True),
        array(
            "assignments",
            F("member_id", "string"),
            F("assignment", "bytes"),
        ),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        F("error_code", "int16"),
        F("protocol_type", "string", "5+", nullable="0+", default=None, ignorable=True),
        F("protocol_name", "string", "5+", nullable="0+", default=None, ignorable=True),
        F("assignment", "bytes"),
    ),
)

HEARTBEAT = Api(
    "Heartbeat",
    key=12,
    versions=(2, 4),
    flexible=4,
    request=(
        F("group_id", "string"),
        F("generation_id", "int32"),
        F("member_id", "string"),
        F("group_instance_id", "string", "3+", nullable="0+", default=None),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        F("error_code", "int16"),
    ),
)

LEAVE_GROUP = Api(
    "LeaveGroup",
    key=13,
    versions=(2, 5),
    flexible=4,
    request=(
        F("group_id", "string"),
        F("member_id", "string", "0-2"),
        array(
            "members",
            F("member_id", "string"),
            F("group_instance_id", "string", nullable="0+", default=None),
            F("reason", "string", "5+", nullable="0+", default=None, ignorable=True),
            versions="3+",
        ),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        F("error_code", "int16"),
        array(
            "members",
            F("member_id", "string"),
            F("group_instance_id", "string", nullable="0+"),
            F("error_code", "int16"),
            versions="3+",
        ),
    ),
)

OFFSET_COMMIT = Api(
    "OffsetCommit",
    key=8,
    versions=(6, 9),
    flexible=8,
    request=(
        F("group_id", "string"),
        F("generation_id_or_member_epoch", "int32", default=-1),
        F("member_id", "string"),
        F("group_instance_id", "string", "7+", nullable="0+", default=None),
        array(
            "topics",
            F("name", "string"),
            array(
                "partitions",
                F("partition_index", "int32"),
                F("committed_offset", "int64"),
                F("committed_leader_epoch", "int32", default=-1),
                F("committed_metadata", "string", nullable="0+"),
            ),
        ),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        array(
            "topics",
            F("name", "string"),
            array(
                "partitions",
                F("partition_index", "int32"),
                F("error_code", "int16"),
            ),
        ),
    ),
)

OFFSET_FETCH = Api(
    "OffsetFetch",
    key=9,
    versions=(5, 9),
    flexible=6,
    request=(
        F("group_id", "string", "0-7"),
        array(
            "topics",
            F("name", "string"),
            F("partition_indexes", "[]int32"),
            versions="0-7",
            nullable="0+",
        ),
        array(
            "groups",
            F("group_id", "string"),
            F("member_id", "string", "9+", nullable="0+", default=None, ignorable=True),
            F("member_epoch", "int32", "9+", default=-1, ignorable=True),
            array(
                "topics",
                F("name", "string"),
                F("partition_indexes", "[]int32"),
                nullable="0+",
            ),
            versions="8+",
        ),
        F("require_stable", "bool", "7+"),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        array(
            "topics",
            F("name", "string"),
            array(
                "partitions",
                F("partition_index", "int32"),
                F("committed_offset", "int64"),
                F("committed_leader_epoch", "int32", default=-1),
                F("metadata", "string", nullable="0+"),
                F("error_code", "int16"),
            ),
            versions="0-7",
        ),
        F("error_code", "int16", "2-7", ignorable=True),
        array(
            "groups",
            F("group_id", "string"),
            array(
                "topics",
                F("name", "string"),
                array(
                    "partitions",
                    F("partition_index", "int32"),
                    F("committed_offset", "int64"),
                    F("committed_leader_epoch", "int32", default=-1),
                    F("metadata", "string", nullable="0+"),
                    F("error_code", "int16"),
                ),
            ),
            F("error_code", "int16"),
            versions="8+",
        ),
    ),
)

DESCRIBE_GROUPS = Api(
    "DescribeGroups",
    key=15,
    versions=(3, 6),
    flexible=5,
    request=(
        F("groups", "[]string"),
        F("include_authorized_operations", "bool"),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        array(
            "groups",
            F("error_code", "int16"),
            F("error_message", "string", "6+", nullable="0+", default=None),
            F("group_id", "string"),
            F("group_state", "string"),
            F("protocol_type", "string"),
            F("protocol_data", "string"),
            array(
                "members",
                F("member_id", "string"),
                F("group_instance_id", "string", "4+", nullable="0+", default=None, ignorable=True),
                F("client_id", "string"),
                F("client_host", "string"),
                F("member_metadata", "bytes"),
                F("member_assignment", "bytes"),
            ),
            F("authorized_operations", "int32", default=-2147483648),
        ),
    ),
)

LIST_GROUPS = Api(
    "ListGroups",
    key=16,
    versions=(2, 5),
    flexible=3,
    request=(
        F("states_filter", "[]string", "4+"),
        F("types_filter", "[]string", "5+"),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        F("error_code", "int16"),
        array(
            "groups",
            F("group_id", "string"),
            F("protocol_type", "string"),
            F("group_state", "string", "4+", ignorable=True),
            F("group_type", "string", "5+", ignorable=True),
        ),
    ),
)

DELETE_GROUPS = Api(
    "DeleteGroups",
    key=42,
    versions=(0, 2),
    flexible=2,
    request=(F("groups_names", "[]string"),),
    response=(
        F("throttle_time_ms", "int32"),
        array(
            "results",
            F("group_id", "string"),
            F("error_code", "int16"),
        ),
    ),
)
