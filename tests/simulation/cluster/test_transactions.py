"""The transaction coordinator: who may write, what becomes of transactions, and what a late request is told.

The codes are those that brokers 4.3.1 (version 2) and 3.9.2 (version 1) gave to the same requests.
"""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib.errors import ErrorCode
from streamlib.records import TopicPartition
from streamlib.simulation.cluster.basics import Refused
from streamlib.simulation.cluster.transaction_state import LAST_EPOCH, State, TransactionalId
from streamlib.simulation.cluster.transactions import Hanging
from tests.simulation.cluster.producing import Bench, Producer, Written, batch

OK = ErrorCode.NONE
FENCED = ErrorCode.PRODUCER_FENCED
OLD_EPOCH = ErrorCode.INVALID_PRODUCER_EPOCH
WRONG_STATE = ErrorCode.INVALID_TXN_STATE
WAIT = ErrorCode.CONCURRENT_TRANSACTIONS
UNKNOWN_ID = ErrorCode.INVALID_PRODUCER_ID_MAPPING

both_versions = pytest.mark.parametrize("version", [1, 2])


def refused(code: ErrorCode) -> Written:
    return Written(code, -1)


def state(bench: Bench, name: str = "app") -> State:
    return entry(bench, name).state


def entry(bench: Bench, name: str = "app") -> TransactionalId:
    found = bench.transactions.find(name)
    assert found is not None
    return found


def exhaust(bench: Bench, producer: Producer) -> None:
    """Let the producer have the last epoch there is of its id."""
    entry(bench).epoch = LAST_EPOCH
    producer.who = (producer.who[0], LAST_EPOCH)


# --- producer ids


@both_versions
def test_without_a_transactional_id_everybody_is_somebody_else(version: int) -> None:
    bench = Bench(version)
    ids = {bench.producer(None).who for _ in range(3)}
    assert len(ids) == 3
    assert {epoch for _, epoch in ids} == {0}


@both_versions
def test_each_init_gives_a_new_epoch_of_the_same_id(version: int) -> None:
    bench = Bench(version)
    first, second, other = bench.producer(), bench.producer(), bench.producer("other")
    assert first.who == (first.who[0], 0)
    assert second.who == (first.who[0], 1)
    assert other.who[0] != first.who[0]


@both_versions
@pytest.mark.parametrize("timeout_ms", [0, -1, 900_001])
def test_timeout_has_to_be_one_that_the_cluster_allows(version: int, timeout_ms: int) -> None:
    assert Producer(Bench(version), "app").init(timeout_ms=timeout_ms) == ErrorCode.INVALID_TRANSACTION_TIMEOUT


def test_empty_id_and_half_an_owner_are_no_requests() -> None:
    bench = Bench()
    assert Producer(bench, "").init() == ErrorCode.INVALID_REQUEST
    body = {"transactional_id": "app", "transaction_timeout_ms": 1, "producer_id": 3, "producer_epoch": -1}
    broker = bench.coordinators.find("transaction", "app")
    assert bench.ask("InitProducerId", body, broker=broker or 0).code == ErrorCode.INVALID_REQUEST


@both_versions
def test_owner_that_goes_on_gets_one_new_epoch_however_often_it_asks(version: int) -> None:
    bench = Bench(version)
    producer = bench.producer()
    again = producer.twin()
    assert (producer.init(go_on=True), producer.who[1]) == (OK, 1)
    assert (again.init(go_on=True), again.who) == (OK, producer.who)


@both_versions
def test_owner_that_was_fenced_does_not_go_on(version: int) -> None:
    bench = Bench(version)
    producer = bench.producer()
    bench.producer()
    assert producer.init(go_on=True) == FENCED
    stranger = producer.twin()
    stranger.who = (99, 0)
    assert stranger.init(go_on=True) == FENCED


@both_versions
def test_owner_that_does_not_exist_yet_is_let_in(version: int) -> None:
    bench = Bench(version)
    producer = Producer(bench, "app")
    producer.who = (99, 7)
    assert (producer.init(go_on=True), producer.who[1]) == (OK, 0)


