"""A bench for each test: topics of its own, worker processes that end with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from streamlib.testing.plugin import KafkaTarget
from tests.exactly_once.harness import Bench, opened


@pytest.fixture
async def bench(kafka: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Bench]:
    """On each broker version: with transactions version 2 (KIP-890) and without."""
    async with opened(Bench(kafka, unique_name("eos"), tmp_path)) as ready:
        yield ready
