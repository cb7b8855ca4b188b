"""A whole worker over fakes: standbys, and handing over at the end."""

from __future__ import annotations

import pytest

from streamlib.errors import ErrorCode
from streamlib.runtime import worker as worker_module
from streamlib.runtime.assignor import Instructions
from tests.runtime.fakes import IN0, IN1, LOG1, T0, T1, TWO, Bench, others_run, until, working


async def test_a_standby_follows_its_changelog_and_is_promoted_with_its_stores_open() -> None:
    bench = Bench()
    bench.broker.write(IN0, "a")
    async with working(bench, IN0, standby=[T1]):
        await until(lambda: bench.committed(IN0) == 1 and "0_1" in bench.worker.status.standbys)
        assert bench.worker.status.standbys == {"0_1": 0}
        assert IN1 not in bench.fetcher.positions
        bench.broker.write(IN1, "b")
        bench.group.rebalance(IN0, IN1, instructions=Instructions(members=TWO))
        await until(lambda: bench.committed(IN1) == 1)
        assert bench.worker.status.standbys == {}
    assert bench.script.done(f"open {T1}") == bench.script.done(f"close {T1}") == 1
    assert sorted(bench.counts()) == [("a", 1), ("b", 1)]


async def test_a_task_that_moves_away_becomes_a_standby_with_its_stores_open() -> None:
    bench = Bench()
    bench.broker.write(IN1, "b")
    async with working(bench, IN0, IN1):
        await until(lambda: bench.committed(IN1) == 1)
        bench.group.rebalance(IN0, instructions=Instructions(members=TWO, standby=[T1]))
        await until(lambda: bench.group.claims[-1] == (IN0,) and "0_1" in bench.worker.status.standbys)
        assert bench.tasks.ids == {T0}
        assert f"restore {LOG1} from 1" in bench.journal
        assert f"close {T1}" not in bench.journal
    assert bench.directory.open_stores == set()


async def test_a_standby_that_nobody_wants_any_more_is_closed() -> None:
    bench = Bench()
    async with working(bench, IN0, standby=[T1]):
        await until(lambda: bench.tasks.standby_ids == {T1} and bench.tasks.ids == {T0})
        bench.group.rebalance(IN0, instructions=Instructions(members=TWO))
        await until(lambda: bench.tasks.standby_ids == frozenset())
        assert bench.directory.open_stores == {str(T0)}
        assert LOG1 not in bench.changelog_fetcher.positions


async def test_a_standby_waits_for_the_lock_of_its_stores_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "LOCK_RETRY_MS", 0)
    bench = Bench()
    bench.directory.locked.add(T1)
    bench.broker.write(IN0, "a")
    async with working(bench, IN0, standby=[T1]):
        await until(lambda: bench.committed(IN0) == 1)
        assert bench.tasks.standby_ids == {T1}
        assert f"open {T1}.aside" not in bench.journal
        bench.directory.locked.clear()
        await until(lambda: "0_1" in bench.worker.status.standbys)


async def test_a_warm_up_says_so_when_it_has_caught_up() -> None:
    bench = Bench()
    async with working(bench, IN0, warmup=[T1]):
        await until(lambda: len(bench.group.claims) == 2)
        assert bench.group.claims[-1] == (IN0,)


async def test_a_lost_membership_leaves_standbys_where_they_are() -> None:
    bench = Bench()
    async with working(bench, IN0, standby=[T1]):
        await until(lambda: "0_1" in bench.worker.status.standbys and bench.worker.running)
        bench.script.fail("heartbeat", ErrorCode.UNKNOWN_MEMBER_ID)
        await until(lambda: len(bench.group.claims) == 2 and bench.worker.running)
        assert f"close {T0}" in bench.journal
        assert f"close {T1}" not in bench.journal


async def test_a_worker_that_stops_works_on_until_others_can_take_over() -> None:
    bench = Bench()
    bench.broker.write(IN0, "a")
    async with working(bench, IN0, IN1):
        await until(lambda: bench.committed(IN0) == 1)
        answer = bench.script.hold("join")
        bench.worker.stop()
        await until(lambda: bench.group.introductions[-1] == b"leaving")
        assert set(bench.group.claims[-1]) == {IN0, IN1}
        bench.broker.write(IN0, "a")
        await until(lambda: bench.committed(IN0) == 2)
        answer.set()
    assert len(bench.group.claims) == 2  # it leaves instead of joining once more
    assert bench.journal[-1] == "leave"
    assert bench.counts() == [("a", 1), ("a", 2)]


async def test_a_stopping_worker_keeps_what_others_are_not_ready_for() -> None:
    bench = Bench()
    async with working(bench, IN0, IN1):
        await until(lambda: bench.worker.running)
        bench.group.assigned = (IN1,)
        bench.group.takes_over = False
        bench.worker.stop()
        await until(lambda: bench.tasks.ids == {T1})
        await others_run()
        assert bench.group.claims[-1] == (IN1,)
        assert "leave" not in bench.journal
        bench.group.takes_over = True
        bench.group.rebalance()
    assert bench.journal[-1] == "leave"


async def test_a_stopping_worker_waits_for_others_only_so_long() -> None:
    bench = Bench()
    async with working(bench, IN0):
        await until(lambda: bench.worker.running)
        bench.script.hold("join")
        bench.worker.stop()
        await until(lambda: bench.group.introductions[-1] == b"leaving")
        bench.clock.ms += worker_module.HAND_OVER_MS
    assert bench.journal[-1] == "leave"


@pytest.mark.parametrize("members", [["m"], []])
async def test_a_worker_that_is_alone_hands_over_to_nobody(members: list[str]) -> None:
    bench = Bench()
    async with working(bench, IN0):
        bench.group.instructions = Instructions(members=members)
        await until(lambda: bench.worker.running)
    assert len(bench.group.claims) == 1


async def test_a_worker_that_stays_in_the_group_hands_over_to_nobody() -> None:
    bench = Bench()
    async with working(bench, IN0):
        await until(lambda: bench.worker.running)
        bench.worker.stop(leave=False)
    assert len(bench.group.claims) == 1
    assert "leave" not in bench.journal
