"""Where a setting comes from: option > STREAMLIB_... in the environment > file > the module's `config` > default."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from streamlib.cli.errors import UsageError
from streamlib.cli.target import Target, look_in_current_folder
from streamlib.config import SECRETS, StreamsConfig, normalise, read_environment, read_toml

ENVIRONMENT_PREFIX = "STREAMLIB_"


class GivenSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says; None is "nothing". `others` are NAME=VALUE; a named option goes before them."""

    application_id: str | None = None
    bootstrap_servers: str | None = None
    processing_guarantee: str | None = None
    group_instance_id: str | None = None
    file: Path | None = None
    others: Sequence[str] = ()

    def named(self) -> dict[str, str]:
        """The options that were used, under the settings' names."""
        values = {
            "application_id": self.application_id,
            "bootstrap_servers": self.bootstrap_servers,
            "processing_guarantee": self.processing_guarantee,
            "group_instance_id": self.group_instance_id,
        }
        return {name: value for name, value in values.items() if value is not None}

    def arguments(self, instance_id: str | None = None) -> list[str]:
        """The same as command line arguments, with another instance id if one is given."""
        named = self.named()
        if instance_id is not None:
            named["group_instance_id"] = instance_id
        options = {"group_instance_id": "--instance-id"}
        words = [f"{options.get(name, '--' + name.replace('_', '-'))}={value}" for name, value in named.items()]
        words += [f"--set={other}" for other in self.others]
        return words if self.file is None else [*words, f"--config={self.file}"]


def load_config(given: GivenSettings, target: Target, env: Mapping[str, str] | None = None) -> StreamsConfig:
    """The configuration of an application.

    Raises:
        UsageError: an option is not NAME=VALUE.
        ConfigError: a name or value is wrong, or the file cannot be read.
    """
    return _merged([{"application_id": target.module}, _as_mapping(target.config)], given, env)


def load_settings(given: GivenSettings, env: Mapping[str, str] | None = None) -> StreamsConfig:
    """The configuration of a tool that needs no topology; `given` has to name the application.

    Raises:
        UsageError: an option is not NAME=VALUE.
        ConfigError: a name or value is wrong, or the file cannot be read.
    """
    return _merged([], given, env)


def _merged(first: Sequence[Mapping[str, Any]], given: GivenSettings, env: Mapping[str, str] | None) -> StreamsConfig:
    look_in_current_folder()  # where a token provider may be
    merged: dict[str, Any] = {}
    for layer in (
        *first,
        read_toml(given.file),
        read_environment(os.environ if env is None else env, ENVIRONMENT_PREFIX),
        dict(map(_split, given.others)),
        given.named(),
    ):
        merged.update(normalise(layer))
    return StreamsConfig.load(merged, env={})


def _as_mapping(config: StreamsConfig | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if isinstance(config, StreamsConfig):
        return msgspec.structs.asdict(config)
    return config or {}


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"--set {text!r} is not NAME=VALUE, for example --set commit_interval_ms=50")
    plain = name.strip().replace(".", "_").replace("-", "_").lower()
    if plain in SECRETS:
        raise UsageError(
            f"--set {name.strip()}=... would show the secret to everyone who can list processes: use "
            f"{ENVIRONMENT_PREFIX}{plain.upper()} in the environment, or --set {plain}_file=FILE"
        )
    return name.strip(), value.strip()