@both_versions
@pytest.mark.parametrize("go_on", [False, True])
def test_new_producer_id_comes_after_the_last_epoch(version: int, go_on: bool) -> None:
    bench = Bench(version)
    producer = bench.producer()
    exhaust(bench, producer)
    before, again = producer.who[0], producer.twin()
    assert producer.init(go_on=go_on) == OK
    assert producer.who[0] != before
    assert producer.who[1] == 0
    assert (again.init(go_on=True) == OK) == go_on, "only who asked for it may ask again"


# --- the life of a transaction


@both_versions
def test_transaction_is_visible_once_its_markers_are_written(version: int) -> None:
    bench = Bench(version)
    producer = bench.producer()
    producer.write(bench.partitions[0], "a")
    producer.write(bench.partitions[1], "b")
    assert state(bench) is State.ONGOING
    assert producer.end(commit=True) == OK
    assert state(bench) is State.PREPARE_COMMIT
    assert [bench.values(partition) for partition in bench.partitions] == [[], [], []]
    bench.timers.run_soon(1)
    assert [bench.values(partition) for partition in bench.partitions] == [[], ["b"], []]
    assert state(bench) is State.PREPARE_COMMIT
    bench.timers.run_soon()
    assert [bench.values(partition) for partition in bench.partitions] == [["a"], ["b"], []]
    assert state(bench) is State.COMPLETE_COMMIT
    assert bench.transactions.open_transactions() == []


@both_versions
def test_aborted_transaction_is_never_visible(version: int) -> None:
    bench = Bench(version)
    producer = bench.producer()
    producer.write(bench.partitions[0], "a")
    assert producer.end(commit=False) == OK
    bench.timers.settle()
    assert bench.values(bench.partitions[0]) == []
    assert bench.topics.log(bench.partitions[0]).last_stable_offset == 2


@both_versions
def test_marker_has_the_epoch_that_follows_with_kip_890(version: int) -> None:
    bench = Bench(version)
    producer = bench.producer()
    assert producer.add_group("g") == OK
    assert producer.add_partitions(bench.partitions[0]) == {bench.partitions[0]: OK}
    before = producer.who
    assert producer.end(commit=True) == OK
    assert producer.who == (before[0], before[1] + version - 1)
    bench.timers.settle()
    assert bench.group_markers == [("g", *producer.who, True)]


@both_versions
def test_next_transaction_waits_for_the_markers(version: int) -> None:
    bench = Bench(version)
    producer = bench.producer()
    producer.write(bench.partitions[0], "a")
    assert producer.end(commit=True) == OK
    assert producer.add_partitions(bench.partitions[1]) == {bench.partitions[1]: WAIT}
    assert producer.add_group("g") == WAIT
    with pytest.raises(Refused) as caught:
        bench.transactions.enlist_group("app", *producer.who, "g")
    assert caught.value.code == WAIT
    assert producer.init() == WAIT
    bench.timers.settle()
    producer.write(bench.partitions[1], "b")
    assert producer.end(commit=True) == OK
    bench.timers.settle()
    assert bench.values(bench.partitions[1]) == ["b"]


@both_versions
def test_partitions_are_added_all_or_none(version: int) -> None:
    bench = Bench(version)
    producer = bench.producer()
    missing = TopicPartition("t", 9)
    assert producer.add_partitions(bench.partitions[0], missing) == {
        bench.partitions[0]: ErrorCode.OPERATION_NOT_ATTEMPTED,
        missing: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }
    assert state(bench) is State.EMPTY


@given(st.permutations(range(5)), st.sampled_from([1, 2]), st.booleans())
def test_markers_may_land_in_any_order(order: list[int], version: int, commit: bool) -> None:
    bench = Bench(version)
    producer = bench.producer()
    for partition in bench.partitions:
        producer.write(partition, "a")
    assert (producer.add_group("g"), producer.add_group("h")) == (OK, OK)
    assert producer.end(commit=commit) == OK
    left = list(range(5))
    for place in order:
        assert state(bench) in (State.PREPARE_COMMIT, State.PREPARE_ABORT)
        bench.timers.run_soon(left.index(place))
        left.remove(place)
    assert state(bench) is (State.COMPLETE_COMMIT if commit else State.COMPLETE_ABORT)
    assert [bench.values(partition) for partition in bench.partitions] == [["a"] if commit else []] * 3
    assert sorted(group for group, *_ in bench.group_markers) == ["g", "h"]


