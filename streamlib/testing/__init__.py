"""Tools for testing stream processing applications."""

from streamlib.testing.driver import StoreReader, TestInputTopic, TestOutputTopic, TopologyTestDriver
from streamlib.testing.one_step import run_stream

__all__ = ["StoreReader", "TestInputTopic", "TestOutputTopic", "TopologyTestDriver", "run_stream"]
