"""Finding one's way: which versions a broker speaks, who leads what, who coordinates whom."""

from streamlib.kafka.protocol.schema import Api, array
from streamlib.kafka.protocol.schema import Field as F

API_VERSIONS = Api(
    "ApiVersions",
    key=18,
    versions=(0, 4),
    flexible=3,
    request=(
        F("client_software_name", "string", "3+", ignorable=True),
        F("client_software_version", "string", "3+", ignorable=True),
    ),
    response=(
        F("error_code", "int16"),
        array(
            "api_keys",
            F("api_key", "int16"),
            F("min_version", "int16"),
            F("max_version", "int16"),
        ),
        F("throttle_time_ms", "int32", "1+", ignorable=True),
        array(
            "supported_features",
            F("name", "string"),
            F("min_version", "int16"),
            F("max_version", "int16"),
            versions="3+",
            tag=0,
            ignorable=True,
        ),
        F("finalized_features_epoch", "int64", "3+", default=-1, tag=1, ignorable=True),
        array(
            "finalized_features",
            F("name", "string"),
            F("max_version_level", "int16"),
            F("min_version_level", "int16"),
            versions="3+",
            tag=2,
            ignorable=True,
        ),
        F("zk_migration_ready", "bool", "3+", tag=3, ignorable=True),
    ),
)

SASL_HANDSHAKE = Api(
    "SaslHandshake",
    key=17,
    versions=(1, 1),
    flexible=2,
    request=(F("mechanism", "string"),),
    response=(
        F("error_code", "int16"),
        F("mechanisms", "[]string"),
    ),
)

SASL_AUTHENTICATE = Api(
    "SaslAuthenticate",
    key=36,
    versions=(1, 2),
    flexible=2,
    request=(F("auth_bytes", "bytes"),),
    response=(
        F("error_code", "int16"),
        F("error_message", "string", nullable="0+"),
        F("auth_bytes", "bytes"),
        F("session_lifetime_ms", "int64", "1+", default=0, ignorable=True),
    ),
)

METADATA = Api(
    "Metadata",
    key=3,
    versions=(5, 12),
    flexible=9,
    request=(
        array(
            "topics",
            F("topic_id", "uuid", "10+", ignorable=True),
            F("name", "string", nullable="10+"),
            nullable="0+",
        ),
        F("allow_auto_topic_creation", "bool", default=True),
        F("include_cluster_authorized_operations", "bool", "8-10"),
        F("include_topic_authorized_operations", "bool", "8+"),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        array(
            "brokers",
            F("node_id", "int32"),
            F("host", "string"),
            F("port", "int32"),
            F("rack", "string", nullable="0+", default=None),
        ),
        F("cluster_id", "string", nullable="0+", default=None),
        F("controller_id", "int32", default=-1),
        array(
            "topics",
            F("error_code", "int16"),
            F("name", "string", nullable="12+"),
            F("topic_id", "uuid", "10+", ignorable=True),
            F("is_internal", "bool"),
            array(
                "partitions",
                F("error_code", "int16"),
                F("partition_index", "int32"),
                F("leader_id", "int32"),
                F("leader_epoch", "int32", "7+", default=-1, ignorable=True),
                F("replica_nodes", "[]int32"),
                F("isr_nodes", "[]int32"),
                F("offline_replicas", "[]int32"),
            ),
            F("topic_authorized_operations", "int32", "8+", default=-2147483648),
        ),
        F("cluster_authorized_operations", "int32", "8-10", default=-2147483648),
    ),
)

FIND_COORDINATOR = Api(
    "FindCoordinator",
    key=10,
    versions=(1, 4),
    flexible=3,
    request=(
        F("key", "string", "0-3"),
        F("key_type", "int8"),
        F("coordinator_keys", "[]string", "4+"),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        F("error_code", "int16", "0-3"),
        F("error_message", "string", "1-3", nullable="0+", ignorable=True),
        F("node_id", "int32", "0-3"),
        F("host", "string", "0-3"),
        F("port", "int32", "0-3"),
        array(
            "coordinators",
            F("key", "string"),
            F("node_id", "int32"),
            F("host", "string"),
            F("port", "int32"),
            F("error_code", "int16"),
            F("error_message", "string", nullable="0+"),
            versions="4+",
        ),
    ),
)
