"""A configuration is right, or says in one line what is wrong."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamlib.config import FIXED, StreamsConfig
from streamlib.errors import ConfigError


def load(env: dict[str, str] | None = None, /, **settings: Any) -> StreamsConfig:
    return StreamsConfig.load({"application_id": "app", **settings}, env=env or {})


def test_defaults_are_valid() -> None:
    config = StreamsConfig(application_id="app")
    assert (config.processing_guarantee, config.commit_interval_ms) == ("at_least_once", 100)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        StreamsConfig(application_id="app").application_id = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"application_id": "no/slash"}, "application_id 'no/slash' cannot begin a topic's name"),
        ({"application_id": "x" * 201}, "cannot begin a topic's name"),
        ({"application_id": ""}, "cannot begin a topic's name"),
        ({"group_instance_id": "a b"}, "group_instance_id 'a b' is not a name"),
        ({"bootstrap_servers": " "}, "bootstrap_servers is empty"),
        ({"commit_interval_ms": 0}, "commit_interval_ms has to be at least 1, not 0"),
        ({"max_task_idle_ms": -2}, "max_task_idle_ms has to be at least -1, not -2"),
        ({"replication_factor": 0}, "replication_factor has to be at least 1, or -1"),
        ({"session_timeout_ms": 1000}, "session_timeout_ms .1000. has to be more than twice heartbeat_interval_ms"),
        ({"commit_interval_ms": 10_000}, "transaction_timeout_ms .10000. has to be more than commit_interval_ms"),
        ({"delivery_timeout_ms": 1}, "delivery_timeout_ms .1. has to be at least request_timeout_ms"),
        ({"commit_interval_ms": "soon"}, "commit_interval_ms: Expected int, got str .'soon'."),
        ({"commit_interval_ms": True}, "commit_interval_ms: Expected int, got bool"),
        ({"processing_guarantee": "exactly_once"}, "'at_least_once' or 'exactly_once_v2', not 'exactly_once'"),
        ({"auto_offset_reset": "never"}, "auto_offset_reset has to be 'earliest', 'latest' or 'none', not 'never'"),
        ({"session_timeout_ms": 1 << 31}, "session_timeout_ms has to be at most 2147483647, not 2147483648"),
        ({"replication_factor": 1 << 15}, "replication_factor has to be at most 32767"),
        ({"rocksdb_memory_bytes": 1 << 63}, "rocksdb_memory_bytes has to be at most"),
        ({"client_tags": {"zone": "x" * 31}}, "the client tag 'zone': .* is too long"),
        ({"client_tags": {str(n): "x" for n in range(6)}}, "client_tags has 6 tags, of at most 5"),
        ({"rack_aware_assignment_tags": ("zone",)}, "does not have: set client.tag.zone"),
        ({"group_instance_id": 7}, "group_instance_id: Expected str"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        StreamsConfig(**{"application_id": "app", **setting})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["commit.interval.ms", "commit_interval_ms", "commit-interval-ms"])
def test_names_may_be_dotted(name: str) -> None:
    assert load(**{name: "50"}).commit_interval_ms == 50


def test_tags_are_set_one_by_one_and_lists_with_commas() -> None:
    settings = {"application.id": "a", "client.tag.zone": "eu-1a", "client.tag.rack": "7"}
    config = StreamsConfig.load(settings | {"rack.aware.assignment.tags": "zone, rack"}, env={})
    assert config.client_tags == {"zone": "eu-1a", "rack": "7"}
    assert config.rack_aware_assignment_tags == ("zone", "rack")
    assert StreamsConfig.load({"application_id": "a"}, env={"STREAMLIB_CLIENT_TAG_ZONE": "b"}).client_tags == {
        "zone": "b"
    }


def test_a_name_is_given_once() -> None:
    with pytest.raises(ConfigError, match="commit_interval_ms is given twice"):
        load(**{"commit.interval.ms": 1, "commit_interval_ms": 2})


def test_large_memories_are_allowed() -> None:
    assert load(rocksdb_memory_bytes=8 << 30, buffer_memory=4 << 30).buffer_memory == 4 << 30


def test_toml_may_nest_dotted_names(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('application.id = "a"\ncommit.interval.ms = 7\n')
    assert StreamsConfig.load(file=file, env={}).commit_interval_ms == 7


def test_sources_have_an_order(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[streamlib]\n"application.id" = "from-file"\nbatch_size = 1\nmax_task_idle_ms = 1\n')
    env = {"STREAMLIB_BATCH_SIZE": "2", "STREAMLIB_MAX_TASK_IDLE_MS": "2", "OTHER": "x"}
    config = StreamsConfig.load({"max.task.idle.ms": 3}, file=file, env=env)
    assert (config.application_id, config.batch_size, config.max_task_idle_ms) == ("from-file", 2, 3)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown option 'comit.interval.ms': did you mean 'commit_interval_ms'\?"):
        load(**{"comit.interval.ms": 5})
    with pytest.raises(ConfigError, match=r"unknown option .*: did you mean 'state_dir'\?"):
        load({"STREAMLIB_STATE_DIRS": "x"})
    with pytest.raises(ConfigError, match=r"unknown option 'zzzzzz'$"):
        load(zzzzzz=1)


@pytest.mark.parametrize("name", sorted(FIXED))
def test_what_the_guarantees_rest_on_cannot_be_changed(name: str) -> None:
    only, why = FIXED[name]
    assert load(**{name.replace("_", "."): only}) == load()
    with pytest.raises(ConfigError, match=f"is always {only} here, not 0: {why}"):
        load(**{name: "0"})


@pytest.mark.parametrize("name", ["acks", "enable.idempotence", "isolation.level"])
def test_the_only_value_may_be_written_as_in_kafka(name: str) -> None:
    values = {"acks": "-1", "enable.idempotence": True, "isolation.level": "read_committed"}
    assert load(**{name: values[name]}) == load()


def test_servers_may_be_a_list_and_folders_a_path(tmp_path: Path) -> None:
    config = load(bootstrap_servers=["a:1", "b:2"], state_dir=tmp_path)
    assert config.bootstrap_servers == "a:1,b:2"
    assert config.state_path == tmp_path


def test_state_goes_where_xdg_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert load().state_path == Path("/var/state/streamlib")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert load().state_path == Path("~/.local/state/streamlib").expanduser()


def test_no_application_id_says_what_it_is_for() -> None:
    with pytest.raises(ConfigError, match="application_id is missing: it names the group"):
        StreamsConfig.load({}, env={})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none.toml: No such file"):
        StreamsConfig.load(file=tmp_path / "none.toml", env={})
    (tmp_path / "bad.toml").write_text("a = ")
    with pytest.raises(ConfigError, match=r"bad.toml is not TOML: "):
        StreamsConfig.load(file=tmp_path / "bad.toml", env={})


def test_every_option_is_explained() -> None:
    documented = inspect.cleandoc(StreamsConfig.__doc__ or "")  # the compiler does it, too, from Python 3.13 on
    for field in msgspec.structs.fields(StreamsConfig):
        assert f"\n    {field.name}: " in documented, field.name
