"""What breaks when: three lanes of steps, drawn from a seed before anything starts.

Lanes run side by side, so a worker may be killed while a broker is down and the network is slow; within a lane one step
follows the other. Kinds are dealt from shuffled decks: each gets its share, however short the run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import msgspec

from tests.chaos import proxy

SESSION_S = 6.0
SHORT_SESSION_S = 3.0
OUTAGE_S = 30.0
NODES = 3


class Step(msgspec.Struct, frozen=True):
    """One thing to break. `target` is a worker or a node by its number, None for all of them."""

    at_s: float
    kind: str
    target: int | None = None
    for_s: float = 0.0
    fault: proxy.Fault | None = None
    note: str = ""

    def __str__(self) -> str:
        target = "" if self.target is None else f" {self.target}"
        span = f" for {self.for_s:.1f} s" if self.for_s else ""
        return f"{self.at_s:7.1f}  {self.kind}{target}{span} {self.note}".rstrip()


Deal: TypeAlias = Callable[[random.Random, float], Step]
"""Draws the particulars of a step of one kind, which begins at a time."""


class Lane(msgspec.Struct, frozen=True):
    """Steps of one kind of victim: how many of each kind are in a deck, and the pauses between them."""

    deck: Mapping[str, int]
    deal: Callable[[str], Deal]
    pause_s: tuple[float, float]


def steps(lane: Lane, rng: random.Random, seconds: float) -> Iterator[Step]:
    """All steps of a lane that begin and end in time."""
    at_s = rng.uniform(*lane.pause_s)
    deck: list[str] = []
    while at_s < seconds:
        if not deck:
            deck = [kind for kind, count in lane.deck.items() for _ in range(count)]
            rng.shuffle(deck)
        step = lane.deal(deck.pop())(rng, at_s)
        if at_s + step.for_s < seconds:
            yield step
        at_s += step.for_s + rng.uniform(*lane.pause_s)


def schedule(seed: int, seconds: float, workers: list[str], *, short: bool) -> dict[str, list[Step]]:
    """The steps of each lane for a run of so many seconds."""
    lanes = {"workers": _workers(workers, short), "brokers": _brokers(short), "network": _network(workers, short)}
    return {name: list(steps(lane, random.Random(f"{seed} {name}"), seconds)) for name, lane in lanes.items()}


def _workers(workers: list[str], short: bool) -> Lane:
    spans: dict[str, tuple[float, float]] = {
        "kill": (0.0, 4.0),
        "kill all": (0.0, 3.0),
        "wipe": (0.0, 2.0),
        "freeze": (0.5, SESSION_S - 1),
        "freeze beyond the session": (SESSION_S + 1, SESSION_S + 5),
        "restart": (0.0, 1.0),
        "rolling restart": (0.0, 0.0),
    }
    if short:
        spans |= {"kill": (0.0, 1.0), "kill all": (0.0, 0.5), "wipe": (0.0, 0.5), "freeze": (0.5, SHORT_SESSION_S + 1)}
    counts = (2, 1, 1, 1, 0, 1, 0) if short else (6, 1, 1, 2, 2, 1, 1)

    def deal(kind: str) -> Deal:
        def dealt(rng: random.Random, at_s: float) -> Step:
            target = rng.randrange(len(workers))
            everybody = kind in ("kill all", "rolling restart")
            return Step(at_s, f"{kind}: worker", None if everybody else target, rng.uniform(*spans[kind]))

        return dealt

    return Lane(dict(zip(spans, counts, strict=True)), deal, (2.0, 4.0) if short else (1.0, 6.0))


def _brokers(short: bool) -> Lane:
    spans: dict[str, tuple[float, float]] = {
        "kill": (0.5, 8.0),
        "restart": (0.0, 3.0),
        "rolling restart": (0.0, 0.0),
        "outage": (OUTAGE_S, OUTAGE_S),
        "move leaders": (0.0, 0.0),
    }
    if short:
        spans |= {"kill": (0.5, 2.0), "outage": (3.0, 3.0)}
    counts = (1, 1, 0, 1, 1) if short else (4, 2, 1, 1, 4)

    def deal(kind: str) -> Deal:
        def dealt(rng: random.Random, at_s: float) -> Step:
            target = rng.randrange(NODES)
            everybody = kind in ("rolling restart", "outage", "move leaders")
            note = f"seed {rng.getrandbits(32)}" if kind == "move leaders" else ""
            return Step(at_s, f"{kind}: broker", None if everybody else target, rng.uniform(*spans[kind]), note=note)

        return dealt

    return Lane(dict(zip(spans, counts, strict=True)), deal, (3.0, 5.0) if short else (3.0, 11.0))


def _network(workers: list[str], short: bool) -> Lane:
    longest_s = 1.5 if short else 12.0

    def deal(kind: str) -> Deal:
        def dealt(rng: random.Random, at_s: float) -> Step:
            node = rng.choice((None, *range(NODES)))
            client = rng.choice((None, *workers))
            fault = proxy.KINDS[kind](rng, client)
            return Step(at_s, f"{kind}: network", node, rng.uniform(0.5, longest_s), fault, note=_words(fault))

        return dealt

    deck = {"slow": 2, "cut": 3, "black hole": 2, "half-open": 2, "refuse": 1}
    return Lane(dict.fromkeys(deck, 1) if short else deck, deal, (2.0, 4.0) if short else (2.0, 9.0))


def _words(fault: proxy.Fault) -> str:
    found = [f"client {fault.client}"] if fault.client else []
    if fault.latency_ms:
        found.append(f"{fault.latency_ms}+{fault.jitter_ms} ms")
    if fault.cut_after_bytes is not None:
        found.append(f"after {fault.cut_after_bytes} bytes of {fault.cut.value}")
    found += sorted(way.value for way in fault.silent)
    return ", ".join(found)
