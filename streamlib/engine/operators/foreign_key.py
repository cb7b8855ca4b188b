"""Joins by foreign key: subscriptions, responses, and what becomes of them.

Keys and rows travel as bytes and are decoded where somebody looks at them. A left change gives the later of its own and
the right row's time, a right change the right change's. Whether a left row had a result before is not known where it
changes, so deletes can repeat.

Responses to what a left row was before are told by its hash, and dropped. In a left join each change of a left row has
a response, so it ends right whatever overtakes what. In an inner join Kafka Streams saves responses: a row that is new,
or changes without moving, hears nothing if there is no match, for it had no result before. That is wrong while an
earlier "no match" is under way, to be dropped because the row has changed: the result from before then stays. It is the
same here, for the protocol is the same.

Source: `SubscriptionSendProcessorSupplier`, `SubscriptionReceiveProcessorSupplier`,
`SubscriptionJoinProcessorSupplier`, `ForeignTableJoinProcessorSupplier`, `ResponseJoinProcessorSupplier`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import RawRow, Site, short, user_error
from streamlib.errors import SerializationError
from streamlib.foreign_keys import (
    Instruction,
    Response,
    Subscription,
    pack_subscription,
    row_hash,
    subscriptions_prefix,
    unpack_subscription,
)
from streamlib.records import Headers
from streamlib.state.codec import pack_timestamp, prefix_end
from streamlib.topology import operators as op

Messages: TypeAlias = tuple[tuple[bytes | None, Instruction], ...]
"""What to tell which foreign keys."""

Encode: TypeAlias = Callable[[Any], bytes]


def compile_foreign_key_subscribe(operator: op.ForeignKeySubscribe, site: Site) -> NodeFn:
    """A left change. The foreign keys from before and from now may belong to different tasks: each gets a message."""
    forward, cursor, partition = site.forward, site.work.cursor, site.work.facts.task_id.partition
    foreign_key = _foreign_key(operator, site)
    encode_key, encode = _encoders(operator.table, site)
    left, messages_for = operator.left, _left_messages if operator.left else _inner_messages

    def node(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        new, old = change
        if new is None and old is None:
            return
        before = None if old is None else foreign_key(key, old)
        now = None if new is None else foreign_key(key, new)
        if now is None and new is not None and not left:
            cursor.dropped += 1
        messages = messages_for(before, now)
        if not messages:
            return
        raw_key, hashed = encode_key(key), None if new is None else row_hash(encode(new))
        for to, instruction in messages:
            forward(to, Subscription(instruction, hashed, raw_key, partition), timestamp, headers)

    return node


def compile_foreign_key_keep(operator: op.ForeignKeyKeep, site: Site) -> NodeFn:
    """A subscription without a foreign key is not kept, but answered: the left row has a result all the same."""
    forward, cursor = site.forward, site.work.cursor
    overlay = site.store(operator.subscriptions).overlay
    put, delete = overlay.put, overlay.delete
    unsubscribing = (Instruction.UNSUBSCRIBE, Instruction.UNSUBSCRIBE_AND_RESPOND)

    def node(key: bytes | None, subscription: Subscription, timestamp: int, headers: Headers) -> None:
        instruction = subscription.instruction
        if key is None:
            if instruction is not Instruction.SUBSCRIBE_AND_RESPOND:
                cursor.dropped += 1
                return
        elif instruction in unsubscribing:
            delete(subscriptions_prefix(key) + subscription.primary_key, timestamp)
        else:
            row = pack_timestamp(timestamp) + pack_subscription(subscription)
            put(subscriptions_prefix(key) + subscription.primary_key, row)
        forward(key, subscription, timestamp, headers)

    return node


def compile_foreign_key_respond(operator: op.ForeignKeyRespond, site: Site) -> NodeFn:
    """A subscription, answered with what there is now."""
    forward, raw_row = site.forward, _raw_rows(operator.table, site)

    def node(key: bytes | None, subscription: Subscription, timestamp: int, headers: Headers) -> None:
        instruction, hashed, primary_key, partition = subscription
        if instruction is Instruction.UNSUBSCRIBE:
            return
        value, row = None, None if key is None else raw_row(key)
        if row is not None:
            timestamp = max(timestamp, row[1])
            if instruction is not Instruction.UNSUBSCRIBE_AND_RESPOND:
                value = row[0]
        elif instruction is Instruction.SUBSCRIBE:
            return
        forward(primary_key, Response(hashed, value, partition), timestamp, headers)

    return node


def compile_foreign_key_notify(operator: op.ForeignKeyNotify, site: Site) -> NodeFn:
    """A right change: a response to each left row that points to it, in the order of their keys' bytes."""
    forward, scan = site.forward, site.store(operator.subscriptions).overlay.scan
    encode_key, encode = _encoders(operator.table, site)

    def node(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        prefix = subscriptions_prefix(encode_key(key))
        value = None if change[0] is None else encode(change[0])
        for combined, row in scan(prefix, prefix_end(prefix)):
            _, hashed, _, partition = unpack_subscription(row, 8)
            forward(combined[len(prefix) :], Response(hashed, value, partition), timestamp, headers)

    return node


def compile_foreign_key_resolve(operator: op.ForeignKeyResolve, site: Site) -> NodeFn:
    """A response, joined with the left row as it is now; one to a row that is no longer the same is dropped."""
    forward, cursor, raw_row = site.forward, site.work.cursor, _raw_rows(operator.table, site)
    decode_key, joined = operator.table.key.decode, _joiner(operator, site.name)

    def node(raw_key: bytes, response: Response, timestamp: int, headers: Headers) -> None:
        row = raw_row(raw_key)
        value = None if row is None else row[0]
        if response.hash != (None if value is None else row_hash(value)):
            cursor.dropped += 1
            return
        key = decode_key(raw_key)
        forward(key, joined(key, value, response.value), timestamp, headers)

    return node


def _inner_messages(before: bytes | None, now: bytes | None) -> Messages:
    """What a left change leads to: there may have been a result only if there was a foreign key."""
    if now is None:
        return () if before is None else ((before, Instruction.UNSUBSCRIBE_AND_RESPOND),)
    if before is None or before == now:
        return ((now, Instruction.SUBSCRIBE),)
    return (before, Instruction.UNSUBSCRIBE), (now, Instruction.SUBSCRIBE_AND_RESPOND)


def _left_messages(before: bytes | None, now: bytes | None) -> Messages:
    """What a left change leads to if every change has a result; no foreign key is asked for one, too."""
    if before is None or before == now:
        return ((now, Instruction.SUBSCRIBE_AND_RESPOND),)
    return (before, Instruction.UNSUBSCRIBE), (now, Instruction.SUBSCRIBE_AND_RESPOND)


def _foreign_key(operator: op.ForeignKeySubscribe, site: Site) -> Callable[[Any, Any], bytes | None]:
    """f(key, row) -> the encoded foreign key."""
    extractor, with_key, serde, name = operator.extractor, operator.with_key, operator.other.key, site.name

    def foreign_key(key: Any, value: Any) -> bytes | None:
        try:
            found = extractor(key, value) if with_key else extractor(value)
        except Exception as error:
            raise user_error(name, key, error) from error
        if found is None:
            return None
        try:
            return serde.encode(found)
        except Exception as error:
            raise SerializationError(
                f"node {name}: {short(found)}, the foreign key of the row with key {short(key)}, cannot be encoded: "
                f"{error}; the keys of {operator.other.node} are {serde.name}: foreign_key= has to return such a key",
                node=name,
            ) from error

    return foreign_key


def _joiner(operator: op.ForeignKeyResolve, name: str) -> Callable[[Any, bytes | None, bytes | None], Any]:
    """f(key, encoded left row, encoded right row) -> the result; None where the join has no row."""
    joiner, left = operator.joiner, operator.left
    decode, decode_other = operator.table.value.decode, operator.other.value.decode

    def joined(key: Any, value: bytes | None, other: bytes | None) -> Any:
        if value is None or (other is None and not left):
            return None
        try:
            return joiner(decode(value), None if other is None else decode_other(other))
        except Exception as error:
            raise user_error(name, key, error) from error

    return joined


def _raw_rows(table: op.JoinedTable, site: Site) -> Callable[[bytes], RawRow | None]:
    """f(encoded key) -> the encoded row. That of a stored table is as it is stored, whoever wrote it: to encode it anew
    may give other bytes, and so another hash."""
    rows = site.work.getter(table.node)
    if rows.raw is not None:
        return rows.raw
    find, decode_key, (_, encode) = rows.row, table.key.decode, _encoders(table, site)

    def raw_row(raw_key: bytes) -> RawRow | None:
        row = find(decode_key(raw_key))
        return None if row is None else (encode(row[0]), row[1])

    return raw_row


def _encoders(table: op.JoinedTable, site: Site) -> tuple[Encode, Encode]:
    """Of a table's keys and of its rows."""
    return _encoder(table, "keys", site), _encoder(table, "rows", site)


def _encoder(table: op.JoinedTable, what: str, site: Site) -> Encode:
    serde = table.key if what == "keys" else table.value
    encode_value = serde.encode

    def encode(value: Any) -> bytes:
        try:
            return encode_value(value)
        except Exception as error:
            raise SerializationError(
                f"node {site.name} cannot encode {short(value)} ({type(value).__name__}): {error}; the {what} of "
                f"{table.node} are {serde.name}: give the step that makes this table the types it has",
                node=site.name,
            ) from error

    return encode
