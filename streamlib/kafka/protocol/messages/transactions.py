"""Producer ids and transactions (KIP-98, KIP-447, KIP-890)."""

from streamlib.kafka.protocol.schema import Api, array
from streamlib.kafka.protocol.schema import Field as F

INIT_PRODUCER_ID = Api(
    "InitProducerId",
    key=22,
    versions=(0, 5),
    flexible=2,
    request=(
        F("transactional_id", "string", nullable="0+"),
        F("transaction_timeout_ms", "int32"),
        F("producer_id", "int64", "3+", default=-1),
        F("producer_epoch", "int16", "3+", default=-1),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        F("error_code", "int16"),
        F("producer_id", "int64", default=-1),
        F("producer_epoch", "int16"),
    ),
)

ADD_PARTITIONS_TO_TXN = Api(
    "AddPartitionsToTxn",
    key=24,
    versions=(0, 3),
    flexible=3,
    request=(
        F("transactional_id", "string"),
        F("producer_id", "int64"),
        F("producer_epoch", "int16"),
        array(
            "topics",
            F("name", "string"),
            F("partitions", "[]int32"),
        ),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        array(
            "results_by_topic",
            F("name", "string"),
            array(
                "results_by_partition",
                F("partition_index", "int32"),
                F("partition_error_code", "int16"),
            ),
        ),
    ),
)

ADD_OFFSETS_TO_TXN = Api(
    "AddOffsetsToTxn",
    key=25,
    versions=(0, 4),
    flexible=3,
    request=(
        F("transactional_id", "string"),
        F("producer_id", "int64"),
        F("producer_epoch", "int16"),
        F("group_id", "string"),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        F("error_code", "int16"),
    ),
)

TXN_OFFSET_COMMIT = Api(
    "TxnOffsetCommit",
    key=28,
    versions=(2, 5),
    flexible=3,
    request=(
        F("transactional_id", "string"),
        F("group_id", "string"),
        F("producer_id", "int64"),
        F("producer_epoch", "int16"),
        F("generation_id", "int32", "3+", default=-1),
        F("member_id", "string", "3+"),
        F("group_instance_id", "string", "3+", nullable="0+", default=None),
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

END_TXN = Api(
    "EndTxn",
    key=26,
    versions=(0, 5),
    flexible=3,
    request=(
        F("transactional_id", "string"),
        F("producer_id", "int64"),
        F("producer_epoch", "int16"),
        F("committed", "bool"),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        F("error_code", "int16"),
        F("producer_id", "int64", "5+", default=-1, ignorable=True),
        F("producer_epoch", "int16", "5+", default=-1, ignorable=True),
    ),
)
