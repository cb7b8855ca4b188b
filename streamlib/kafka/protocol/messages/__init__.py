"""The tables of the messages streamlib speaks."""

from collections.abc import Mapping
from types import MappingProxyType

from streamlib.kafka.protocol.messages import cluster, data, groups, streams, topics, transactions
from streamlib.kafka.protocol.schema import Api

APIS: Mapping[str, Api] = MappingProxyType(
    {
        api.name: api
        for module in (cluster, data, groups, streams, transactions, topics)
        for api in vars(module).values()
        if isinstance(api, Api)
    }
)
"""Every request by its name in the protocol."""
