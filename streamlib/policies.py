"""What becomes of a record that cannot be decoded, or at which a user function raises."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

from streamlib.errors import ConfigError


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
    `.partition`, `.offset`, `.exception`, `.message` and `.stacktrace`.

    Attributes:
        topic: has to exist; if not given, `errors_dead_letter_queue_topic_name` of the configuration.

    >>> DeadLetter("orders-dead").topic
    'orders-dead'
    """

    topic: str | None = None


ErrorPolicy: TypeAlias = Fail | Skip | DeadLetter
"""What to do with a record at an error."""

PolicyOption: TypeAlias = ErrorPolicy | Literal["fail", "skip"]
"""A policy, or its name in a file or the environment."""


class ErrorPolicies(msgspec.Struct, frozen=True):
    """What an application does at errors.

    Attributes:
        on_deserialization_error: with records of sources that do not say it themselves.
        on_processing_error: with records at which a user function raises.
        dead_letter_topic: where skipped records go if their policy names no topic; None: nowhere.
    """

    on_deserialization_error: PolicyOption = "fail"
    on_processing_error: PolicyOption = "fail"
    dead_letter_topic: str | None = None

    def dead_letter_topics(self, options: Iterable[PolicyOption | None] = ()) -> set[str]:
        """The topics that dead letters may go to, those of sources with these options included.

        Raises:
            ConfigError: a dead letter has nowhere to go.
        """
        policies = [self.of_processing, *map(self.of_source, (None, *options))]
        return {policy.topic for policy in policies if isinstance(policy, DeadLetter) and policy.topic is not None}

    def of_source(self, option: PolicyOption | None) -> ErrorPolicy:
        """That of a source for bytes it cannot decode; `option` is its own."""
        return self._resolved(self.on_deserialization_error if option is None else option)

    @property
    def of_processing(self) -> ErrorPolicy:
        """That for what user functions raise."""
        return self._resolved(self.on_processing_error)

    def _resolved(self, option: PolicyOption) -> ErrorPolicy:
        """Without names and defaults: what is skipped while there is a topic for dead letters goes there.

        Raises:
            ConfigError: a dead letter has nowhere to go.
        """
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