def test_marker_waits_for_a_leader() -> None:
    bench = Bench()
    producer = bench.producer()
    producer.write(bench.partitions[0], "a")
    assert producer.end(commit=True) == OK
    for broker in range(3):
        bench.brokers.stop(broker)
    bench.timers.settle()
    bench.timers.advance(1_000)
    assert state(bench) is State.PREPARE_COMMIT
    bench.brokers.start(2)
    bench.timers.advance(1_000)
    assert bench.values(bench.partitions[0]) == ["a"]


# --- ending it, once or more often


def test_kip_890_gives_the_same_answer_to_the_same_question() -> None:
    bench = Bench()
    producer = bench.producer()
    producer.write(bench.partitions[0], "a")
    before = producer.twin()
    assert (producer.end(commit=True), producer.who[1]) == (OK, 1)
    assert before.twin().end(commit=True) == WAIT
    assert before.twin().end(commit=False) == WAIT
    assert producer.twin().end(commit=True) == WAIT
    bench.timers.settle()
    again = before.twin()
    assert (again.end(commit=True), again.who) == (OK, producer.who)
    assert before.twin().end(commit=False) == WRONG_STATE


def test_before_kip_890_the_last_outcome_is_told_again() -> None:
    bench = Bench(1)
    producer = bench.producer()
    producer.write(bench.partitions[0], "a")
    assert (producer.end(commit=True), producer.who[1]) == (OK, 0)
    assert (producer.end(commit=True), producer.end(commit=False)) == (WAIT, WAIT)
    bench.timers.settle()
    assert (producer.end(commit=True), producer.end(commit=False)) == (OK, WRONG_STATE)


def test_kip_890_aborts_nothing_with_a_new_epoch_and_commits_nothing_never() -> None:
    bench = Bench()
    producer = bench.producer()
    for epoch in (1, 2):
        assert producer.end(commit=True) == WRONG_STATE
        before = producer.twin()
        assert (producer.end(commit=False), producer.who[1]) == (OK, epoch)
        bench.timers.settle()
        assert state(bench) is State.COMPLETE_ABORT
        assert (before.twin().end(commit=False), before.end(commit=True)) == (OK, WRONG_STATE)
    producer.write(bench.partitions[0], "a")
    assert producer.end(commit=True) == OK
    bench.timers.settle()
    assert producer.end(commit=True) == WRONG_STATE
    assert (producer.end(commit=False), producer.who[1]) == (OK, 4)


def test_after_init_the_end_before_it_is_forgotten() -> None:
    bench = Bench()
    producer = bench.producer()
    before = producer.twin()
    assert producer.init() == OK
    assert before.end(commit=False) == FENCED


@pytest.mark.parametrize("commit", [True, False])
def test_before_kip_890_nothing_cannot_be_ended(commit: bool) -> None:
    assert Bench(1).producer().end(commit=commit) == WRONG_STATE
    assert Bench(2).producer().end(commit=commit, version=4) == WRONG_STATE


def test_old_client_ends_a_transaction_of_a_new_cluster_without_a_new_epoch() -> None:
    bench = Bench(2)
    producer = bench.producer()
    producer.write(bench.partitions[0], "a")
    assert (producer.end(commit=True, version=4), producer.who[1]) == (OK, 0)
    bench.timers.settle()
    producer.write(bench.partitions[0], "b")
    assert (producer.end(commit=True), producer.who[1]) == (OK, 1)
    bench.timers.settle()
    assert bench.values(bench.partitions[0]) == ["a", "b"]


@both_versions
def test_only_the_owner_ends_a_transaction(version: int) -> None:
    bench = Bench(version)
    producer = bench.producer()
    producer.write(bench.partitions[0], "a")
    stranger, newer = producer.twin(), producer.twin()
    stranger.who = (producer.who[0] + 99, 0)
    newer.who = (producer.who[0], 1)
    assert (stranger.end(commit=True), newer.end(commit=True), newer.end(commit=False)) == (UNKNOWN_ID, FENCED, FENCED)
    nobody = Producer(bench, "nobody")
    nobody.who = (99, 0)
    assert (nobody.end(commit=True), nobody.add_group("g")) == (UNKNOWN_ID, UNKNOWN_ID)
    assert nobody.add_partitions(bench.partitions[0]) == {bench.partitions[0]: UNKNOWN_ID}
    assert nobody.produce(bench.partitions[0], "a") == refused(UNKNOWN_ID)
    assert state(bench) is State.ONGOING


