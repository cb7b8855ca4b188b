from __future__ import annotations

import logging

import pytest

from streamlib.cli.errors import UsageError, describe, exit_code
from streamlib.cli.logs import set_up_logs
from streamlib.errors import ConfigError, KafkaError, ProcessingError, StreamsError


def deep(depth: int) -> None:
    if depth:
        deep(depth - 1)
    raise ValueError("no such thing")


def chained(depth: int) -> ProcessingError:
    try:
        deep(depth)
    except ValueError as error:
        failure = ProcessingError("node map-1 failed", node="map-1")
        failure.__cause__ = error
        return failure
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "code"), [(UsageError("x"), 2), (ConfigError("x"), 1), (KafkaError(3, "Metadata"), 1)]
)
def test_exit_codes(error: StreamsError, code: int) -> None:
    assert exit_code(error) == code


def test_an_error_is_one_line() -> None:
    assert describe(ConfigError("two\n  lines")) == "two lines"
    assert describe(ConfigError()) == "ConfigError"


def test_user_exception_comes_with_its_own_frames() -> None:
    lines = describe(chained(0)).splitlines()
    assert lines[0] == "node map-1 failed"
    assert lines[-1] == "ValueError: no such thing"
    assert any(line.endswith("in deep") for line in lines)


def test_long_traceback_is_cut() -> None:
    lines = describe(chained(50)).splitlines()
    assert "... 44 frames" in lines[1]
    assert len(lines) < 30


def test_debug_shows_everything() -> None:
    assert "Traceback (most recent call last)" in describe(chained(0), debug=True)


def test_what_is_not_ours_comes_with_its_traceback() -> None:
    assert describe(ValueError("x")).endswith("ValueError: x")


def test_unknown_log_level_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown log level 'loud'"):
        set_up_logs("loud")


def test_an_event_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        set_up_logs("info")
        logging.getLogger("x").info("a\nb")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert capsys.readouterr().err.endswith("INFO x: a b\n")
