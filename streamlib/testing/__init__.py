"""Tools for testing stream processing applications."""

from streamlib.testing.driver import StoreReader, TestInputTopic, TestOutputTopic, TopologyTestDriver
from streamlib.testing.one_step import run_stream
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
