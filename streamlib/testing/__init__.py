"""Tools for testing stream processing applications."""

import importlib
from typing import TYPE_CHECKING, Any

from streamlib.testing.driver import StoreReader, TestInputTopic, TestOutputTopic, TopologyTestDriver
from streamlib.testing.one_step import run_stream

if TYPE_CHECKING:
    from streamlib.testing.simulated import Simulated, SimulationFailedError, simulate

__all__ = [
    "Simulated",
    "SimulationFailedError",
    "StoreReader",
    "TestInputTopic",
    "TestOutputTopic",
    "TopologyTestDriver",
    "run_stream",
    "simulate",
]


def __getattr__(name: str) -> Any:
    """The simulation, with the client it runs, is imported when it is asked for."""
    if name in __all__:
        return getattr(importlib.import_module("streamlib.testing.simulated"), name)
    raise AttributeError(f"module 'streamlib.testing' has no attribute {name!r}")
