"""What `import streamlib` brings along: it is paid for in every test run and by every command."""

from __future__ import annotations

import subprocess
import sys

import pytest

import streamlib

DEFINES_A_TOPOLOGY = """
import sys
from streamlib import StreamsBuilder, StreamsConfig

builder = StreamsBuilder()
builder.stream("in", key=str, value=str).group_by_key().count(store="counts").to_stream().to("out")
builder.build()
heavy = ("aiokafka", "anyio", "asyncio", "opentelemetry", "prometheus_client", "rich", "rocksdict", "starlette",
         "typer", "urllib3", "uvloop", "streamlib.kafka", "streamlib.runtime")
print(*[name for name in heavy if name in sys.modules])
"""


def test_a_topology_is_defined_without_what_runs_it() -> None:
    ran = subprocess.run([sys.executable, "-c", DEFINES_A_TOPOLOGY], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_all_public_names_are_there() -> None:
    assert all(hasattr(streamlib, name) for name in streamlib.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = streamlib.nonsense
