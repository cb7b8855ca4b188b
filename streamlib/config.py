"""How an application runs: one frozen, validated value with Kafka's names in snake_case.

`StreamsConfig(...)` in code; `StreamsConfig.load(...)` from a mapping, a TOML file and the environment, where Kafka's
dotted names work too. What a guarantee depends on cannot be set to anything else.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args, get_origin

import msgspec

from streamlib.errors import ConfigError
from streamlib.metrics import RecordingLevel
from streamlib.policies import ErrorPolicies, PolicyOption, Retry, is_policy, parsed
from streamlib.records import HostInfo
from streamlib.security import (
    CONNECTION_SECRETS,
    KNOWN_ELSEWHERE,
    Secret,
    Security,
    find_provider,
    keep_secret,
)

ProcessingGuarantee: TypeAlias = Literal["at_least_once", "exactly_once_v2"]
AutoOffsetReset: TypeAlias = Literal["earliest", "latest", "none"]
GroupProtocol: TypeAlias = Literal["classic", "streams"]
Compression: TypeAlias = Literal["none", "gzip", "snappy", "lz4", "zstd"]

SECRETS = (*CONNECTION_SECRETS, "web_token")
"""The settings that are secret. Each can be in a file, too: `sasl_password_file`."""

SECRET_FILES: Mapping[str, str] = {f"{name}_file": name for name in SECRETS}

if TYPE_CHECKING:
    _Policy: TypeAlias = PolicyOption
else:
    _Policy = Any  # msgspec knows no type that may also be a function; `_check_policies` looks

MIB = 1 << 20

AROUND_A_ROW_BYTES = 1024
"""Headers of batch and record, and an ordinary key."""

FIXED: Mapping[str, tuple[str, str]] = {
    "isolation_level": ("read_committed", "an aborted transaction must never be processed"),
    "enable_idempotence": ("true", "a retry must never write a record twice"),
    "acks": ("all", "an acknowledged record must survive its leader"),
    "enable_auto_commit": ("false", "offsets are committed with the results"),
    "max_in_flight_requests_per_connection": ("5", "the broker remembers five batches of a producer"),
}
"""What Kafka lets one set and the guarantees rest on: the only value, and why."""

_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]+")
_MOST_TAGS, _LONGEST_TAG_NAME, _LONGEST_TAG_VALUE = 5, 20, 30  # as in KIP-708
_LONGEST_APPLICATION_ID = 200  # leaves room for `-<store>-changelog` within Kafka's 249 characters


class StreamsConfig(Security, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an application runs. Times are in ms, sizes in bytes.

    Args:
        application_id: the group id, and the prefix of internal topics, transactional ids and the state folder.
        bootstrap_servers: `host:port`, several with commas.
        processing_guarantee: `exactly_once_v2` for transactions, `at_least_once` for an idempotent producer only.
        group_protocol: who assigns tasks: a worker (`classic`) or the brokers (`streams`: KIP-1071, from Kafka 4.2 on).
        application_server: `HOST:PORT` where other workers reach this one's HTTP server; every member of the group is
            told of it, so that each can say which of them has a key (Kafka Streams' `application.server`).
        client_id: how the brokers' logs call us; the application id if not given.
        num_standby_replicas: how many workers besides its owner keep a copy of a task's stores, to take over at once.
        acceptable_recovery_lag: how many changelog offsets a store may be behind to count as caught up (KIP-441).
        max_warmup_replicas: how many tasks at once are warmed up where they are to move (KIP-441).
        client_rack: the rack or zone this worker is in; standbys avoid that of their active.
        rack_aware_assignment_tags: names of tags in which standbys are to differ from their active (KIP-708).
        client_tags: this worker's, such as `{"zone": "eu-1a"}`; `client.tag.zone` works too.
        leave_group: whether a worker that stops leaves the group; by default all but static members do.
        group_instance_id: makes a static member (KIP-345), whose restart within the session causes no rebalance.
        state_dir: the folder for stores; workers of one host share it.
        state_cleanup_dir_max_age_ms: stores that nobody has held for so long are built anew (KIP-1259). Keep it below
            the changelogs' `delete.retention.ms` (24 h): after that, deletes an old store has not seen may be gone.
        commit_interval_ms: the longest that processed records wait for their commit under load.
        commit_max_bytes: uncommitted outputs and state that make a commit due earlier.
        auto_offset_reset: where to start without a committed offset.
        max_task_idle_ms: how long to wait for an empty input while a task's other inputs have records (KIP-353).
        session_timeout_ms: after how long without a heartbeat a worker's tasks go to others.
        heartbeat_interval_ms: how often a worker says that it is alive.
        max_poll_interval_ms: how long a function may hold a worker before others take its tasks; rebalances wait for a
            member as long.
        transaction_timeout_ms: after how long the broker aborts a transaction that its worker left open.
        request_timeout_ms: after how long a request without an answer counts as lost.
        delivery_timeout_ms: how long one thing is tried again before the work is redone.
        retry_backoff_ms: the first pause before trying again.
        metadata_max_age_ms: how often topics are looked for that match a pattern.
        fetch_max_wait_ms: how long the broker may hold a fetch that finds nothing.
        fetch_max_bytes: the most that one fetch brings.
        max_partition_fetch_bytes: the most that one fetch brings of one partition.
        buffered_bytes_per_partition: fetched records that wait to be processed, per partition.
        input_buffer_max_bytes: the same for all partitions of a worker together (KIP-770), half of it in the client;
            with many partitions each has a share of it.
        buffer_memory: produced records that wait to be acknowledged.
        batch_size: the size at which a batch of produced records is closed.
        max_request_size: the largest record, before compression.
        compression_type: of produced batches.
        replication_factor: of internal topics; -1 leaves it to the broker.
        repartition_purge_interval_ms: how often consumed records are deleted from repartition topics.
        on_deserialization_error: what becomes of a record that cannot be decoded: "fail", "skip", a policy such as
            `DeadLetter("topic")`, or a function that is told of the `FailedRecord` and returns one of these; a source
            may say otherwise.
        on_processing_error: likewise if a user function raises: the record is dropped at the step that raised, or the
            function is called again (`Retry`); a step may say otherwise.
        on_production_error: likewise if a result cannot be written: its types are not those of the sink, or it is
            larger than `max_request_size`; a sink may say otherwise.
        errors_dead_letter_queue_topic_name: where records go that are skipped (KIP-1034); the topic has to exist.
        statestore_cache_max_bytes: how much the record caches of tables may hold together; with more than zero, of
            several updates of a row between two commits only the last goes on to the steps after the table.
        rocksdb_memory_bytes: cache and write buffers of all stores of the process together.
        metrics_recording_level: "INFO", or "DEBUG" to count the records of each node and time each access to a store
            on disk, which costs a part of the throughput.
        watchdog_timeout_ms: for how long a partition with lag may stand still, a call go on, or a function hold the
            worker until `KafkaStreams.health` calls it stuck.
        web_token: who has it may see the web console, and ask for what is in the stores; needed where that listens
            beyond this host. At least 16 characters; a `Secret`, or text, which becomes one.
        security_protocol: `SSL` and `SASL_SSL` encrypt, `SASL_SSL` and `SASL_PLAINTEXT` authenticate with SASL.
        ssl_cafile: a PEM file with the authorities that sign the brokers' certificates; the system's if not given.
        ssl_certfile: a PEM file with our certificate and what is between it and its authority (mutual TLS).
        ssl_keyfile: a PEM file with its key, if that is not in `ssl_certfile`.
        ssl_key_password: of the key. Every secret can be a file: `ssl_key_password_file` in settings and environment.
        ssl_check_hostname: whether the broker's certificate has to be for the name it is reached by.
        sasl_mechanism: how SASL authenticates.
        sasl_username: for `PLAIN` and SCRAM.
        sasl_password: for `PLAIN` and SCRAM; a `Secret`, or text, which becomes one.
        sasl_oauth_token_provider: for `OAUTHBEARER`, a function without arguments, `async` or not, that returns an
            `OAuthToken`; in settings and environment its place, `module:function`.
        sasl_oauthbearer_token_endpoint_url: for `OAUTHBEARER` instead, where tokens are got by OAuth's client
            credentials grant (KIP-1139).
        sasl_oauthbearer_client_credentials_client_id: for that grant.
        sasl_oauthbearer_client_credentials_client_secret: for that grant; a `Secret`, or text, which becomes one.
        sasl_oauthbearer_scope: what to ask for there.

    Raises:
        ConfigError: a value is out of its range, or contradicts another.

    >>> StreamsConfig(application_id="revenue").processing_guarantee
    'at_least_once'
    """

    application_id: str
    bootstrap_servers: str = "localhost:9092"
    processing_guarantee: ProcessingGuarantee = "at_least_once"
    group_protocol: GroupProtocol = "classic"
    application_server: str | None = None
    client_id: str | None = None
    num_standby_replicas: int = 0
    acceptable_recovery_lag: int = 10_000
    max_warmup_replicas: int = 2
    client_rack: str | None = None
    rack_aware_assignment_tags: tuple[str, ...] = ()
    client_tags: dict[str, str] = msgspec.field(default_factory=dict)
    leave_group: bool | None = None
    group_instance_id: str | None = None
    state_dir: str = ""
    state_cleanup_dir_max_age_ms: int = 23 * 3_600_000
    commit_interval_ms: int = 100
    commit_max_bytes: int = 16 * MIB
    auto_offset_reset: AutoOffsetReset = "earliest"
    max_task_idle_ms: int = 0
    session_timeout_ms: int = 10_000
    heartbeat_interval_ms: int = 500
    max_poll_interval_ms: int = 300_000
    transaction_timeout_ms: int = 10_000
    request_timeout_ms: int = 30_000
    delivery_timeout_ms: int = 120_000
    retry_backoff_ms: int = 50
    metadata_max_age_ms: int = 300_000
    fetch_max_wait_ms: int = 500
    fetch_max_bytes: int = 50 * MIB
    max_partition_fetch_bytes: int = 1 * MIB
    buffered_bytes_per_partition: int = 4 * MIB
    input_buffer_max_bytes: int = 16 * MIB
    buffer_memory: int = 32 * MIB
    batch_size: int = MIB // 4
    max_request_size: int = 1 * MIB
    compression_type: Compression = "none"
    replication_factor: int = -1
    repartition_purge_interval_ms: int = 30_000
    on_deserialization_error: _Policy = "fail"
    on_processing_error: _Policy = "fail"
    on_production_error: _Policy = "fail"
    errors_dead_letter_queue_topic_name: str | None = None
    statestore_cache_max_bytes: int = 0
    rocksdb_memory_bytes: int = 64 * MIB
    metrics_recording_level: RecordingLevel = "INFO"
    watchdog_timeout_ms: int = 60_000
    web_token: Secret | None = None

    def __post_init__(self) -> None:
        keep_secret(self, SECRETS)
        _check_types(self)
        _ = self.security  # which checks itself
        for check in (
            _check_names,
            _check_ranges,
            _check_together,
            _check_tags,
            _check_group_protocol,
            _check_policies,
            _check_dead_letter_topics,
        ):
            check(self)

    @property
    def error_policies(self) -> ErrorPolicies:
        """What becomes of records that fail."""
        return ErrorPolicies(
            self.on_deserialization_error,
            self.on_processing_error,
            self.errors_dead_letter_queue_topic_name,
            self.on_production_error,
            self.application_id,
        )

    @property
    def security(self) -> Security:
        """How connections are encrypted and authenticated."""
        return Security(**{name: getattr(self, name) for name in Security.__struct_fields__})

    @property
    def max_row_bytes(self) -> int:
        """The largest row of a store: what surrounds it in the changelog, its key among it, has to fit as well. Larger
        keys are refused when they are sent."""
        return max(1, self.max_request_size - AROUND_A_ROW_BYTES)

    @property
    def state_path(self) -> Path:
        """The folder for stores, with the default filled in: `$XDG_STATE_HOME/streamlib`."""
        if self.state_dir:
            return Path(self.state_dir).expanduser()
        home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(home).expanduser() / "streamlib"

    @classmethod
    def load(
        cls,
        settings: Mapping[str, Any] | None = None,
        *,
        file: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        prefix: str = "STREAMLIB_",
    ) -> Self:
        """Put a configuration together: `settings` before the environment before the file before the defaults.

        Names may be snake_case or dotted, as in Kafka's own configuration files; values may be text. Variables of the
        environment are `STREAMLIB_COMMIT_INTERVAL_MS` and the like; unknown ones with the prefix are an error too.

        Raises:
            ConfigError: an unknown name (the message has the nearest one), a value of the wrong type or out of range,
                or another value for something the guarantees fix.

        >>> StreamsConfig.load({"application.id": "revenue", "commit.interval.ms": "50"}, env={}).commit_interval_ms
        50
        """
        merged: dict[str, Any] = {}
        for source in (read_toml(file), read_environment(os.environ if env is None else env, prefix), settings or {}):
            merged.update(normalise(source))
        if "application_id" not in merged:
            raise ConfigError("application_id is missing: it names the group, the internal topics and the state folder")
        for name in merged.keys() & _POLICIES:
            merged[name] = _policy(name, merged[name])
        try:
            return msgspec.convert(merged, cls, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(_readable(error, merged)) from error


def normalise(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under their own names, without those that are fixed anyway.

    Raises:
        ConfigError: an unknown name, one that is given twice, or another value for something fixed.
    """
    found: dict[str, Any] = {}
    tags: dict[str, str] = {}
    for given, value in settings.items():
        name = str(given).replace(".", "_").replace("-", "_").lower()
        if name.startswith(_TAG):
            tags[name.removeprefix(_TAG)] = value
            continue
        if name in SECRET_FILES:
            name, value = SECRET_FILES[name], Secret.from_file(value)
        if name in found:
            raise ConfigError(f"{name} is given twice: leave one of them out")
        if name in FIXED:
            _check_fixed(given, name, value)
        elif name in StreamsConfig.__struct_fields__:
            found[name] = _AS.get(name, _as_it_is)(value)
        else:
            raise ConfigError(unknown_name(given, name))
    return found | ({"client_tags": found.get("client_tags", {}) | tags} if tags else {})


_POLICIES = ("on_deserialization_error", "on_processing_error", "on_production_error")
_TAG = "client_tag_"


def _as_it_is(value: Any) -> Any:
    return value


def _as_secret(value: Any) -> Any:
    return value if value is None or isinstance(value, Secret) else Secret(value)


def _as_capitals(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _as_function(value: Any) -> Any:
    return find_provider(value) if isinstance(value, str) else value


def _as_list(value: Any) -> Any:
    """Kafka's way to write a list is text with commas."""
    return [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value


def _as_text(value: Any) -> Any:
    """Several servers may be a list, a folder a Path."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value) if isinstance(value, Path) else value


_AS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("bootstrap_servers", "state_dir", "ssl_cafile", "ssl_certfile", "ssl_keyfile"), _as_text),
    **dict.fromkeys(SECRETS, _as_secret),
    "rack_aware_assignment_tags": _as_list,
    "security_protocol": _as_capitals,
    "sasl_mechanism": _as_capitals,
    "sasl_oauth_token_provider": _as_function,
}
"""How a setting may be given besides as what it is."""


def unknown_name(given: str, name: str) -> str:
    """What to say about a name that is none."""
    if name in KNOWN_ELSEWHERE:
        return f"unknown option {given!r}: here it is {KNOWN_ELSEWHERE[name]}"
    nearest = difflib.get_close_matches(name, (*StreamsConfig.__struct_fields__, *FIXED), n=1)
    return f"unknown option {given!r}" + (f": did you mean {nearest[0]!r}?" if nearest else "")


def read_environment(env: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Settings among environment variables. `STREAMLIB_DEBUG` and the like, which are no settings, are left alone."""
    return {
        name.removeprefix(prefix).lower(): value
        for name, value in env.items()
        if name.startswith(prefix) and name not in (f"{prefix}DEBUG", f"{prefix}LOG_LEVEL")
    }


def read_toml(file: str | Path | None) -> dict[str, Any]:
    """Settings of a TOML file, at its top level or in a table `[streamlib]`.

    Raises:
        ConfigError: the file cannot be read.
    """
    if file is None:
        return {}
    try:
        content = tomllib.loads(Path(file).read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not TOML: {error}") from error
    return _dotted(content.get("streamlib", content))


def _dotted(table: Mapping[str, Any]) -> dict[str, Any]:
    """`commit.interval.ms = 50` is three nested tables in TOML; here it is a name again."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict) and name not in _POLICIES:
            found |= {f"{name}.{rest}": inner for rest, inner in _dotted(value).items()}
        else:
            found[name] = value
    return found


def _check_fixed(given: str, name: str, value: Any) -> None:
    only, why = FIXED[name]
    text = str(value).lower()
    accepted = {only, "-1"} if name == "acks" else {only}
    if name == "max_in_flight_requests_per_connection" and text in "12345":
        return
    if text not in accepted:
        raise ConfigError(f"{given} is always {only} here, not {value}: {why}; leave the option out")


def _check_types(config: StreamsConfig) -> None:
    """msgspec checks types when it converts, not when a Struct is made in code."""
    try:
        msgspec.convert(msgspec.structs.asdict(config), _Fields)
    except msgspec.ValidationError as error:
        raise ConfigError(_readable(error, msgspec.structs.asdict(config))) from error


def _check_names(config: StreamsConfig) -> None:
    if not _TOPIC_NAME.fullmatch(config.application_id) or len(config.application_id) > _LONGEST_APPLICATION_ID:
        raise ConfigError(
            f"application_id {config.application_id!r} cannot begin a topic's name: use up to "
            f"{_LONGEST_APPLICATION_ID} letters, digits, '.', '_' and '-'"
        )
    if config.group_instance_id is not None and not _TOPIC_NAME.fullmatch(config.group_instance_id):
        raise ConfigError(
            f"group_instance_id {config.group_instance_id!r} is not a name: use letters, digits, '.', '_' and '-'"
        )
    if not config.bootstrap_servers.strip():
        raise ConfigError("bootstrap_servers is empty: give at least one host:port")
    if config.application_server is not None:
        try:
            HostInfo.parse(config.application_server)
        except ValueError as error:
            raise ConfigError(f"application_server: {error}") from error


_LOWEST: Mapping[str, int] = {
    "max_task_idle_ms": -1,
    "fetch_max_wait_ms": 0,
    "statestore_cache_max_bytes": 0,
    "num_standby_replicas": 0,
    "acceptable_recovery_lag": 0,
}
_HIGHEST: Mapping[str, int] = {
    "replication_factor": (1 << 15) - 1,
    **dict.fromkeys(
        (
            "commit_max_bytes",
            "buffered_bytes_per_partition",
            "input_buffer_max_bytes",
            "buffer_memory",
            "statestore_cache_max_bytes",
            "rocksdb_memory_bytes",
        ),
        (1 << 63) - 1,
    ),
}
_HIGHEST_INT = (1 << 31) - 1  # what fits into a request's field


def _check_ranges(config: StreamsConfig) -> None:
    for name, value in msgspec.structs.asdict(config).items():
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        if name == "replication_factor" and value < 1:
            if value == -1:
                continue
            raise ConfigError(f"{name} has to be at least 1, or -1 (the broker's default), not {value}")
        lowest, highest = _LOWEST.get(name, 1), _HIGHEST.get(name, _HIGHEST_INT)
        if value < lowest:
            raise ConfigError(f"{name} has to be at least {lowest}, not {value}")
        if value > highest:
            raise ConfigError(f"{name} has to be at most {highest}, not {value}")


def _check_together(config: StreamsConfig) -> None:
    if config.session_timeout_ms <= 2 * config.heartbeat_interval_ms:
        raise ConfigError(
            f"session_timeout_ms ({config.session_timeout_ms}) has to be more than twice heartbeat_interval_ms "
            f"({config.heartbeat_interval_ms}), or one late heartbeat costs the membership"
        )
    if config.transaction_timeout_ms <= config.commit_interval_ms:
        raise ConfigError(
            f"transaction_timeout_ms ({config.transaction_timeout_ms}) has to be more than commit_interval_ms "
            f"({config.commit_interval_ms}), or the broker aborts what is about to be committed"
        )
    if config.delivery_timeout_ms < config.request_timeout_ms:
        raise ConfigError(
            f"delivery_timeout_ms ({config.delivery_timeout_ms}) has to be at least request_timeout_ms "
            f"({config.request_timeout_ms})"
        )


def _check_group_protocol(config: StreamsConfig) -> None:
    """What the brokers decide in a streams group cannot be asked for here, and would have no effect."""
    if config.group_protocol == "classic":
        return
    if config.group_instance_id is not None:
        raise ConfigError(
            "group_instance_id does not go with group_protocol='streams': the brokers have no static members there "
            "yet; leave it out, or use group_protocol='classic'"
        )
    if config.num_standby_replicas:
        raise ConfigError(
            "num_standby_replicas does not go with group_protocol='streams', where it is a setting of the group: "
            f"kafka-configs.sh --alter --group {config.application_id} --add-config "
            f"streams.num.standby.replicas={config.num_standby_replicas}"
        )
    if config.rack_aware_assignment_tags:
        raise ConfigError(
            "rack_aware_assignment_tags does not go with group_protocol='streams': the brokers assign, and know no "
            "such rule; leave it out, or use group_protocol='classic'"
        )


def _check_tags(config: StreamsConfig) -> None:
    if len(config.client_tags) > _MOST_TAGS:
        raise ConfigError(f"client_tags has {len(config.client_tags)} tags, of at most {_MOST_TAGS}")
    for name, value in config.client_tags.items():
        if len(name) > _LONGEST_TAG_NAME or len(value) > _LONGEST_TAG_VALUE:
            raise ConfigError(
                f"the client tag {name!r}: {value!r} is too long: up to {_LONGEST_TAG_NAME} characters for the name, "
                f"{_LONGEST_TAG_VALUE} for the value, for every member tells it to the others"
            )
    if missing := [tag for tag in config.rack_aware_assignment_tags if tag not in config.client_tags]:
        raise ConfigError(
            f"rack_aware_assignment_tags names {missing[0]!r}, which this worker does not have: "
            f"set client.tag.{missing[0]}"
        )


def _policy(name: str, value: Any) -> Any:
    try:
        return parsed(value)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}: {error}".replace("`", "")) from error


def _check_policies(config: StreamsConfig) -> None:
    for name in _POLICIES:
        option = getattr(config, name)
        if isinstance(option, Retry) and name != "on_processing_error":
            raise ConfigError(
                f"{name} cannot be Retry: the same bytes fail again, and what the cluster refuses for a while is "
                "repeated anyway (delivery_timeout_ms)"
            )
        if not is_policy(option):
            raise ConfigError(f"{name} has to be 'fail', 'skip' or a policy such as DeadLetter(topic), not {option!r}")


def _check_dead_letter_topics(config: StreamsConfig) -> None:
    for topic in config.error_policies.dead_letter_topics():
        if not _TOPIC_NAME.fullmatch(topic):
            raise ConfigError(f"dead letters cannot go to {topic!r}: use letters, digits, '.', '_' and '-'")


def _readable(error: msgspec.ValidationError, settings: Mapping[str, Any]) -> str:
    """msgspec's message with the option's name in front: `Expected `int`, got `str` - at `$.commit_interval_ms``."""
    problem, _, place = str(error).partition(" - at `$.")
    name = place.rstrip("`")
    if not name:
        return problem
    hint = next(field.type for field in msgspec.structs.fields(StreamsConfig) if field.name == name)
    for choices in (hint, *get_args(hint)):
        if get_origin(choices) is Literal:
            return f"{name} has to be {_either(get_args(choices))}, not {settings.get(name)!r}"
    return f"{name}: {problem.replace('`', '')} ({settings.get(name)!r})"


def _either(choices: Sequence[str]) -> str:
    """'a', 'b' or 'c'."""
    *others, last = map(repr, choices)
    return f"{', '.join(others)} or {last}"


_Fields: Any = msgspec.defstruct(
    "_Fields", [(field.name, field.type) for field in msgspec.structs.fields(StreamsConfig)], kw_only=True
)
# Looked at now: msgspec 0.22 crashes where two threads, each with an application, are the first to convert to a type.
for _type in (StreamsConfig, _Fields):
    msgspec.json.Decoder(_type)
