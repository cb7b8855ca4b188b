"""Dead letters: invoices that fail are put aside, looked at, mended, and put back, each once.

Shows dead letters for what cannot be decoded and for what a function raises at, and what is done about them: one cause
is mended outside (a rate that was missing), and the records go back as they are; the other is in the records, and a job
of its own mends them on their way back. All of it is in a script:

    bash examples/dead_letter_replay.sh

This is the job, and what mends. Each has an application id of its own.

    streamlib run examples/dead_letter_replay.py
    streamlib run examples/dead_letter_replay.py:mend --application-id invoices-mend
"""

import msgspec

from streamlib import DeadLetter, StreamsBuilder


class Invoice(msgspec.Struct):
    """An invoice as it is in the topic; its key is the customer."""

    amount: float
    currency: str


class Rate(msgspec.Struct):
    """What one unit of a currency is worth, which is the key."""

    euros: float


class InEuros(msgspec.Struct):
    """The result."""

    euros: float


class NoRate(LookupError):
    """There is no rate for a currency."""


def in_euros(invoice: Invoice, rate: Rate | None) -> InEuros:
    """Invoices in a currency without a rate are not guessed at."""
    if rate is None:
        raise NoRate(f"no rate for {invoice.currency}")
    return InEuros(round(invoice.amount * rate.euros, 2))


def topology() -> StreamsBuilder:
    """Invoices in, the same in euros out."""
    builder = StreamsBuilder()
    rates = builder.global_table("rates", key=str, value=Rate, store="rates")
    invoices = builder.stream("invoices", key=str, value=Invoice, name="invoices")
    invoices.left_join(
        rates, in_euros, key_selector=lambda _, invoice: invoice.currency, result=InEuros, name="in-euros"
    ).to("invoices-in-euros")
    return builder


class Written(msgspec.Struct):
    """An invoice as one of our customers writes it: amounts are text, with a comma, as in "1.250,50"."""

    amount: str
    currency: str


def mended(written: Written) -> Invoice:
    """What was meant.

    Raises:
        ValueError: it is no number either way.
    """
    return Invoice(float(written.amount.replace(".", "").replace(",", ".")), written.currency)


def mend() -> StreamsBuilder:
    """Invoices to mend in, invoices out; what cannot be mended is for a person."""
    hopeless = DeadLetter("invoices-hopeless")
    builder = StreamsBuilder()
    (
        builder.stream("invoices-to-mend", key=str, value=Written, on_deserialization_error=hopeless)
        .map_values(mended, on_error=hopeless, name="mend")
        .to("invoices")
    )
    return builder


config = {
    "application_id": "invoices",
    "processing_guarantee": "exactly_once_v2",
    "on_deserialization_error": DeadLetter("invoices-failed"),
    "on_processing_error": DeadLetter("invoices-failed"),
}
