"""What the README says of options is so; its code runs in tests/docs."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from streamlib import StreamsConfig

README = (Path(__file__).parents[1] / "README.md").read_text()
OPTIONS = re.findall(r"^\| `(\w+)` \|([^|]*)\|", README, re.MULTILINE)


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
