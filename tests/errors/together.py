"""Many applications beside each other in one event loop: they wait most of the time, and there are hundreds of them.

    CASES = cases(all_brokers_gone, too_few_replicas)                    async functions of a `Site`

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_outage(case: Case, verdicts: Verdicts) -> None:
        verdicts.check(case)

The fixture `verdicts` plays the cases of all tests that were selected, before the first of them is reported.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest

from streamlib.testing.plugin import KafkaTarget, KafkaTargets
from streamlib.topology.topology import Topology
from tests.errors.application import Site, counter, site
from tests.errors.journal import journal, journals, lines

AT_ONCE = 6  # their sessions are of two seconds: with more, a busy machine lets them expire
NEW, OLD = "4.3.1", "3.9.2"  # with transactions version 2 (KIP-890), and without

Play: TypeAlias = Callable[[Site], Awaitable[None]]


class Case(msgspec.Struct, frozen=True, eq=False):
    """Something to happen to an application, on one broker version."""

    name: str
    play: Play
    version: str = NEW
    topology: Callable[[str, str], Topology] = counter

    def __str__(self) -> str:
        return self.name if self.version == NEW else f"{self.name}-{self.version}"


class Verdicts:
    """What is wrong with each case; "" if nothing is."""

    def __init__(self, wrong: dict[int, str]) -> None:
        self._wrong = wrong

    def check(self, case: Case) -> None:
        if wrong := self._wrong[id(case)]:
            pytest.fail(wrong, pytrace=False)


def cases(*plays: Play, versions: Sequence[str] = (NEW,)) -> list[Case]:
    """One for each function (which has its name) and version."""
    return [Case(play.__name__, play, version) for play in plays for version in versions]


def cases_of(play: Callable[..., Awaitable[None]], *arguments: Any, versions: Sequence[str] = (NEW,)) -> list[Case]:
    """One for each argument and version of a function of a site and the argument."""

    def with_argument(argument: Any) -> Play:
        return lambda ground: play(ground, argument)

    name = play.__name__
    return [
        Case(f"{name}-{_text(argument)}", with_argument(argument), version)
        for argument in arguments
        for version in versions
    ]


def _text(argument: Any) -> str:
    if isinstance(argument, tuple):
        return "-".join(map(_text, argument))
    return str(getattr(argument, "name", getattr(argument, "__name__", argument)))


def play_all(
    chosen: Sequence[Case], brokers: KafkaTargets, unique_name: Callable[[str], str], folder: Path
) -> Verdicts:
    """Play them, a few at a time."""
    targets = {version: brokers(version) for version in {case.version for case in chosen}}
    gate = asyncio.Semaphore(AT_ONCE)

    async def verdict(number: int, case: Case) -> str:
        async with gate:
            return await _wrong_with(case, targets[case.version], unique_name("error"), folder / str(number))

    # Those that wait for long stand last; they begin first, so that the others run beside them.
    chosen = list(reversed(chosen))

    async def all_verdicts() -> list[str]:
        return await asyncio.gather(*(verdict(number, case) for number, case in enumerate(chosen)))

    with journals():
        found = asyncio.run(all_verdicts())
    return Verdicts({id(case): wrong for case, wrong in zip(chosen, found, strict=True)})


async def _wrong_with(case: Case, kafka: KafkaTarget, name: str, folder: Path) -> str:
    with journal() as records:
        try:
            async with site(kafka, name, folder, case.topology, records) as ground:
                await case.play(ground)
        except Exception:
            return f"{traceback.format_exc()}\n{lines(records)}"
    return ""
