"""Virtual time, and processes that die or stand still."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import anyio
import pytest

from streamlib.simulation import loop as loop_module
from streamlib.simulation.loop import LivelockError, Process, VirtualTimeLoop


def run(main: Callable[[VirtualTimeLoop], Awaitable[None]], seed: int = 1) -> VirtualTimeLoop:
    loop = VirtualTimeLoop(random.Random(seed))

    async def wrapped() -> None:
        await main(loop)

    try:
        loop.run_until_complete(wrapped())
    finally:
        loop.finish()
    return loop


def test_time_jumps_to_the_next_timer() -> None:
    async def main(loop: VirtualTimeLoop) -> None:
        await asyncio.sleep(86_400)
        assert loop.time() == 86_400

    run(main)


def test_killed_process_runs_no_finally_block() -> None:
    seen: list[str] = []

    async def worker() -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 5)
                await anyio.sleep(5)
        finally:
            seen.append("finally")

    async def main(loop: VirtualTimeLoop) -> None:
        process = Process("w")
        loop.start(process, worker)
        await asyncio.sleep(1)
        process.kill()
        await asyncio.sleep(60)
        assert not seen

    run(main)


def test_frozen_process_goes_on_where_it_was() -> None:
    seen: list[float] = []

    async def main(loop: VirtualTimeLoop) -> None:
        async def worker() -> None:
            while True:
                await anyio.sleep(1)
                seen.append(loop.time())

        process = Process("w")
        loop.start(process, worker)
        await asyncio.sleep(2.5)
        process.freeze()
        await asyncio.sleep(10)
        assert seen == [1, 2]
        loop.thaw(process)
        await asyncio.sleep(0.5)
        assert seen == [1, 2, 12.5]

    run(main)


def test_seed_decides_the_order_of_what_is_ready() -> None:
    def order(seed: int) -> list[int]:
        seen: list[int] = []

        async def main(loop: VirtualTimeLoop) -> None:
            async def child(number: int) -> None:
                await anyio.sleep(1)
                seen.append(number)

            async with anyio.create_task_group() as group:
                for number in range(10):
                    group.start_soon(child, number)

        run(main, seed)
        return seen

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sorted(order(1)) == list(range(10))


def test_waiting_by_asking_again_and_again_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "MOST_TURNS_AT_ONCE", 1_000)

    async def main(loop: VirtualTimeLoop) -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(LivelockError, match="no time goes by"):
        run(main)


def test_waiting_for_what_never_comes_is_found_out() -> None:
    async def main(loop: VirtualTimeLoop) -> None:
        await loop.create_future()

    with pytest.raises(LivelockError, match="nothing will ever happen again"):
        run(main)


def test_exception_that_nobody_hears_is_a_failure() -> None:
    async def main(loop: VirtualTimeLoop) -> None:
        loop.call_later(1, lambda: 1 / 0)
        await asyncio.sleep(2)

    assert "ZeroDivisionError" in run(main).failures[0]


def test_signal_reaches_a_frozen_process_when_it_wakes_up_and_a_killed_one_never() -> None:
    seen: list[str] = []

    async def main(loop: VirtualTimeLoop) -> None:
        frozen, killed = Process("frozen"), Process("killed")
        frozen.freeze()
        for process in (frozen, killed):
            loop.signal(process, lambda name=process.name: seen.append(name))  # type: ignore[misc]
        killed.kill()
        await asyncio.sleep(1)
        assert not seen
        loop.thaw(frozen)
        await asyncio.sleep(1)
        assert seen == ["frozen"]

    run(main)


def test_busy_process_goes_on_when_it_is_done_and_the_others_do_meanwhile() -> None:
    seen: list[tuple[str, float]] = []

    async def main(loop: VirtualTimeLoop) -> None:
        busy = Process("busy")

        async def work() -> None:
            busy.busy_until_s = loop.time() + 3
            for _ in range(2):
                await asyncio.sleep(1)
                seen.append(("busy", loop.time()))

        async def other() -> None:
            await asyncio.sleep(2)
            seen.append(("other", loop.time()))

        loop.start(busy, work)
        loop.start(Process("other"), other)
        await asyncio.sleep(10)
        assert seen == [("other", 2), ("busy", 3), ("busy", 4)]

    run(main)


def test_timers_of_one_moment_go_off_in_their_order() -> None:
    seen: list[int] = []

    async def main(loop: VirtualTimeLoop) -> None:
        for number in range(50):
            loop.call_at(1.0, seen.append, number)
        await asyncio.sleep(2)
        assert seen == list(range(50))

    run(main)
