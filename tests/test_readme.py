"""What the README shows works as it stands, and what it says of options is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamlib import StreamsConfig, Topology, Windowed, time_windowed
from streamlib.testing import TopologyTestDriver

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
OPTIONS = re.findall(r"^\| `(\w+)` \|([^|]*)\|", README, re.MULTILINE)


def without_await(code: str) -> ast.Module:
    """A block without the statements that need a broker: they are checked to be Python, not run."""
    compile(code, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    module = ast.parse(code)
    module.body = [each for each in module.body if not any(isinstance(node, ast.Await) for node in ast.walk(each))]
    return module


@pytest.fixture
def after_each_block() -> list[dict[str, Any]]:
    """The names there are after each block; later ones see those of earlier ones, as a reader does."""
    names: dict[str, Any] = {"__name__": "readme"}
    found = []
    for block in BLOCKS:
        exec(compile(without_await(block), "README.md", "exec"), names)
        found.append(dict(names))
    return found


def test_every_block_runs(after_each_block: list[dict[str, Any]]) -> None:
    assert len(after_each_block) == 6
    config = after_each_block[-1]["config"]
    assert isinstance(config, StreamsConfig)
    assert config.application_id == "revenue"


def test_the_first_block_counts_words(after_each_block: list[dict[str, Any]]) -> None:
    topology = after_each_block[0]["topology"]
    assert isinstance(topology, Topology)
    with TopologyTestDriver(topology) as driver:
        driver.input_topic("lines", value=str).pipe_input(None, "To be or not to be", timestamp_ms=0)
        counts = driver.output_topic("word-counts", key=str, value=int)
        assert counts.read_key_values_to_dict() == {"to": 2, "be": 2, "or": 1, "not": 1}


def test_the_third_block_joins_and_sums(after_each_block: list[dict[str, Any]]) -> None:
    names = after_each_block[2]
    with TopologyTestDriver(names["windowed"]) as driver:
        orders = driver.input_topic("orders", key=str, value=names["Order"])
        driver.input_topic("payments", key=str, value=float).pipe_input("ann", 2.0, timestamp_ms=0)
        orders.pipe_input("ann", names["Order"]("ann", 5.0), timestamp_ms=1_000)
        orders.pipe_input("bob", names["Order"]("bob", 1.0), timestamp_ms=70_000)
        assert driver.output_topic("open-amounts", key=str, value=float).read_key_values() == [("ann", 3.0)]
        revenue = driver.output_topic("revenue-per-minute", key=time_windowed(str, 60_000), value=float)
        assert revenue.read_key_values() == [(Windowed("ann", 0, 60_000), 5.0)]


@pytest.mark.parametrize(("name", "default"), OPTIONS)
def test_options_and_their_defaults_are_as_listed(name: str, default: str) -> None:
    defaults = msgspec.structs.asdict(StreamsConfig(application_id="app"))
    actual = defaults[name]
    if name == "state_dir":
        assert default.strip(" `") == "~/.local/state/streamlib"  # made out by `state_path`
        return
    assert default.strip(" `") == ("" if actual is None else str(actual))


def test_the_options_were_found() -> None:
    assert len(OPTIONS) >= 7