@pytest.mark.parametrize("commit", [True, False])
def test_last_epoch_is_followed_by_a_new_producer_id(commit: bool) -> None:
    bench = Bench()
    producer = bench.producer()
    exhaust(bench, producer)
    producer.write(bench.partitions[0], "a")
    before = producer.twin()
    assert producer.end(commit=commit) == OK
    assert producer.who[0] != before.who[0]
    assert producer.who[1] == 0
    assert before.twin().end(commit=commit) == WAIT
    bench.timers.settle()
    again = before.twin()
    assert (again.end(commit=commit), again.who) == (OK, producer.who)
    assert before.end(commit=not commit) == WRONG_STATE
    producer.write(bench.partitions[0], "b")
    assert (producer.end(commit=True), producer.who[1]) == (OK, 1)
    bench.timers.settle()
    assert bench.values(bench.partitions[0]) == [*["a"] * commit, "b"]


# --- fencing


@both_versions
def test_init_of_an_open_one_aborts_it_first(version: int) -> None:
    bench = Bench(version)
    producer = bench.producer()
    producer.write(bench.partitions[0], "a")
    other = producer.twin()
    assert (other.init(), other.init()) == (WAIT, WAIT)
    bench.timers.settle()
    assert (other.init(), other.who) == (OK, (producer.who[0], 2))
    assert bench.values(bench.partitions[0]) == []
    assert producer.produce(bench.partitions[0], "b") == refused(OLD_EPOCH)
    assert producer.add_partitions(bench.partitions[1]) == {bench.partitions[1]: FENCED}
    assert producer.add_group("g") == FENCED
    assert (producer.end(commit=True), producer.end(commit=False)) == (FENCED, FENCED)
    assert producer.init(go_on=True) == FENCED


def test_owner_that_goes_on_in_the_middle_of_a_transaction_finds_its_epoch_only_with_kip_890() -> None:
    for version, code in ((2, OK), (1, FENCED)):
        bench = Bench(version)
        producer = bench.producer()
        producer.write(bench.partitions[0], "a")
        assert producer.init(go_on=True) == WAIT
        bench.timers.settle()
        assert producer.init(go_on=True) == code
        assert producer.who[1] == version - 1


@both_versions
def test_fencing_from_outside_takes_as_long_as_it_takes(version: int) -> None:
    bench = Bench(version)
    producer = bench.producer()
    producer.write(bench.partitions[0], "a")
    bench.transactions.fence_all("ap")
    bench.timers.settle()
    bench.timers.advance(100)
    assert state(bench) is State.EMPTY
    assert entry(bench).epoch == 2
    assert producer.end(commit=True) == FENCED
    assert producer.produce(bench.partitions[1], "b") == refused(OLD_EPOCH)
    bench.transactions.fence("nobody")
    assert bench.transactions.names() == ["app"]


def test_fencing_uses_up_the_epoch_that_no_client_gets() -> None:
    for version in (1, 2):
        bench = Bench(version)
        producer = bench.producer()
        exhaust(bench, producer)
        producer.write(bench.partitions[0], "a")
        bench.transactions.expire("app")
        bench.timers.settle()
        before = producer.who[0]
        assert producer.init() == OK
        assert producer.who[0] != before
        assert producer.who[1] == 0


# --- timeouts


@both_versions
def test_transaction_that_lasts_too_long_is_aborted(version: int) -> None:
    bench = Bench(version)
    producer = bench.producer(timeout_ms=1_000)
    bench.timers.advance(5_000)
    producer.write(bench.partitions[0], "a")
    bench.timers.advance(999)
    assert state(bench) is State.ONGOING
    producer.write(bench.partitions[1], "a")
    bench.timers.advance(1)
    assert state(bench) is State.PREPARE_ABORT
    bench.timers.settle()
    assert state(bench) is State.COMPLETE_ABORT
    assert [bench.values(partition) for partition in bench.partitions] == [[], [], []]


