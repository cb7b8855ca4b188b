"""What the transaction coordinator knows of one transactional id, and what it decides by that.

    EMPTY, COMPLETE_*        ── add ──────────────────────> ONGOING
    ONGOING                  ── end, fence ───────────────> PREPARE_COMMIT or PREPARE_ABORT
    EMPTY, COMPLETE_*        ── abort of nothing, KIP-890 ─> PREPARE_ABORT
    PREPARE_*                ── all markers are written ──> COMPLETE_*
    EMPTY, COMPLETE_*        ── init ─────────────────────> EMPTY

While it is in one of the PREPARE states, requests of its owner get CONCURRENT_TRANSACTIONS. Who is the owner is a
matter of producer id and epoch:

    init                    a new epoch, which fences the one before
    init as owner (KIP-360) a new epoch for the owner only; asked again, the same answer
    end, before KIP-890     the epoch stays
    end, KIP-890            a new epoch for the owner; asked again with the old one, the same answer
    fence (a timeout, or    before KIP-890 a new epoch that nobody is told;
    init of an open one)    with KIP-890 the same as `end` with an abort: its owner can find that out and go on

Sources: `TransactionCoordinator`, `TransactionMetadata` (Kafka 4.3 and 3.9), and what brokers of both say to each case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple

from streamlib.errors import ErrorCode
from streamlib.records import TopicPartition
from streamlib.simulation.cluster.basics import Refused

NO_PRODUCER = -1
LAST_EPOCH = 2**15 - 2
"""The last one a client gets to see; one more is left to fence it with."""
_NO_EPOCH = -1
_NO_START = -1.0


class State(Enum):
    """What becomes of the transaction, or became of the last one."""

    EMPTY = "empty"
    ONGOING = "ongoing"
    PREPARE_COMMIT = "being committed"
    PREPARE_ABORT = "being aborted"
    COMPLETE_COMMIT = "committed"
    COMPLETE_ABORT = "aborted"


_PREPARE = {True: State.PREPARE_COMMIT, False: State.PREPARE_ABORT}
_COMPLETE = {True: State.COMPLETE_COMMIT, False: State.COMPLETE_ABORT}


class Owner(NamedTuple):
    """Who says that it is the producer."""

    producer_id: int
    epoch: int


class TransactionalId:
    """One transactional id. Methods that are refused change nothing.

    Args:
        name: the transactional id.
        producer_id: its first producer id; the first `init` makes an epoch.
        version: 2 with KIP-890, 1 before.
    """

    def __init__(self, name: str, producer_id: int, version: int) -> None:
        self.name = name
        self.producer_id = producer_id
        self.epoch = _NO_EPOCH
        self.state = State.EMPTY
        self.timeout_ms = 0
        self.started_ms = _NO_START
        self.partitions: dict[TopicPartition, None] = {}  # with what is written; a marker takes one out
        self.groups: dict[str, None] = {}  # likewise
        self._version = version
        self._last_epoch = _NO_EPOCH  # of the owner before it was given this one; unknown after a plain `init`
        self._previous_id = NO_PRODUCER  # of the state before
        self._next_id = NO_PRODUCER  # takes over when the markers are written: there are no more epochs

    @property
    def ending(self) -> bool:
        """Whether markers are still to be written."""
        return self.state in _PREPARE.values()

    @property
    def commits(self) -> bool:
        """The outcome, while `ending`."""
        return self.state is State.PREPARE_COMMIT

    @property
    def open(self) -> bool:
        """Whether there is a transaction that is not complete."""
        return self.ending or self.state is State.ONGOING

    @property
    def told(self) -> Owner:
        """What the owner is told of itself: with it the next transaction begins."""
        return Owner(self._next_id, 0) if self._next_id != NO_PRODUCER else Owner(self.producer_id, self.epoch)

    # Ownership

    def check_owner(self, who: Owner) -> None:
        """Raise `Refused` unless this is the producer that may write, and nothing is being ended."""
        self._check_is(who)
        self._check_settled()

    def check_add(self, who: Owner) -> None:
        """The same, before `add`; with KIP-890 everybody is told to wait, the owner may have an epoch yet to come."""
        if self._version >= 2:
            self._check_settled()
        self.check_owner(who)

    def check_init(self, who: Owner | None) -> None:
        """Raise `Refused` unless it may be initialised, once an open transaction is aborted."""
        self._check_settled()
        if who is None or self.epoch == _NO_EPOCH or who.producer_id == self.producer_id:
            return
        if who != Owner(self._previous_id, LAST_EPOCH):
            raise Refused(ErrorCode.PRODUCER_FENCED)

    def init(self, who: Owner | None, timeout_ms: int, new_producer_id: Callable[[], int]) -> None:
        """Give out an epoch, after `check_init`.

        Args:
            who: the owner that goes on (KIP-360); None for whoever comes.
            timeout_ms: of its transactions.
            new_producer_id: asked for one when there are no more epochs.
        """
        assert not self.open, f"{self.name} is initialised while {self.state.value}"
        if who is not None and self.epoch != _NO_EPOCH and who.epoch != self.epoch:
            if who.epoch != self._last_epoch:
                raise Refused(ErrorCode.PRODUCER_FENCED)
            self._move(State.EMPTY)  # it asks again: it has its epoch
        else:
            last_epoch = self.epoch if who is not None else _NO_EPOCH
            self._move(State.EMPTY)
            self._raise_epoch(new_producer_id)
            self._last_epoch = last_epoch
        self.timeout_ms = timeout_ms

    # The transaction

    def add(self, partitions: Iterable[TopicPartition], groups: Iterable[str], now_ms: float) -> bool:
        """Make them part of the transaction; returns whether it begins with that."""
        assert not self.ending, "its owner was checked"
        begins = self.state is not State.ONGOING
        if begins:
            self._move(State.ONGOING)
            self.started_ms = now_ms
        self.partitions.update(dict.fromkeys(partitions))
        self.groups.update(dict.fromkeys(groups))
        return begins

    def end(self, who: Owner, *, commit: bool) -> bool:
        """End the transaction as before KIP-890; returns whether there are markers to write.

        If not, the last one has had this outcome. Raises `Refused`.
        """
        self.check_owner(who)
        if self.state is State.ONGOING:
            self._move(_PREPARE[commit])
            return True
        if self.state is not _COMPLETE[commit]:
            raise Refused(ErrorCode.INVALID_TXN_STATE)
        return False

    def end_with_new_epoch(self, who: Owner, *, commit: bool, new_producer_id: Callable[[], int]) -> bool:
        """End the transaction as with KIP-890: as `end`, but an abort of nothing is fine."""
        self._check_settled()
        if self._asks_again(who):
            if self.state is not _COMPLETE[commit]:
                raise Refused(ErrorCode.INVALID_TXN_STATE)
            return False
        self._check_is(who)
        if commit and self.state is not State.ONGOING:
            raise Refused(ErrorCode.INVALID_TXN_STATE)
        if self.epoch >= LAST_EPOCH:
            self._next_id = new_producer_id()
        self._last_epoch, self.epoch = self.epoch, self.epoch + 1
        self._move(_PREPARE[commit])
        return True

    def fence(self) -> None:
        """Abort the open transaction without its owner."""
        assert self.state is State.ONGOING, f"{self.name} is fenced while {self.state.value}"
        self._last_epoch = self.epoch if self._version >= 2 else _NO_EPOCH
        self.epoch += 1
        self._move(State.PREPARE_ABORT)

    def complete(self) -> None:
        """All markers are written."""
        assert self.ending, f"{self.name} is complete while {self.state.value}"
        assert not self.partitions, f"{self.name} is complete without markers"
        assert not self.groups, f"{self.name} is complete without markers"
        owner = self.told
        self._move(_COMPLETE[self.commits])
        self.producer_id, self.epoch = owner
        self._next_id = NO_PRODUCER
        self.started_ms = _NO_START

    def _check_is(self, who: Owner) -> None:
        if who.producer_id != self.producer_id:
            raise Refused(ErrorCode.INVALID_PRODUCER_ID_MAPPING)
        if who.epoch != self.epoch:
            raise Refused(ErrorCode.PRODUCER_FENCED)

    def _check_settled(self) -> None:
        if self.ending:
            raise Refused(ErrorCode.CONCURRENT_TRANSACTIONS)

    def _asks_again(self, who: Owner) -> bool:
        """Whether this is the owner as it was before `end_with_new_epoch` or `fence`."""
        if self.state not in _COMPLETE.values():
            return False
        same_id = who.producer_id == self.producer_id and who.epoch + 1 == self.epoch
        return same_id or (who == Owner(self._previous_id, LAST_EPOCH) and self.epoch == 0)

    def _raise_epoch(self, new_producer_id: Callable[[], int]) -> None:
        if self.epoch >= LAST_EPOCH:
            self.producer_id, self.epoch = new_producer_id(), _NO_EPOCH
        self.epoch += 1

    def _move(self, state: State) -> None:
        self._previous_id = self.producer_id
        self.state = state
