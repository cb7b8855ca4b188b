"""What is asked of the parts of a topology, wherever they are given."""

from __future__ import annotations

import re

from streamlib.errors import TopologyError
from streamlib.policies import Retry, is_policy, topic_of
from streamlib.topology.functions import user_function
from streamlib.topology.nodes import Partitioner, TopicChooser

_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def check_topic_name(name: object, what: str) -> None:
    """Kafka's rule for names of topics, which those of stores become part of.

    Raises:
        TopologyError: it cannot be one.

    >>> check_topic_name("word counts", "a store")
    Traceback (most recent call last):
    streamlib.errors.TopologyError: a store cannot have the name 'word counts': use letters, digits, '.', '_' and '-'
    """
    if not isinstance(name, str) or not _TOPIC_NAME.fullmatch(name) or name in (".", ".."):
        raise TopologyError(f"{what} cannot have the name {name!r}: use letters, digits, '.', '_' and '-'")


def check_node_name(name: object) -> None:
    """Nodes are called what one likes.

    Raises:
        TopologyError: it is no name.
    """
    if not isinstance(name, str) or not name:
        raise TopologyError(f"a node has a name, which {name!r} is not")


def check_source(topics: tuple[object, ...], offset_reset: object, policy: object, what: str) -> None:
    """A source reads topics by their names or by one pattern.

    Raises:
        TopologyError: it does not, or one of its options is none.
    """
    if not topics:
        raise TopologyError(f"{what} needs the names of topics")
    if len(topics) > 1 and any(isinstance(topic, re.Pattern) for topic in topics):
        raise TopologyError(f"{what} reads topics by name or by one pattern, not by both: add another source")
    for topic in topics:
        if not isinstance(topic, re.Pattern):
            check_topic_name(topic, what)
    if offset_reset not in (None, "earliest", "latest"):
        raise TopologyError(f"{what}: offset_reset is 'earliest' or 'latest', not {offset_reset!r}")
    check_policy(policy, f"{what}: on_deserialization_error")


def check_policy(policy: object, what: str, *, retry: bool = False) -> None:
    """What a node does with records that fail; None: what the configuration says.

    Args:
        policy: what was given.
        what: the option, for the message.
        retry: whether what failed can be done again.

    Raises:
        TopologyError: it is no policy.

    >>> check_policy("drop", "map: on_error")
    Traceback (most recent call last):
    streamlib.errors.TopologyError: map: on_error is 'fail', 'skip' or a policy such as DeadLetter(topic), not 'drop'
    """
    if isinstance(policy, Retry) and not retry:
        raise TopologyError(
            f"{what} cannot be Retry: what has failed here fails again, or cannot be done again as if nothing had been "
            "done; see the page on errors for the steps that can"
        )
    if policy is not None and not is_policy(policy):
        raise TopologyError(f"{what} is 'fail', 'skip' or a policy such as DeadLetter(topic), not {policy!r}")
    if (topic := topic_of(policy)) is not None:
        check_topic_name(topic, f"the topic for dead letters of {what.partition(': ')[0]}")


def check_sink(topic: str | TopicChooser, partitioner: Partitioner | None, on_error: object, what: str) -> None:
    """A sink's topic is a name or a function, its partitioner a function, `on_error` a policy.

    Raises:
        TopologyError: it is not.
    """
    check_policy(on_error, f"{what}: on_error")
    if isinstance(topic, str):
        check_topic_name(topic, what)
    else:
        user_function(topic, what)
    if partitioner is not None:
        user_function(partitioner, f"the partitioner of {what}")