@both_versions
def test_transaction_that_has_ended_does_not_time_out(version: int) -> None:
    bench = Bench(version)
    producer = bench.producer(timeout_ms=1_000)
    producer.write(bench.partitions[0], "a")
    assert producer.end(commit=True) == OK
    bench.timers.advance(5_000)
    bench.timers.settle()
    producer.write(bench.partitions[0], "b")
    bench.timers.advance(500)
    assert producer.end(commit=True) == OK
    bench.timers.settle()
    assert bench.values(bench.partitions[0]) == ["a", "b"]


def timed_out(version: int) -> tuple[Bench, Producer]:
    bench = Bench(version)
    producer = bench.producer()
    producer.write(bench.partitions[0], "a")
    bench.transactions.expire_all()
    bench.timers.settle()
    assert state(bench) is State.COMPLETE_ABORT
    return bench, producer


def test_with_kip_890_the_owner_finds_out_about_the_timeout_and_goes_on() -> None:
    bench, producer = timed_out(2)
    assert producer.twin().produce(bench.partitions[0], "b") == refused(OLD_EPOCH)
    assert producer.add_partitions(bench.partitions[0]) == {bench.partitions[0]: FENCED}
    assert producer.end(commit=True) == WRONG_STATE
    aborting, going_on = producer.twin(), producer.twin()
    assert (aborting.end(commit=False), aborting.who[1]) == (OK, 1)
    assert (going_on.init(go_on=True), going_on.who[1]) == (OK, 1)
    assert (producer.init(), producer.who[1]) == (OK, 2)


def test_before_kip_890_the_owner_is_fenced_by_the_timeout() -> None:
    bench, producer = timed_out(1)
    assert producer.produce(bench.partitions[0], "b") == refused(OLD_EPOCH)
    assert producer.add_partitions(bench.partitions[0]) == {bench.partitions[0]: FENCED}
    assert (producer.end(commit=True), producer.end(commit=False)) == (FENCED, FENCED)
    assert producer.init(go_on=True) == FENCED
    assert (producer.init(), producer.who[1]) == (OK, 2)


@both_versions
def test_what_is_written_before_the_marker_of_a_timeout_lands_is_aborted_too(version: int) -> None:
    bench = Bench(version)
    producer = bench.producer()
    producer.write(bench.partitions[0], "a")
    bench.transactions.expire("app")
    assert producer.produce(bench.partitions[0], "late").code == OK
    bench.timers.settle()
    assert bench.values(bench.partitions[0]) == []
    assert bench.topics.log(bench.partitions[0]).open_transactions == {}


def test_only_ongoing_transactions_expire() -> None:
    bench = Bench()
    producer = bench.producer()
    producer.write(bench.partitions[0], "a")
    assert producer.end(commit=True) == OK
    bench.transactions.expire_all()
    bench.transactions.expire("nobody")
    bench.timers.settle()
    bench.transactions.expire("app")
    assert bench.values(bench.partitions[0]) == ["a"]


# --- who is asked


@both_versions
def test_others_than_the_coordinator_send_away(version: int) -> None:
    bench = Bench(version)
    producer = bench.producer()
    bench.coordinators.move("transaction", "app", (bench.coordinators.find("transaction", "app") or 0) + 1, 100)
    loading = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert (producer.init(), producer.end(commit=False), producer.add_group("g")) == (loading,) * 3
    home = bench.coordinators.find("transaction", "app")
    body = {"transactional_id": "app", "producer_id": producer.who[0], "producer_epoch": 0, "group_id": "g"}
    away = bench.ask("AddOffsetsToTxn", body, broker=((home or 0) + 1) % 3)
    assert away.code == ErrorCode.NOT_COORDINATOR
    bench.timers.advance(100)
    assert producer.add_group("g") == OK


@both_versions
def test_leader_asks_later_when_there_is_no_coordinator(version: int) -> None:
    bench = Bench(version)
    producer = bench.producer()
    for broker in range(3):
        bench.brokers.stop(broker)
    with pytest.raises(Refused) as caught:
        bench.transactions.enlist("app", *producer.who, bench.partitions[0])
    assert caught.value.code == ErrorCode.COORDINATOR_NOT_AVAILABLE


