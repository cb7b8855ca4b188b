"""What the page about monitoring says of metrics and settings is what there is."""

from __future__ import annotations

import re

from streamlib.config import StreamsConfig
from streamlib.monitoring.prometheus import exported_names
from tests.docs.metrics_table import PAGE, intro, table


def test_the_page_has_the_table_of_the_catalogue() -> None:
    assert PAGE.read_text() == intro() + table(), "write it anew: python -m tests.docs.metrics_table"


def test_metrics_and_settings_in_the_text_are_there() -> None:
    assert set(re.findall(r"streamlib_(?:worker|client|task|partition)_[a-z0-9_]+", intro())) <= exported_names().keys()
    for name in ("metrics_recording_level", "watchdog_timeout_ms"):
        assert name in intro()
        assert name in StreamsConfig.__struct_fields__
