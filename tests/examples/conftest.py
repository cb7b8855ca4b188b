"""A bench for examples: topics of its own, and worker processes that run them as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from streamlib.testing.plugin import KafkaTarget
from tests.exactly_once.harness import Bench, opened


@pytest.fixture
async def bench(kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(Bench(kafka_broker, unique_name("example"), tmp_path)) as ready:
        ready.topologies = Path(__file__).with_name("topologies.py")
        yield ready
