"""An application's life, as far as it needs no broker."""

from __future__ import annotations

import anyio
import pytest

from streamlib import KafkaStreams, State, StreamsBuilder, StreamsConfig
from streamlib.app import Connect
from streamlib.errors import ConnectionFailedError
from streamlib.runtime.wiring import Adapters


def application(connect: Connect) -> KafkaStreams:
    builder = StreamsBuilder()
    builder.stream("in").to("out")
    return KafkaStreams(builder.build(), StreamsConfig(application_id="copy"), connect=connect)


async def nobody_answers(config: StreamsConfig) -> Adapters:
    await anyio.sleep_forever()
    raise AssertionError


async def refused(config: StreamsConfig) -> Adapters:
    raise ConnectionFailedError("Metadata", "", "nobody is there")


async def test_an_application_can_be_closed_while_it_waits_for_the_brokers() -> None:
    asked = anyio.Event()

    async def says_that_it_was_asked(config: StreamsConfig) -> Adapters:
        asked.set()
        return await nobody_answers(config)

    app = application(says_that_it_was_asked)
    with anyio.fail_after(10):
        async with app:
            await asked.wait()
    assert app.state is State.NOT_RUNNING


async def test_what_a_block_raises_arrives_as_itself() -> None:
    with anyio.fail_after(10), pytest.raises(ValueError, match="mine"):
        async with application(nobody_answers):
            raise ValueError("mine")


async def test_a_block_that_waits_for_an_application_that_failed_is_ended() -> None:
    with anyio.fail_after(10), pytest.raises(ConnectionFailedError, match="nobody is there"):
        async with application(refused):
            await anyio.sleep_forever()


async def test_a_block_that_finds_out_first_raises_the_same() -> None:
    async def find_out_first(app: KafkaStreams) -> None:
        with anyio.CancelScope(shield=True):
            await app.wait_running()

    with anyio.fail_after(10), pytest.raises(ConnectionFailedError, match="nobody is there"):
        async with application(refused) as app:
            await find_out_first(app)
