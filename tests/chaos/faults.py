"""Carries out the steps of a schedule."""

from __future__ import annotations

import random
import time

import anyio
import msgspec

from tests.chaos.cluster import Cluster, Crew
from tests.chaos.leaders import move_leaders
from tests.chaos.schedule import NODES, Step

FREEZES = ("freeze", "freeze beyond the session")


class Done(msgspec.Struct):
    """A step that was carried out; wall clock in ms, so that it can be held against records' timestamps."""

    kind: str
    began_ms: int
    ended_ms: int = 0
    kills: int = 0
    broker_kills: int = 0
    leaders_moved: int = 0


class Faults:
    """Breaks things and mends them."""

    def __init__(self, cluster: Cluster, crew: Crew) -> None:
        self.done: list[Done] = []
        self.running: dict[str, Step] = {}
        self._cluster = cluster
        self._crew = crew

    async def run(self, lane: str, steps: list[Step], seconds: float) -> None:
        """One step after the other, each when its time has come; none that would end after so many seconds.

        A step that takes longer than planned moves all that follow, so that there is time to recover in between.
        """
        ends_s = anyio.current_time() + seconds
        planned_s = 0.0  # where the schedule is now
        for step in steps:
            await anyio.sleep(step.at_s - planned_s)
            if anyio.current_time() + step.for_s > ends_s:
                return
            planned_s = step.at_s + step.for_s
            self.running[lane] = step
            done = Done(step.kind, now_ms())
            await self._carry_out(step, done)
            done.ended_ms = now_ms()
            self.done.append(done)
            del self.running[lane]

    async def _carry_out(self, step: Step, done: Done) -> None:
        kind, _, victim = step.kind.partition(": ")
        match victim:
            case "worker":
                await self._break_worker(kind, step, done)
            case "broker":
                await self._break_broker(kind, step, done)
            case _:
                self._cluster.set_fault(step.target, step.fault)
                await anyio.sleep(step.for_s)
                self._cluster.set_fault(step.target, None)

    async def _break_worker(self, kind: str, step: Step, done: Done) -> None:
        crew = self._crew
        victims = range(len(crew.names)) if step.target is None else [step.target]
        if kind == "rolling restart":
            for number in victims:
                await crew.stop(number)
                crew.start(number)
            return
        for number in victims:
            await self._strike(kind, number, done)
        await anyio.sleep(step.for_s)
        for number in victims:
            if kind in FREEZES:
                crew.thaw(number)
            else:
                crew.start(number)

    async def _strike(self, kind: str, number: int, done: Done) -> None:
        crew = self._crew
        if kind in FREEZES:
            crew.freeze(number)
        elif kind == "restart":
            await crew.stop(number)
        else:
            done.kills += crew.kill(number)
        if kind == "wipe":
            crew.wipe(number)

    async def _break_broker(self, kind: str, step: Step, done: Done) -> None:
        cluster, node = self._cluster, step.target
        match kind:
            case "kill" | "restart":
                assert node is not None
                await (cluster.kill if kind == "kill" else cluster.stop)(node)
                done.broker_kills += kind == "kill"
                await anyio.sleep(step.for_s)
                await cluster.start(node)
            case "rolling restart":
                for each in range(NODES):
                    await cluster.stop(each)
                    await cluster.start(each)
            case "outage":
                for each in range(NODES):
                    await cluster.kill(each)
                    done.broker_kills += 1
                await anyio.sleep(step.for_s)
                await cluster.start_all()
            case _:
                done.leaders_moved = await move_leaders(cluster.direct, random.Random(step.note))


def now_ms() -> int:
    return time.time_ns() // 1_000_000
