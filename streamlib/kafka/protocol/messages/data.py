"""Records: writing, reading, asking for offsets, dropping what is consumed."""

from streamlib.kafka.protocol.schema import Api, array, struct
from streamlib.kafka.protocol.schema import Field as F

PRODUCE = Api(
    "Produce",
    key=0,
    versions=(3, 12),
    flexible=9,
    request=(
        F("transactional_id", "string", nullable="0+", default=None),
        F("acks", "int16"),
        F("timeout_ms", "int32"),
        array(
            "topic_data",
            F("name", "string"),
            array(
                "partition_data",
                F("index", "int32"),
                F("records", "records", nullable="0+"),
            ),
        ),
    ),
    response=(
        array(
            "responses",
            F("name", "string"),
            array(
                "partition_responses",
                F("index", "int32"),
                F("error_code", "int16"),
                F("base_offset", "int64"),
                F("log_append_time_ms", "int64", default=-1),
                F("log_start_offset", "int64", "5+", default=-1, ignorable=True),
                array(
                    "record_errors",
                    F("batch_index", "int32"),
                    F("batch_index_error_message", "string", nullable="0+", default=None),
                    versions="8+",
                    ignorable=True,
                ),
                F("error_message", "string", "8+", nullable="0+", default=None, ignorable=True),
                struct(
                    "current_leader",
                    F("leader_id", "int32", default=-1),
                    F("leader_epoch", "int32", default=-1),
                    versions="10+",
                    tag=0,
                ),
            ),
        ),
        F("throttle_time_ms", "int32"),
        array(
            "node_endpoints",
            F("node_id", "int32"),
            F("host", "string"),
            F("port", "int32"),
            F("rack", "string", nullable="0+", default=None),
            versions="10+",
            tag=0,
        ),
    ),
)

FETCH = Api(
    "Fetch",
    key=1,
    versions=(4, 12),
    flexible=12,
    request=(
        F("cluster_id", "string", "12+", nullable="0+", default=None, tag=0, ignorable=True),
        F("replica_id", "int32", default=-1),
        F("max_wait_ms", "int32"),
        F("min_bytes", "int32"),
        F("max_bytes", "int32", default=2147483647),
        F("isolation_level", "int8"),
        F("session_id", "int32", "7+", ignorable=True),
        F("session_epoch", "int32", "7+", default=-1, ignorable=True),
        array(
            "topics",
            F("topic", "string"),
            array(
                "partitions",
                F("partition", "int32"),
                F("current_leader_epoch", "int32", "9+", default=-1, ignorable=True),
                F("fetch_offset", "int64"),
                F("last_fetched_epoch", "int32", "12+", default=-1),
                F("log_start_offset", "int64", "5+", default=-1, ignorable=True),
                F("partition_max_bytes", "int32"),
            ),
        ),
        array(
            "forgotten_topics_data",
            F("topic", "string"),
            F("partitions", "[]int32"),
            versions="7+",
        ),
        F("rack_id", "string", "11+", ignorable=True),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        F("error_code", "int16", "7+", ignorable=True),
        F("session_id", "int32", "7+"),
        array(
            "responses",
            F("topic", "string"),
            array(
                "partitions",
                F("partition_index", "int32"),
                F("error_code", "int16"),
                F("high_watermark", "int64"),
                F("last_stable_offset", "int64", default=-1),
                F("log_start_offset", "int64", "5+", default=-1, ignorable=True),
                struct(
                    "diverging_epoch",
                    F("epoch", "int32", default=-1),
                    F("end_offset", "int64", default=-1),
                    versions="12+",
                    tag=0,
                ),
                struct(
                    "current_leader",
                    F("leader_id", "int32", default=-1),
                    F("leader_epoch", "int32", default=-1),
                    versions="12+",
                    tag=1,
                ),
                struct(
                    "snapshot_id",
                    F("end_offset", "int64", default=-1),
                    F("epoch", "int32", default=-1),
                    versions="12+",
                    tag=2,
                ),
                array(
                    "aborted_transactions",
                    F("producer_id", "int64"),
                    F("first_offset", "int64"),
                    nullable="0+",
                ),
                F("preferred_read_replica", "int32", "11+", default=-1),
                F("records", "records", nullable="0+"),
            ),
        ),
    ),
)

LIST_OFFSETS = Api(
    "ListOffsets",
    key=2,
    versions=(2, 7),
    flexible=6,
    request=(
        F("replica_id", "int32", default=-1),
        F("isolation_level", "int8"),
        array(
            "topics",
            F("name", "string"),
            array(
                "partitions",
                F("partition_index", "int32"),
                F("current_leader_epoch", "int32", "4+", default=-1, ignorable=True),
                F("timestamp", "int64"),
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
                F("timestamp", "int64", default=-1),
                F("offset", "int64", default=-1),
                F("leader_epoch", "int32", "4+", default=-1),
            ),
        ),
    ),
)

DELETE_RECORDS = Api(
    "DeleteRecords",
    key=21,
    versions=(0, 2),
    flexible=2,
    request=(
        array(
            "topics",
            F("name", "string"),
            array(
                "partitions",
                F("partition_index", "int32"),
                F("offset", "int64"),
            ),
        ),
        F("timeout_ms", "int32"),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        array(
            "topics",
            F("name", "string"),
            array(
                "partitions",
                F("partition_index", "int32"),
                F("low_watermark", "int64"),
                F("error_code", "int16"),
            ),
        ),
    ),
)
