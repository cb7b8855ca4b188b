from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from streamlib.cli.errors import UsageError
from streamlib.cli.settings import GivenSettings, load_config
from streamlib.cli.target import Target
from streamlib.config import StreamsConfig
from streamlib.dsl.builder import StreamsBuilder
from streamlib.errors import ConfigError

LAYERS = ("module", "file", "environment", "option")


def target(config: StreamsConfig | Mapping[str, Any] | None = None) -> Target:
    builder = StreamsBuilder()
    builder.stream("in", key=str, value=str).to("out")
    return Target("shop.flow", "topology", builder.build(), config)


@pytest.mark.parametrize("highest", range(len(LAYERS)))
def test_settings_come_from_the_highest_layer_that_has_them(tmp_path: Path, highest: int) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('bootstrap_servers = "file:1"\n' if highest >= 1 else "")
    config = load_config(
        GivenSettings(file=file, bootstrap_servers="option:1" if highest >= 3 else None),
        target({"bootstrap_servers": "module:1"}),
        {"STREAMLIB_BOOTSTRAP_SERVERS": "environment:1"} if highest >= 2 else {},
    )
    assert config.bootstrap_servers == f"{LAYERS[highest]}:1"


def test_config_object_of_the_module_is_a_layer_too() -> None:
    own = StreamsConfig(application_id="own", bootstrap_servers="own:1", commit_interval_ms=77)
    config = load_config(GivenSettings(bootstrap_servers="option:1"), target(own), {})
    assert (config.application_id, config.bootstrap_servers, config.commit_interval_ms) == ("own", "option:1", 77)


def test_application_is_called_like_the_module_by_default() -> None:
    given = GivenSettings(bootstrap_servers="x:1")
    assert load_config(given, target(), {}).application_id == "shop.flow"


def test_any_setting_can_be_an_option() -> None:
    given = GivenSettings(bootstrap_servers="x:1", others=["commit_interval_ms=5", "max.task.idle.ms=0"])
    assert load_config(given, target(), {}).commit_interval_ms == 5


def test_file_may_have_dotted_names(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('application.id = "from-file"\nbootstrap.servers = "file:1"\ncommit.interval.ms = 9\n')
    config = load_config(GivenSettings(file=file), target(), {})
    assert (config.application_id, config.commit_interval_ms) == ("from-file", 9)


def test_debug_switch_is_no_setting() -> None:
    load_config(GivenSettings(bootstrap_servers="x:1"), target(), {"STREAMLIB_DEBUG": "1"})


def test_option_that_is_no_pair_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="NAME=VALUE"):
        load_config(GivenSettings(others=["commit_interval_ms"]), target(), {})


@pytest.mark.parametrize(("text", "message"), [(None, "cannot read"), ("commit_interval_ms: 5", "is not TOML")])
def test_file_that_cannot_be_read_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "settings.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=rf"{message}|settings\.toml"):
        load_config(GivenSettings(file=file), target(), {})


def test_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="commit_interval_ms"):
        load_config(GivenSettings(bootstrap_servers="x:1", others=["comit_interval_ms=5"]), target(), {})


def test_arguments_are_the_settings_again() -> None:
    given = GivenSettings(application_id="a", file=Path("f.toml"), others=["x=1"])
    assert given.arguments() == ["--application-id=a", "--set=x=1", "--config=f.toml"]
    assert given.arguments("w-1")[:2] == ["--application-id=a", "--instance-id=w-1"]
