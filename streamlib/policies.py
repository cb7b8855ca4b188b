"""What becomes of a record that cannot be decoded, at which a function raises, or whose result cannot be written."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Literal, TypeAlias, assert_never

import msgspec

from streamlib.errors import ConfigError
from streamlib.records import Headers


class Fail(msgspec.Struct, frozen=True, tag="fail"):
    """Stop the application with the error. Nothing of the record is committed; it is read again after a restart.

    >>> from streamlib import StreamsConfig
    >>> StreamsConfig(application_id="app", on_processing_error=Fail()).on_processing_error
    Fail()
    """


class Skip(msgspec.Struct, frozen=True, tag="skip"):
    """Go on without the record: it is counted and logged.

    >>> from streamlib import StreamsConfig
    >>> StreamsConfig(application_id="app", on_deserialization_error=Skip()).on_deserialization_error
    Skip()
    """


class DeadLetter(msgspec.Struct, frozen=True, tag="dead_letter"):
    """Go on without the record, and write it to a topic as it was read, in the same transaction.

    Its headers tell where it came from and what went wrong, as Kafka Streams' do (KIP-1034): `__streams.errors.topic`,
    `.partition`, `.offset`, `.exception`, `.message` and `.stacktrace`; and, beyond those, `.node` and `.application`.

    Attributes:
        topic: has to exist; if not given, `errors_dead_letter_queue_topic_name` of the configuration.

    >>> DeadLetter("orders-dead").topic
    'orders-dead'
    """

    topic: str | None = None


LastResort: TypeAlias = Fail | Skip | DeadLetter
"""What is done with a record for good."""


class Retry(msgspec.Struct, frozen=True, tag="retry"):
    """Call the function that raised again, after a while: nothing else of the step has happened by then.

    The record waits meanwhile, and with it those of its key that come to the same step; others go on. It is for
    `on_processing_error` and the `on_error` of steps. Where a part of the step may have been done when the function
    raises, as in windows and punctuators, it is not called again, and `then` holds at once.

    Attributes:
        delays: how long to wait before each further call; so many there are.
        then: what becomes of the record when the last one has failed: `Fail()`, `Skip()`, `DeadLetter(...)` or a name.
        jitter: each delay is shortened by a part of up to this, by chance, so that those that failed together do not
            come back together.

    Raises:
        ConfigError: there are no delays, or one of the options is none.

    >>> from datetime import timedelta
    >>> from streamlib.testing import run_stream
    >>> answers = iter([ValueError("busy"), 5])
    >>> def ask(value):
    ...     answer = next(answers)
    ...     if isinstance(answer, Exception):
    ...         raise answer
    ...     return answer
    >>> patient = Retry(delays=[timedelta(milliseconds=100), timedelta(seconds=1)], then=Skip())
    >>> run_stream(lambda s: s.map_values(ask, on_error=patient), [("a", 1)])
    [('a', 5)]
    """

    delays: Sequence[timedelta]
    then: LastResort | Literal["fail", "skip"] = "fail"
    jitter: float = 0.2

    def __post_init__(self) -> None:
        _check_retry(self.delays, self.then, self.jitter)
        msgspec.structs.force_setattr(self, "delays", tuple(self.delays))


def _check_retry(delays: object, then: object, jitter: object) -> None:
    if not isinstance(delays, tuple | list) or not delays or not all(isinstance(delay, timedelta) for delay in delays):
        raise ConfigError(f"Retry needs delays, a list of datetime.timedelta, not {delays!r}")
    if any(delay < timedelta(0) for delay in delays):
        raise ConfigError(f"Retry: a delay is not negative, as one of {delays!r} is")
    if then not in ("fail", "skip") and not isinstance(then, Fail | Skip | DeadLetter):
        raise ConfigError(f"Retry: then is 'fail', 'skip', Skip(), Fail() or DeadLetter(topic), not {then!r}")
    if not isinstance(jitter, int | float) or not 0 <= jitter <= 1:
        raise ConfigError(f"Retry: jitter is a part, from 0 to 1, not {jitter!r}")


class FailedRecord(msgspec.Struct, frozen=True):
    """A record that failed, as a function is told that decides about it.

    Attributes:
        error: what was raised.
        stage: "deserialization", "processing" or "production".
        node: where it failed.
        topic: it was read from this topic; "" in a punctuator, which has no record.
        partition: of the topic; -1 in a punctuator.
        offset: in the partition; -1 in a punctuator.
        timestamp: of the record, in ms.
        key: as it was read.
        value: as it was read.
        headers: as they were read.
        retries: how often the function was called again for it.
        task: which task it failed in, such as "0_1".

    >>> from streamlib.testing import run_stream
    >>> def decide(failed):
    ...     print(failed.stage, failed.topic, failed.offset, failed.key, repr(failed.error))
    ...     return "skip" if isinstance(failed.error, ZeroDivisionError) else Fail()
    >>> run_stream(lambda s: s.map_values(lambda value: 6 // value, on_error=decide), [("a", 0), ("b", 2)])
    processing in 0 b'a' ZeroDivisionError('integer division or modulo by zero')
    [('b', 3)]
    """

    error: Exception
    stage: Literal["deserialization", "processing", "production"]
    node: str
    topic: str = ""
    partition: int = -1
    offset: int = -1
    timestamp: int = -1
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = ()
    retries: int = 0
    task: str = ""


PolicyFunction: TypeAlias = Callable[[FailedRecord], "ErrorPolicy | Literal['fail', 'skip']"]
"""Decides about each record that fails: returns a policy, or its name."""

ErrorPolicy: TypeAlias = Fail | Skip | DeadLetter | Retry
"""What to do with a record at an error."""

PolicyOption: TypeAlias = ErrorPolicy | Literal["fail", "skip"] | PolicyFunction
"""A policy, its name in a file or the environment, or a function that chooses one."""

Resolved: TypeAlias = Fail | Skip | DeadLetter | Retry | PolicyFunction
"""A policy without names and defaults."""


def is_policy(option: object, *, retry: bool = True) -> bool:
    """Whether it is a policy, its name, or a function; `retry`: whether to call again is one here.

    >>> is_policy("skip"), is_policy("drop")
    (True, False)
    """
    if isinstance(option, Retry):
        return retry
    if isinstance(option, type):
        return False  # `Skip` for `Skip()`
    if isinstance(option, Fail | Skip | DeadLetter) or option in ("fail", "skip"):
        return True
    return callable(option) and not inspect.iscoroutinefunction(option)


def may_write(policy: Resolved) -> bool:
    """Whether a record that fails may be written to a topic."""
    return topic_of(policy) is not None or callable(policy)


def topic_of(option: object) -> str | None:
    """The topic for dead letters that a policy names.

    >>> topic_of(Retry([timedelta(seconds=1)], then=DeadLetter("dead")))
    'dead'
    """
    if isinstance(option, Retry):
        option = option.then
    return option.topic if isinstance(option, DeadLetter) else None


def parsed(option: object) -> object:
    """A policy as it is written in a file: a table with its `type` and attributes; anything else is left as it is.

    Raises:
        msgspec.ValidationError: there is no such policy.

    >>> parsed({"type": "dead_letter", "topic": "orders-dead"})
    DeadLetter(topic='orders-dead')
    """
    return msgspec.convert(option, ErrorPolicy, strict=False) if isinstance(option, Mapping) else option


class ErrorPolicies(msgspec.Struct, frozen=True):
    """What an application does at errors.

    Attributes:
        on_deserialization_error: with records of sources that do not say it themselves.
        on_processing_error: with records at which a user function raises.
        dead_letter_topic: where skipped records go if their policy names no topic; None: nowhere.
        on_production_error: with records whose result cannot be written.
        application_id: told by dead letters.
    """

    on_deserialization_error: PolicyOption = "fail"
    on_processing_error: PolicyOption = "fail"
    dead_letter_topic: str | None = None
    on_production_error: PolicyOption = "fail"
    application_id: str = ""

    def dead_letter_topics(self, options: Iterable[PolicyOption | None] = ()) -> set[str]:
        """The topics that dead letters may go to, those of nodes with these options included. What functions choose is
        not known.

        Raises:
            ConfigError: a dead letter has nowhere to go.
        """
        defaults = (self.on_deserialization_error, self.on_processing_error, self.on_production_error)
        policies = [self.resolved(option) for option in (*defaults, *options) if option is not None]
        return {topic for policy in policies if (topic := topic_of(policy)) is not None}

    def of_source(self, option: PolicyOption | None) -> Resolved:
        """That of a source for bytes it cannot decode; `option` is its own."""
        return self.resolved(self.on_deserialization_error if option is None else option)

    @property
    def of_processing(self) -> Resolved:
        """That for what user functions raise, in nodes that do not say it themselves."""
        return self.resolved(self.on_processing_error)

    def of_processor(self, option: PolicyOption | None) -> Resolved:
        """That of a node for what its function raises; `option` is its own."""
        return self.of_processing if option is None else self.resolved(option)

    def of_sink(self, option: PolicyOption | None) -> Resolved:
        """That of a sink for what it cannot write; `option` is its own."""
        return self.resolved(self.on_production_error if option is None else option)

    def resolved(self, option: PolicyOption) -> Resolved:
        """Without names and defaults: what is skipped while there is a topic for dead letters goes there.

        Raises:
            ConfigError: a dead letter has nowhere to go.
        """
        if isinstance(option, Retry):
            return msgspec.structs.replace(option, then=self.last_resort(option.then))
        if isinstance(option, Fail | Skip | DeadLetter | str):
            return self.last_resort(option)
        return option

    def last_resort(self, option: LastResort | Literal["fail", "skip"]) -> LastResort:
        """As `resolved`, of what is done for good."""
        match option:
            case "fail" | Fail():
                return Fail()
            case "skip" | Skip():
                return Skip() if self.dead_letter_topic is None else DeadLetter(self.dead_letter_topic)
            case DeadLetter(topic=None):
                if self.dead_letter_topic is None:
                    raise ConfigError(
                        "dead letters have nowhere to go: name the topic, DeadLetter(topic=...), or set "
                        "errors_dead_letter_queue_topic_name"
                    )
                return DeadLetter(self.dead_letter_topic)
            case DeadLetter():
                return option
            case _:
                assert_never(option)
