"""What examples of a page take for granted: names that a reader would have from elsewhere."""

from __future__ import annotations

_IMPORTS = """
from datetime import timedelta
import msgspec
from streamlib import *
from streamlib import DeadLetter, FailedRecord, KafkaStreams, Record
from streamlib.testing import TopologyTestDriver, simulate

class Order(msgspec.Struct):
    user: str
    amount: float = 0.0

class Enriched(msgspec.Struct):
    order: Order
    profile: dict

class Receipt(msgspec.Struct):
    id: str

builder = StreamsBuilder()
"""

_CALLS = """
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
import httpx

async def with_profile(order: Order) -> Enriched:
    raise NotImplementedError

client = httpx.AsyncClient()
counts = builder.stream("counted", key=str, value=str).group_by_key().count(store="counts")
call = with_profile
"""

PREPARED: dict[str, str] = {
    "async.md": _IMPORTS + _CALLS,
    "faults.md": """
from streamlib import Record
inputs = {"words": [Record("to", "", 0), Record("be", "", 0)]}
""",
    "policies.md": _IMPORTS
    + _CALLS
    + """
async def charge(order: Order) -> Receipt:
    raise NotImplementedError

patient = Retry(delays=[timedelta(milliseconds=100)], then="fail")
""",
    # It signs requests to AWS, and is not among what the tests need.
    "security.md": """
import sys, types
signer = types.ModuleType("aws_msk_iam_sasl_signer")
signer.MSKAuthTokenProvider = type(
    "MSKAuthTokenProvider", (), {"generate_auth_token": staticmethod(lambda region: ("token", 2_000_000_000_000))}
)
sys.modules[signer.__name__] = signer
""",
    "streams-protocol.md": "from streamlib import StreamsConfig",
    "timestamps.md": _IMPORTS,
}

_SHOP_IN_TESTS = """
class Shop:
    works = True

    async def __call__(self, value: str) -> str:
        if not self.works:
            raise ConnectionError
        return value

shop = Shop()
service = Service("shop", breaker=CircuitBreaker(failures=1, open_for=timedelta(seconds=10)))
shopping = StreamsBuilder()
shopping.stream("in", key=str, value=str).map_values(shop, value=str, service=service).to("out")
driver = closing.enter_context(TopologyTestDriver(shopping.build()))
orders, out = driver.input_topic("in", key=str, value=str), driver.output_topic("out", key=str, value=str)
"""

BEFORE = {"shop.works = False": _SHOP_IN_TESTS}
"""By the first line of a block: what is needed there only."""
