"""Fraud detection: card payments are judged by several rules, and each alarm is raised once.

Shows tumbling and hopping windows that raise an alarm in the moment a limit is passed, not when they close; a processor
with a store of its own; a stream joined with a table. Payments may come in any order, up to five minutes late.

    streamlib broker topic customers card-payments fraud-alerts --partitions 2
    streamlib run examples/fraud_detection.py
    streamlib produce customers --json --recent --value json < examples/data/fraud_detection/customers.jsonl
    streamlib produce card-payments --json --recent --value json < examples/data/fraud_detection/card-payments.jsonl
    streamlib consume fraud-alerts --from-beginning --max 5
"""

from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from streamlib import (
    FixedKeyProcessorContext,
    FixedKeyRecord,
    KStream,
    Stores,
    StreamsBuilder,
    TimeWindows,
    Windowed,
)

MOST_PER_MINUTE = 3
FAR_ABOVE = 10  # times the average of the customer
ENOUGH = 5  # payments, to know an average

GRACE = timedelta(minutes=5)
A_MINUTE = TimeWindows.of_size(timedelta(minutes=1), grace=GRACE)
AN_HOUR = TimeWindows.of_size(timedelta(hours=1), grace=GRACE).advance_by(timedelta(minutes=30))


class Customer(msgspec.Struct):
    """A customer as they are in the topic, by id. Amounts are in cents."""

    name: str
    country: str
    hourly_limit: int


class Payment(msgspec.Struct):
    """A payment by card; its key is the customer's id."""

    amount: int
    country: str


class Known(msgspec.Struct):
    """A payment of a customer we know."""

    payment: Payment
    customer: Customer


class Alert(msgspec.Struct):
    """What goes to those who call the customer."""

    rule: Literal["too many", "too much", "unusual", "abroad"]
    name: str
    detail: str
    window: tuple[datetime, datetime] | None = None


class Spending(msgspec.Struct):
    """What a customer has spent in a window. `passed` is true for the payment that passes a limit, and no other."""

    payments: int = 0
    amount: int = 0
    passed: bool = False
    name: str = ""


class Average(msgspec.Struct, frozen=True):
    """What a customer has paid so far."""

    payments: int = 0
    amount: int = 0

    def is_far_below(self, amount: int) -> bool:
        """Whether it is known well enough, and the amount much more."""
        return self.payments >= ENOUGH and amount * self.payments > FAR_ABOVE * self.amount

    def plus(self, amount: int) -> "Average":
        """With one more payment."""
        return Average(self.payments + 1, self.amount + amount)


class AgainstAverage:
    """Compares each payment with those of its customer before it."""

    stores = (Stores.key_value_store("averages", key=str, value=Average),)

    def init(self, context: FixedKeyProcessorContext) -> None:
        """Called once for each task."""
        self._context = context
        self._averages = context.state_store("averages")

    def process(self, record: FixedKeyRecord[str, Known]) -> None:
        """Forward an alert if it is far above."""
        amount = record.value.payment.amount
        average: Average = self._averages.get(record.key) or Average()
        if average.is_far_below(amount):
            detail = f"{euros(amount)}, and {euros(average.amount // average.payments)} on average"
            self._context.forward(record.with_value(Alert("unusual", record.value.customer.name, detail)))
        self._averages.put(record.key, average.plus(amount))


def too_many(payments: KStream[str, Known]) -> KStream[str, Alert]:
    """More payments in a minute than somebody makes by hand."""

    def count(_: str, known: Known, before: Spending) -> Spending:
        payments = before.payments + 1
        return Spending(payments, passed=payments == MOST_PER_MINUTE + 1, name=known.customer.name)

    def alert(window: Windowed[str], spending: Spending) -> tuple[str, Alert]:
        return window.key, Alert("too many", spending.name, f"{spending.payments} payments", times(window))

    counts = payments.group_by_key().windowed_by(A_MINUTE).aggregate(Spending, count, store="payments-per-minute")
    return counts.to_stream().filter(lambda _, spending: spending.passed).map(alert)


def too_much(payments: KStream[str, Known]) -> KStream[str, Alert]:
    """More in an hour than the customer has agreed to; hours begin every half hour."""

    def add(_: str, known: Known, before: Spending) -> Spending:
        amount, limit = before.amount + known.payment.amount, known.customer.hourly_limit
        return Spending(before.payments + 1, amount, before.amount <= limit < amount, known.customer.name)

    def alert(window: Windowed[str], spending: Spending) -> tuple[str, Alert]:
        return window.key, Alert("too much", spending.name, euros(spending.amount), times(window))

    sums = payments.group_by_key().windowed_by(AN_HOUR).aggregate(Spending, add, store="spent-per-hour")
    return sums.to_stream().filter(lambda _, spending: spending.passed).map(alert)


def abroad(payments: KStream[str, Known]) -> KStream[str, Alert]:
    """A large amount in another country."""

    def alert(known: Known) -> Alert:
        return Alert("abroad", known.customer.name, f"{euros(known.payment.amount)} in {known.payment.country}")

    far = payments.filter(lambda _, known: known.payment.country != known.customer.country)
    return far.filter(lambda _, known: known.payment.amount >= 500_00).map_values(alert)


def euros(cents: int) -> str:
    """An amount for people."""
    return f"{cents // 100}.{cents % 100:02d} EUR"


def times(window: Windowed[str]) -> tuple[datetime, datetime]:
    """When a window begins and ends."""
    return datetime.fromtimestamp(window.start / 1000, UTC), datetime.fromtimestamp(window.end / 1000, UTC)


def topology() -> StreamsBuilder:
    """Payments in, alerts out."""
    builder = StreamsBuilder()
    customers = builder.table("customers", key=str, value=Customer, store="customers")
    payments = builder.stream("card-payments", key=str, value=Payment).join(customers, Known, result=Known)
    for rule in (too_many, too_much, abroad):
        rule(payments).to("fraud-alerts")
    payments.process_values(AgainstAverage, value=Alert).to("fraud-alerts")
    return builder


config = {"application_id": "fraud-detection", "processing_guarantee": "exactly_once_v2"}
