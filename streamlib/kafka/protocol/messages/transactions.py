"""Producer ids and transactions (KIP-98, KIP-447, KIP-890), and what is known of open ones (KIP-664)."""

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

DESCRIBE_PRODUCERS = Api(
    "DescribeProducers",
    key=61,
    versions=(0, 0),
    flexible=0,
    request=(
        array(
            "topics",
            F("name", "string"),
            F("partition_indexes", "[]int32"),
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
                F("error_message", "string", nullable="0+", default=None),
                array(
                    "active_producers",
                    F("producer_id", "int64"),
                    F("producer_epoch", "int32"),
                    F("last_sequence", "int32", default=-1),
                    F("last_timestamp", "int64", default=-1),
                    F("coordinator_epoch", "int32"),
                    F("current_txn_start_offset", "int64", default=-1),
                ),
            ),
        ),
    ),
)

DESCRIBE_TRANSACTIONS = Api(
    "DescribeTransactions",
    key=65,
    versions=(0, 0),
    flexible=0,
    request=(F("transactional_ids", "[]string"),),
    response=(
        F("throttle_time_ms", "int32"),
        array(
            "transaction_states",
            F("error_code", "int16"),
            F("transactional_id", "string"),
            F("transaction_state", "string"),
            F("transaction_timeout_ms", "int32"),
            F("transaction_start_time_ms", "int64"),
            F("producer_id", "int64"),
            F("producer_epoch", "int16"),
            array(
                "topics",
                F("topic", "string"),
                F("partitions", "[]int32"),
            ),
        ),
    ),
)

LIST_TRANSACTIONS = Api(
    "ListTransactions",
    key=66,
    versions=(0, 2),
    flexible=0,
    request=(
        F("state_filters", "[]string"),
        F("producer_id_filters", "[]int64"),
        F("duration_filter", "int64", "1+", default=-1),
        F("transactional_id_pattern", "string", "2+", nullable="2+", default=None),
    ),
    response=(
        F("throttle_time_ms", "int32"),
        F("error_code", "int16"),
        F("unknown_state_filters", "[]string"),
        array(
            "transaction_states",
            F("transactional_id", "string"),
            F("producer_id", "int64"),
            F("transaction_state", "string"),
        ),
    ),
)
