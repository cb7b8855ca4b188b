"""A schema registry and the serdes that go with it.

    place known      subject                       streamlib/engine/places.py: when the application is planned
    before it runs   register or look up, once     a thread beside the event loop (`Plan.preparations`)
                     read ahead what sources have
    encode, decode   no request: ids and schemas are known
    an id nobody     one request, within the timeout; the worker's heartbeats go on meanwhile
    has seen yet     (`runtime/slow_functions.py`)

A registry that is down ends the open transaction; its records are processed again when it is back.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Literal, Self, TypeAlias, TypeVar

import msgspec

from streamlib.errors import ConfigError, SchemaRegistryError, TopologyError
from streamlib.schemas.client import HttpClient, Token
from streamlib.schemas.format import Format, Read, Write
from streamlib.schemas.framing import header, schema_id_of
from streamlib.schemas.memory import InMemoryClient
from streamlib.schemas.schema import Client, Schema, UnknownSchemaError
from streamlib.serdes import Place, PlacedSerde, Serde
from streamlib.windows import duration_ms

T = TypeVar("T")

READ_AHEAD_VERSIONS = 20
"""Of a source's subject, the newest: what is older is fetched when it is met."""

UNKNOWN_FOR_S = 10.0
"""An id that the registry does not have is not asked for again so soon."""


class Subject(msgspec.Struct, frozen=True):
    """What a subject's name is made of.

    Attributes:
        topic: the topic's full name; of a store that of its changelog.
        is_key: whether it is for keys, or for values.
        record_name: what the type is called in its schema, with its namespace or package.

    >>> Subject("orders", False, "shop.Order").record_name
    'shop.Order'
    """

    topic: str
    is_key: bool
    record_name: str


SubjectStrategy: TypeAlias = Literal["topic", "record", "topic_record"] | Callable[[Subject], str]
"""How subjects are called: `<topic>-key` and `<topic>-value`, by the record's name, by both, or as a function says."""


