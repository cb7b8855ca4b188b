"""Topics and their configuration."""

from streamlib.kafka.protocol.schema import Api, array
from streamlib.kafka.protocol.schema import Field as F

CREATE_TOPICS = Api(
    "CreateTopics",
    key=19,
    versions=(4, 7),
    flexible=5,
    request=(
        array(
            "topics",
            F("name", "string"),
            F("num_partitions", "int32"),
            F("replication_factor", "int16"),
            array(
                "assignments",
                F("partition_index", "int32"),
                F("broker_ids", "[]int32"),
            ),
            array(
                "configs",
                F("name", "string"),
                F("value", "string", nullable="0+"),
            ),
        ),
        F("timeout_ms", "int32", default=60000),
        F("validate_only", "bool"),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        array(
            "topics",
            F("name", "string"),
            F("topic_id", "uuid", "7+", ignorable=True),
            F("error_code", "int16"),
            F("error_message", "string", nullable="0+"),
            F("topic_config_error_code", "int16", "5+", tag=0, ignorable=True),
            F("num_partitions", "int32", "5+", default=-1, ignorable=True),
            F("replication_factor", "int16", "5+", default=-1, ignorable=True),
            array(
                "configs",
                F("name", "string"),
                F("value", "string", nullable="0+"),
                F("read_only", "bool"),
                F("config_source", "int8", default=-1),
                F("is_sensitive", "bool"),
                versions="5+",
                nullable="0+",
                ignorable=True,
            ),
        ),
    ),
)

DELETE_TOPICS = Api(
    "DeleteTopics",
    key=20,
    versions=(3, 5),
    flexible=4,
    request=(
        F("topic_names", "[]string"),
        F("timeout_ms", "int32"),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        array(
            "responses",
            F("name", "string"),
            F("error_code", "int16"),
            F("error_message", "string", "5+", nullable="0+", default=None, ignorable=True),
        ),
    ),
)

CREATE_PARTITIONS = Api(
    "CreatePartitions",
    key=37,
    versions=(1, 3),
    flexible=2,
    request=(
        array(
            "topics",
            F("name", "string"),
            F("count", "int32"),
            array(
                "assignments",
                F("broker_ids", "[]int32"),
                nullable="0+",
            ),
        ),
        F("timeout_ms", "int32"),
        F("validate_only", "bool"),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        array(
            "results",
            F("name", "string"),
            F("error_code", "int16"),
            F("error_message", "string", nullable="0+", default=None),
        ),
    ),
)

DESCRIBE_CONFIGS = Api(
    "DescribeConfigs",
    key=32,
    versions=(2, 4),
    flexible=4,
    request=(
        array(
            "resources",
            F("resource_type", "int8"),
            F("resource_name", "string"),
            F("configuration_keys", "[]string", nullable="0+"),
        ),
        F("include_synonyms", "bool"),
        F("include_documentation", "bool", "3+"),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        array(
            "results",
            F("error_code", "int16"),
            F("error_message", "string", nullable="0+"),
            F("resource_type", "int8"),
            F("resource_name", "string"),
            array(
                "configs",
                F("name", "string"),
                F("value", "string", nullable="0+"),
                F("read_only", "bool"),
                F("config_source", "int8", default=-1),
                F("is_sensitive", "bool"),
                array(
                    "synonyms",
                    F("name", "string"),
                    F("value", "string", nullable="0+"),
                    F("source", "int8"),
                ),
                F("config_type", "int8", "3+", ignorable=True),
                F("documentation", "string", "3+", nullable="0+", ignorable=True),
            ),
        ),
    ),
)

INCREMENTAL_ALTER_CONFIGS = Api(
    "IncrementalAlterConfigs",
    key=44,
    versions=(0, 1),
    flexible=1,
    request=(
        array(
            "resources",
            F("resource_type", "int8"),
            F("resource_name", "string"),
            array(
                "configs",
                F("name", "string"),
                F("config_operation", "int8"),
                F("value", "string", nullable="0+"),
            ),
        ),
        F("validate_only", "bool"),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        array(
            "responses",
            F("error_code", "int16"),
            F("error_message", "string", nullable="0+"),
            F("resource_type", "int8"),
            F("resource_name", "string"),
        ),
    ),
)
