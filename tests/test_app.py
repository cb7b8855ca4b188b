"""An application's life, as far as it needs no broker."""

from __future__ import annotations

import anyio

from streamlib import KafkaStreams, State, StreamsBuilder, StreamsConfig
from streamlib.runtime.wiring import Adapters


async def test_an_application_can_be_closed_while_it_waits_for_the_brokers() -> None:
    asked = anyio.Event()

    async def nobody_answers(config: StreamsConfig) -> Adapters:
        asked.set()
        await anyio.sleep_forever()
        raise AssertionError

    builder = StreamsBuilder()
    builder.stream("in").to("out")
    app = KafkaStreams(builder.build(), StreamsConfig(application_id="copy"), connect=nobody_answers)
    with anyio.fail_after(5):
        async with app:
            await asked.wait()
    assert app.state is State.NOT_RUNNING