class SchemaRegistry:
    """A schema registry that speaks Confluent's REST API.

    Args:
        urls: where it is, `http://host:8081`; several are tried in turn.
        basic_auth: user and password, if they are not in the URL.
        bearer_token: a token, or a function that gives the one to use now.
        ssl_context: for certificates of your own: `ssl.create_default_context(cafile=...)`, and `load_cert_chain` on
            it for a client's.
        timeout: the longest that a request takes, all tries together; more than 0.
        auto_register: whether schemas are registered that the registry does not have. Otherwise that is an error.
        use_latest_version: write with the newest schema of the subject, not with that of the type.
        subject_strategy: how subjects are called.

    Raises:
        ConfigError: a URL is none, or options contradict each other.

    >>> SchemaRegistry("https://ann:secret@registry:8081")
    SchemaRegistry('https://registry:8081')
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        basic_auth: tuple[str, str] | None = None,
        bearer_token: Token | None = None,
        ssl_context: ssl.SSLContext | None = None,
        timeout: timedelta = timedelta(seconds=10),
        auto_register: bool = True,
        use_latest_version: bool = False,
        subject_strategy: SubjectStrategy = "topic",
    ) -> None:
        timeout_ms = duration_ms(timeout, "the timeout of a schema registry", positive=True)
        client = HttpClient(
            urls.split(",") if isinstance(urls, str) else urls,
            basic_auth=basic_auth,
            bearer_token=bearer_token,
            ssl_context=ssl_context,
            timeout_s=timeout_ms / 1000,
        )
        self._use(client, auto_register, use_latest_version, subject_strategy)

    @classmethod
    def in_memory(cls, *, auto_register: bool = True, subject_strategy: SubjectStrategy = "topic") -> Self:
        """A registry without a server, for tests. It does not check whether schemas are compatible.

        >>> SchemaRegistry.in_memory()
        SchemaRegistry('memory')
        """
        registry = cls.__new__(cls)
        registry._use(InMemoryClient(), auto_register, False, subject_strategy)
        return registry

    def _use(self, client: Client, auto_register: bool, latest: bool, strategy: SubjectStrategy) -> None:
        if not callable(strategy) and strategy not in ("topic", "record", "topic_record"):
            raise ConfigError(f"subject_strategy is 'topic', 'record', 'topic_record' or a function, not {strategy!r}")
        self._client = client
        self._auto_register = auto_register
        self._use_latest_version = latest
        self._strategy = strategy
        self._schemas: dict[int, Schema] = {}
        self._unknown: dict[int, tuple[float, str]] = {}  # until when an id is taken for unknown, and why

    def __repr__(self) -> str:
        return f"SchemaRegistry({self._client.address!r})"

    def avro(self, type_: type[T], *, schema: str | None = None, namespace: str | None = None) -> Serde[T]:
        """Avro; what was written with another version of the schema is read as this one (schema resolution).

        Args:
            type_: a Struct, dataclass or anything msgspec converts; `dict` for values as Avro has them.
            schema: the schema's text, if it is not to be made from the type. For `dict` without one, records are read
                as they were written, and can be written only with `use_latest_version`.
            namespace: of the records, if the schema is made from the type.

        Raises:
            TopologyError: the type has no Avro schema, the one given is none, or the extra `avro` is not installed.

        >>> import msgspec
        >>> class Order(msgspec.Struct):
        ...     user: str
        >>> SchemaRegistry.in_memory().avro(Order, namespace="shop").name
        'avro(shop.Order)'
        """
        avro = _imported("avro")
        return self._serde(avro.AvroFormat(type_, schema, namespace))

    def protobuf(self, type_: type[T]) -> Serde[T]:
        """Protobuf messages of a class that protoc has generated.

        Raises:
            TopologyError: it is no such class, or the extra `protobuf` is not installed.

        >>> from google.protobuf.wrappers_pb2 import StringValue
        >>> SchemaRegistry.in_memory().protobuf(StringValue).name
        'protobuf(google.protobuf.StringValue)'
        """
        protobuf = _imported("protobuf")
        return self._serde(protobuf.ProtobufFormat(type_))

    def json_schema(self, type_: type[T], *, schema: str | None = None) -> Serde[T]:
        """JSON with its schema in the registry, checked against the type when it is read.

        Args:
            type_: a Struct, or anything msgspec handles; `dict` for values as they are.
            schema: the schema's text, if it is not to be made from the type; values are checked against it, too.

        Raises:
            TopologyError: the type has no schema, the one given is none, or the extra `json-schema` is not installed.

        >>> import msgspec
        >>> class Order(msgspec.Struct):
        ...     user: str
        >>> serde = SchemaRegistry.in_memory(subject_strategy="record").json_schema(Order)
        >>> serde.decode(serde.encode(Order("ann")))
        Order(user='ann')
        """
        json_schema = _imported("json_schema")
        return self._serde(json_schema.JsonFormat(type_, schema))

    def _serde(self, format_: Format) -> Serde[Any]:
        decode = self._decoder(format_)

        def bind(place: Place) -> Serde[Any]:
            subject = self._subject(place, format_)
            if not place.writes:
                place.preparations.append(lambda: self._read_ahead(subject))
                return Serde(format_.name, format_.type, _only_read(format_), decode)
            encode, prepare = self._encoder(format_, subject)
            place.preparations.append(prepare)
            return Serde(format_.name, format_.type, encode, decode)

        by_record = self._strategy == "record"
        encode = self._encoder(format_, format_.record_name)[0] if by_record else _without_topic(format_)
        return PlacedSerde(format_.name, format_.type, encode, decode, bind)

    def _subject(self, place: Place, format_: Format) -> str:
        record, part = format_.record_name, "key" if place.is_key else "value"
        match self._strategy:
            case "topic":
                return f"{place.topic}-{part}"
            case "record":
                return record
            case "topic_record":
                return f"{place.topic}-{record}"
            case function:
                return function(Subject(place.topic, place.is_key, record))

    def _encoder(self, format_: Format, subject: str) -> tuple[Write, Callable[[], None]]:
        """What encodes, and what asks the registry before it."""
        prefix, write = b"", None

        def prepare() -> None:
            nonlocal prefix, write
            if write is None:
                schema_id, schema = self._writing(format_, subject)
                prefix, write = header(schema_id), format_.writer(schema, self._client)

        def encode(value: Any) -> bytes:
            if write is None:
                prepare()
            assert write is not None
            return prefix + write(value)

        return encode, prepare

    def _writing(self, format_: Format, subject: str) -> tuple[int, Schema]:
        """The schema to write with, by its id.

        Raises:
            SchemaRegistryError: there is none, or the registry does not take it.
        """
        try:
            if self._use_latest_version:
                latest = self._client.latest(subject)
                return self._known(latest.id, _of_kind(latest.schema, format_, f"the latest of subject {subject}"))
            own = format_.own(self._client, register=self._auto_register)
            if own is None:
                raise TopologyError(
                    f"{format_.name} has no schema to write to subject {subject} with: give it one, schema=..., or the "
                    "registry use_latest_version=True"
                )
            if self._auto_register:
                return self._known(self._client.register(subject, own), own)
            return self._known(self._client.look_up(subject, own).id, own)
        except UnknownSchemaError as error:
            raise SchemaRegistryError(
                f"the schema of {format_.name} is not in subject {subject} of {self!r}: {error}: register it, or let "
                "the application do it with auto_register=True"
            ) from error
        except SchemaRegistryError as error:
            error.args = (f"subject {subject}, {format_.name}: {error}",)
            raise

    def _known(self, schema_id: int, schema: Schema) -> tuple[int, Schema]:
        self._schemas[schema_id] = schema
        return schema_id, schema

    def _decoder(self, format_: Format) -> Read:
        readers: dict[int, Read] = {}

        def decode(data: bytes) -> Any:
            read = readers.get(schema_id := schema_id_of(data))
            if read is None:
                schema = _of_kind(self._schema(schema_id), format_, f"schema id {schema_id}")
                read = readers[schema_id] = self._reader(format_, schema, schema_id)
            try:
                return read(data)
            except Exception as error:
                raise ValueError(
                    f"written with schema id {schema_id}, cannot be read as {format_.name}: {error!r:.400}"
                ) from error

        return decode

    def _reader(self, format_: Format, schema: Schema, schema_id: int) -> Read:
        try:
            return format_.reader(schema, self._client)
        except SchemaRegistryError:
            raise
        except Exception as error:
            raise ValueError(f"schema id {schema_id} cannot be used to read {format_.name}: {error}") from error

    def _schema(self, schema_id: int) -> Schema:
        """A schema by its id; asked for once.

        Raises:
            UnknownSchemaError: the registry does not have it.
        """
        if (known := self._schemas.get(schema_id)) is not None:
            return known
        if (unknown := self._unknown.get(schema_id)) is not None and unknown[0] > time.monotonic():
            raise UnknownSchemaError(unknown[1])
        try:
            schema = self._schemas[schema_id] = self._client.by_id(schema_id)
        except UnknownSchemaError as error:
            why = (
                f"schema id {schema_id} is not in {self!r}: {error}: was the record written with another registry, or "
                "was the schema deleted for good?"
            )
            if len(self._unknown) > 1000:  # bytes of another kind, taken for ids
                self._unknown.clear()
            self._unknown[schema_id] = time.monotonic() + UNKNOWN_FOR_S, why
            raise UnknownSchemaError(why) from error
        except SchemaRegistryError as error:
            error.args = (f"schema id {schema_id}: {error}",)
            raise
        return schema

    def _read_ahead(self, subject: str) -> None:
        """Get the schemas a source's records are likely to have. A subject that is not there yet is none."""
        try:
            for version in self._client.versions(subject)[-READ_AHEAD_VERSIONS:]:
                found = self._client.version(subject, version)
                self._known(found.id, found.schema)
        except UnknownSchemaError:
            return


def _of_kind(schema: Schema, format_: Format, what: str) -> Schema:
    if schema.schema_type != format_.kind:
        raise ValueError(f"{what} is {schema.schema_type}, and {format_.name} reads and writes {format_.kind}")
    return schema


def _only_read(format_: Format) -> Write:
    def encode(value: Any) -> bytes:
        raise TypeError(f"{format_.name} only reads here")

    return encode


def _without_topic(format_: Format) -> Write:
    def encode(value: Any) -> bytes:
        raise TypeError(
            f"{format_.name} does not know its topic, and so not its subject: outside of a topology use "
            "serde.at(Place(topic=...))"
        )

    return encode


def _imported(name: str) -> Any:
    """A format's module; its libraries are an extra."""
    import importlib

    try:
        return importlib.import_module(f"streamlib.schemas.{name}")
    except ImportError as error:
        extra = name.replace("_", "-")
        raise TopologyError(f"{extra} needs an extra: pip install 'streamlib[{extra}]' ({error})") from error
