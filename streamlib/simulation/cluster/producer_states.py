"""What the leader of a partition remembers of each producer that writes to it (KIP-98, KIP-360).

A producer numbers its records for each partition. The leader remembers the last five batches, so that it knows one
that is sent again, and refuses one that comes after a gap:

    epoch      sequence                     what happens
    older      any                          INVALID_PRODUCER_EPOCH
    same       one of the last five         nothing: the answer of the first time is given again
    same       the next one                 accepted; 0 comes after 2^31 - 1
    same       any other                    OUT_OF_ORDER_SEQUENCE_NUMBER
    newer      0                            accepted, the older epoch is over
    newer      any other                    OUT_OF_ORDER_SEQUENCE_NUMBER
    none seen  any                          accepted: retention may have removed what came before;
                                            not in a transaction with KIP-890, where it must be 0

Sources: `ProducerAppendInfo`, `ProducerStateEntry` (Kafka 4.3), and what brokers 4.3.1 and 3.9.2 say to each case.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from streamlib.errors import ErrorCode
from streamlib.kafka.batches import BatchHeader, next_sequence
from streamlib.simulation.cluster.basics import Refused

_REMEMBERED = 5
_NO_EPOCH = -1


class _Batch(NamedTuple):
    first_sequence: int
    next_sequence: int
    base_offset: int


class ProducerState:
    """One producer id in one partition."""

    __slots__ = ("_batches", "epoch")

    def __init__(self) -> None:
        self.epoch = _NO_EPOCH
        self._batches: deque[_Batch] = deque(maxlen=_REMEMBERED)  # all of this epoch, oldest first

    def duplicate(self, header: BatchHeader) -> int | None:
        """Where the batch was written when it came for the first time; None if it is new."""
        if header.producer_epoch != self.epoch:
            return None
        sent = (header.base_sequence, _after(header))
        return next((batch.base_offset for batch in self._batches if batch[:2] == sent), None)

    def check(self, header: BatchHeader, *, begins_at_zero: bool) -> None:
        """Raise `Refused` unless the batch is the next one; with `begins_at_zero` the first of all has to be 0."""
        if header.producer_epoch < self.epoch:
            raise Refused(ErrorCode.INVALID_PRODUCER_EPOCH)
        expected = self._expected(header.producer_epoch, begins_at_zero)
        if expected is not None and header.base_sequence != expected:
            raise Refused(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER)

    def remember(self, header: BatchHeader, base_offset: int) -> None:
        """The batch has been written."""
        self._enter(header.producer_epoch)
        self._batches.append(_Batch(header.base_sequence, _after(header), base_offset))

    def end_transaction(self, epoch: int) -> None:
        """A marker of this epoch has been written; older epochs are over (KIP-890 makes each marker's a new one).

        Raises `Refused` if a newer producer has been here.
        """
        if epoch < self.epoch:
            raise Refused(ErrorCode.INVALID_PRODUCER_EPOCH)
        self._enter(epoch)

    def _expected(self, epoch: int, begins_at_zero: bool) -> int | None:
        """The sequence number that has to come next; None if any may."""
        if self.epoch == _NO_EPOCH and not begins_at_zero:
            return None
        if epoch != self.epoch or not self._batches:
            return 0
        return self._batches[-1].next_sequence

    def _enter(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch = epoch
            self._batches.clear()


def _after(header: BatchHeader) -> int:
    return next_sequence(header.base_sequence, header.last_offset_delta + 1)
