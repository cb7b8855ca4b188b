"""What a verification has found."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import msgspec

from streamlib.verify.hanging import OpenTransaction


class Verdict(Enum):
    """Whether the outputs are those of exactly-once processing."""

    HOLDS = "holds"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


class InputReport(msgspec.Struct, frozen=True):
    """A partition that is read. `start` is where its log begins, `processed` up to where it is processed (exclusive),
    `lag` how many offsets are left."""

    topic: str
    partition: int
    start: int
    processed: int
    lag: int


class Origin(msgspec.Struct, frozen=True):
    """The record of an input that another comes from."""

    topic: str
    partition: int
    offset: int


class Example(msgspec.Struct, frozen=True):
    """One record that is not as it should be.

    Attributes:
        kind: missing, duplicate, unexpected or different (`streamlib.verify.comparing.Difference`).
        certain: False if the results may rightly differ.
        topic: where it is, or should be.
        partition: likewise; None if it could be any.
        offset: None if it is not there.
        key: as text.
        expected: the value that should be there, as text.
        found: the value that is there, as text.
        input: what it comes from, if that is known.
        change: what else differs: timestamp or headers.
    """

    kind: str
    certain: bool
    topic: str
    partition: int | None
    offset: int | None
    key: str
    expected: str | None
    found: str | None
    input: Origin | None
    change: str | None = None


class TopicReport(msgspec.Struct, frozen=True):
    """A topic that is written to.

    Attributes:
        topic: its name.
        kind: "output", "changelog", or "repartition" if something waits there that should not.
        expected: how many records should be there; of a changelog, rows.
        found: how many are.
        missing: how many are not there.
        duplicates: how many are there once more than they should be.
        unexpected: how many are there that nothing leads to.
        different: how many are there instead of others.
        undecided: of how many keys it cannot be told.
        compared: how it was compared (`streamlib.verify.comparing.Comparison.name`), and for how many keys.
        reasons: why not all was compared record by record, or cannot be told.
        examples: a few of the records that are not as they should be.
    """

    topic: str
    kind: str
    expected: int
    found: int
    missing: int
    duplicates: int
    unexpected: int
    different: int
    undecided: int
    compared: dict[str, int]
    reasons: tuple[str, ...]
    examples: tuple[Example, ...]
    unknown: bool = False

    @property
    def violated(self) -> bool:
        """Whether something is certainly wrong."""
        return self.missing + self.duplicates + self.unexpected + self.different > 0


class Report(msgspec.Struct, frozen=True):
    """The whole. `reasons` are why nothing can be told of all that is read or written, `notes` what else to know."""

    application_id: str
    inputs: tuple[InputReport, ...]
    topics: tuple[TopicReport, ...]
    transactions: tuple[OpenTransaction, ...]
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def hanging(self) -> Sequence[OpenTransaction]:
        """The transactions that will not end by themselves."""
        return [each for each in self.transactions if each.hanging is not None]

    @property
    def verdict(self) -> Verdict:
        """Violated as soon as something is certainly wrong; unknown as long as something cannot be told."""
        if self.hanging or any(topic.violated for topic in self.topics):
            return Verdict.VIOLATED
        if self.reasons or any(topic.unknown or topic.undecided for topic in self.topics):
            return Verdict.UNKNOWN
        return Verdict.HOLDS