def test_group_is_verified_like_a_partition() -> None:
    bench = Bench(1)
    producer = bench.producer()
    with pytest.raises(Refused) as caught:
        bench.transactions.verify_group("app", *producer.who, "g")
    assert caught.value.code == ErrorCode.TRANSACTION_ABORTABLE
    assert producer.add_group("g") == OK
    bench.transactions.verify_group("app", *producer.who, "g")
    with pytest.raises(Refused) as caught:
        bench.transactions.verify_group("app", producer.who[0], producer.who[1] + 1, "g")
    assert caught.value.code == OLD_EPOCH


# --- what checkers see


def test_transaction_that_no_coordinator_knows_is_hanging() -> None:
    bench = Bench()
    producer = bench.producer()
    producer.write(bench.partitions[0], "a")
    assert bench.transactions.open_transactions() == ["app"]
    assert bench.transactions.hanging() == []
    bench.topics.log(bench.partitions[1]).append(batch("x", who=(77, 0), sequence=0, transactional=True))
    assert bench.transactions.hanging() == [Hanging(bench.partitions[1], 77, 0)]


# --- at random


class World:
    """Two producers of one transactional id that know nothing of each other, and what becomes of each write."""

    def __init__(self, version: int, rng: random.Random) -> None:
        self.bench = Bench(version)
        self._rng = rng
        self._producers = [self.bench.producer(), Producer(self.bench, "app")]
        self._undecided: list[str] = []
        self.committed: set[str] = set()
        self._numbers = itertools.count()

    def take(self, doing: str) -> None:
        producer = self._rng.choice(self._producers)
        match doing:
            case "write":
                self._write(producer)
            case "commit" | "abort":
                self._end(producer, commit=doing == "commit")
            case "init":
                producer.init(go_on=producer.who[0] >= 0 and self._rng.random() < 0.5)
            case "marker" if self.bench.timers.waiting_soon:
                self.bench.timers.run_soon(self._rng.randrange(self.bench.timers.waiting_soon))
            case "fence":
                self.bench.transactions.fence("app")
            case "time":
                self.bench.timers.advance(self._rng.choice([1, 50, 6_000]))
        self._decide()

    def end(self) -> None:
        """Nobody does anything any more."""
        self.bench.transactions.expire_all()
        self._decide()
        for _ in range(3):
            self.bench.timers.settle(self._rng.randrange)
            self.bench.timers.advance(100)

    def _write(self, producer: Producer) -> None:
        partition, value = self._rng.choice(self.bench.partitions), str(next(self._numbers))
        if self.bench.version < 2 and self._rng.random() < 0.8:
            producer.add_partitions(partition)
        end = self.bench.topics.log(partition).end_offset
        code, offset = producer.produce(partition, value)
        if code == OK and offset == end:
            self._undecided.append(value)
        elif code == OLD_EPOCH:
            producer.init()

    def _end(self, producer: Producer, *, commit: bool) -> None:
        ongoing = state(self.bench) is State.ONGOING
        if producer.end(commit=commit) == OK and ongoing:
            assert state(self.bench) is (State.PREPARE_COMMIT if commit else State.PREPARE_ABORT)

    def _decide(self) -> None:
        """What was written belongs to the transaction whose markers come next."""
        if entry(self.bench).ending:
            self.committed.update(self._undecided if entry(self.bench).commits else ())
            self._undecided.clear()


DOINGS = [*["write"] * 5, *["marker"] * 5, *["commit"] * 3, "abort", "init", "fence", "time"]


@given(st.lists(st.sampled_from(DOINGS), max_size=60), st.sampled_from([1, 2]), st.randoms(use_true_random=False))
def test_each_write_shares_the_fate_of_its_transaction(steps: list[str], version: int, rng: random.Random) -> None:
    world = World(version, rng)
    for doing in steps:
        world.take(doing)
        assert world.bench.transactions.hanging() == []
    world.end()
    assert world.bench.transactions.open_transactions() == []
    logs = [world.bench.topics.log(partition) for partition in world.bench.partitions]
    assert [dict(log.open_transactions) for log in logs] == [{}, {}, {}]
    seen = [value for partition in world.bench.partitions for value in world.bench.values(partition)]
    assert sorted(seen) == sorted(world.committed)
