"""What group members tell each other through the coordinator: the consumer protocol (KIP-429, KIP-792)."""

from streamlib.kafka.protocol.schema import NEWEST, Message, array
from streamlib.kafka.protocol.schema import Field as F

SUBSCRIPTION = Message(
    "ConsumerProtocolSubscription",
    versions=(0, 3),
    flexible=NEWEST,
    fields=(
        F("topics", "[]string"),
        F("user_data", "bytes", nullable="0+", default=None),
        array(
            "owned_partitions",
            F("topic", "string"),
            F("partitions", "[]int32"),
            versions="1+",
            ignorable=True,
        ),
        F("generation_id", "int32", "2+", default=-1, ignorable=True),
        F("rack_id", "string", "3+", nullable="3+", default=None, ignorable=True),
    ),
)

ASSIGNMENT = Message(
    "ConsumerProtocolAssignment",
    versions=(0, 3),
    flexible=NEWEST,
    fields=(
        array(
            "assigned_partitions",
            F("topic", "string"),
            F("partitions", "[]int32"),
        ),
        F("user_data", "bytes", nullable="0+", default=None),
    ),
)
