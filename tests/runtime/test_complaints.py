"""The same complaint is worth a line only once in a while."""

from __future__ import annotations

import logging

import pytest

from streamlib.runtime.complaints import INTERVAL_MS, Complaints

log = logging.getLogger("streamlib.test")


def test_the_same_is_said_once_in_an_interval_and_then_how_often_it_was(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(log)
    said = [complaints.warn("fetch", at, "cannot read %s", "a-0") for at in (0, 1, INTERVAL_MS - 1, INTERVAL_MS)]
    assert said == [True, False, False, True]
    assert caplog.messages == ["cannot read a-0", "cannot read a-0 (and 2 times since the last such line)"]


def test_other_kinds_have_lines_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(log)
    for kind in ("fetch", "produce", "fetch"):
        complaints.warn(kind, 0, kind)
    assert caplog.messages == ["fetch", "produce"]


def test_the_line_comes_from_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    Complaints(log).warn("fetch", 0, "cannot read")
    assert caplog.records[0].funcName == "test_the_line_comes_from_the_caller"
