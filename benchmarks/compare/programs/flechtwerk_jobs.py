"""The jobs on flechtwerk, which has no windows and no joins. Runs in an environment of its own, without streamlib.

A window is kept by hand: times ascend, so the state of a key is its one open window. The table is a config topic, which
every instance reads whole before it starts.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import uvloop
from flechtwerk import Event, Flechtwerk, IncomingMessage, Message, State, Transformer
from flechtwerk.attribute import FLOAT, INT, STR, Attribute

WINDOW_MS = 60_000
INPUTS = [os.environ["BENCHMARK_INPUT"]]
TABLES = [os.environ["BENCHMARK_TABLE"]]
OUTPUT = os.environ["BENCHMARK_OUTPUT"]

AMOUNT = Attribute("amount", FLOAT)
CITY = Attribute("city", STR)
COUNT = Attribute("count", INT)
NUMBER = Attribute("number", INT)
START = Attribute("start", INT)


class Passthrough(Transformer):
    input_topics = INPUTS

    async def transform(self, message: IncomingMessage, state: State) -> AsyncIterator[Message | State]:
        yield Message(key=message.key, topic=OUTPUT, value=message.value)


class KeyedCount(Transformer):
    input_topics = INPUTS

    async def transform(self, message: IncomingMessage, state: State) -> AsyncIterator[Message | State]:
        count = (state.get(COUNT) or 0) + 1
        yield Message(key=message.key, topic=OUTPUT, value=count.to_bytes(8, "big"))
        yield State({COUNT: count})


class WindowCount(Transformer):
    input_topics = INPUTS

    async def transform(self, message: IncomingMessage, state: State) -> AsyncIterator[Message | State]:
        start = round(message.timestamp.timestamp() * 1000) // WINDOW_MS * WINDOW_MS
        count = state.get(COUNT) + 1 if state.get(START) == start else 1
        yield Message(key=message.key, topic=OUTPUT, value=Event({START: start, COUNT: count}))
        yield State({START: start, COUNT: count})


class TableJoin(Transformer):
    input_topics = INPUTS
    config_topics = TABLES

    async def transform(self, message: IncomingMessage, state: State) -> AsyncIterator[Message | State]:
        profile = self.configs.get(message.key)
        if profile is not None:
            event = message.value
            joined = Event({NUMBER: event[NUMBER], AMOUNT: event[AMOUNT], CITY: profile[CITY]})
            yield Message(key=message.key, topic=OUTPUT, value=joined)


JOBS = {"passthrough": Passthrough, "keyed-count": KeyedCount, "window-count": WindowCount, "table-join": TableJoin}


async def main() -> None:
    application = os.environ["BENCHMARK_APPLICATION"]
    await Flechtwerk.of(
        application_id=application,
        bootstrap_servers=os.environ["BENCHMARK_BOOTSTRAP_SERVERS"],
        client_id=f"{application}-0",
        compression_type=None,
        stage=JOBS[os.environ["BENCHMARK_JOB"]](),
    ).run()


if __name__ == "__main__":
    uvloop.run(main())
