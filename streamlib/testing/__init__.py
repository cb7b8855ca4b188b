"""Tools for testing stream processing applications."""

from streamlib.testing.driver import StoreReader, TestInputTopic, TestOutputTopic, TopologyTestDriver

__all__ = ["StoreReader", "TestInputTopic", "TestOutputTopic", "TopologyTestDriver"]
