"""Operators without state: filters, maps, branches."""

from __future__ import annotations

from typing import Any

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import Site, user_error
from streamlib.errors import TopologyError
from streamlib.records import Headers
from streamlib.topology import operators as op


def compile_pass_through(operator: op.PassThrough, site: Site) -> NodeFn:
    """Costs nothing: the children take its place."""
    return site.forward


def compile_drop_null_keys(operator: op.DropNullKeys, site: Site) -> NodeFn:
    """Counts what it drops (`KStreamImpl.repartition`'s null-key filter)."""
    forward, cursor = site.forward, site.work.cursor

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if key is None:
            cursor.dropped += 1
            return
        forward(key, value, timestamp, headers)

    return node


def compile_filter(operator: op.Filter, site: Site) -> NodeFn:
    predicate, negate, forward, name = operator.predicate, operator.negate, site.forward, site.name

    def keep(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        try:
            accepted = predicate(key, value)
        except Exception as error:
            raise user_error(name, key, error) from error
        if accepted:
            forward(key, value, timestamp, headers)

    def refuse(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        try:
            accepted = predicate(key, value)
        except Exception as error:
            raise user_error(name, key, error) from error
        if not accepted:
            forward(key, value, timestamp, headers)

    return refuse if negate else keep


def compile_map(operator: op.MapRecords, site: Site) -> NodeFn:
    mapper, forward, name = operator.mapper, site.forward, site.name

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        try:
            new_key, new_value = mapper(key, value)
        except Exception as error:
            raise user_error(name, key, error) from error
        forward(new_key, new_value, timestamp, headers)

    return node


def compile_map_values(operator: op.MapValues, site: Site) -> NodeFn:
    mapper, forward, name = operator.mapper, site.forward, site.name

    def of_value(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        try:
            new_value = mapper(value)
        except Exception as error:
            raise user_error(name, key, error) from error
        forward(key, new_value, timestamp, headers)

    def with_key(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        try:
            new_value = mapper(key, value)
        except Exception as error:
            raise user_error(name, key, error) from error
        forward(key, new_value, timestamp, headers)

    return with_key if operator.with_key else of_value


def compile_flat_map(operator: op.FlatMap, site: Site) -> NodeFn:
    mapper, forward, name = operator.mapper, site.forward, site.name

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        try:
            # All of it before the first goes on: a generator's error is the mapper's, not that of a node below.
            pairs = [(new_key, new_value) for new_key, new_value in mapper(key, value)]
        except Exception as error:
            raise user_error(name, key, error) from error
        for new_key, new_value in pairs:
            forward(new_key, new_value, timestamp, headers)

    return node


def compile_flat_map_values(operator: op.FlatMapValues, site: Site) -> NodeFn:
    mapper, forward, name = operator.mapper, site.forward, site.name

    def of_value(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        try:
            new_values = list(mapper(value))
        except Exception as error:
            raise user_error(name, key, error) from error
        for new_value in new_values:
            forward(key, new_value, timestamp, headers)

    def with_key(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        try:
            new_values = list(mapper(key, value))
        except Exception as error:
            raise user_error(name, key, error) from error
        for new_value in new_values:
            forward(key, new_value, timestamp, headers)

    return with_key if operator.with_key else of_value


def compile_select_key(operator: op.SelectKey, site: Site) -> NodeFn:
    selector, forward, name = operator.selector, site.forward, site.name

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        try:
            new_key = selector(key, value)
        except Exception as error:
            raise user_error(name, key, error) from error
        forward(new_key, value, timestamp, headers)

    return node


def compile_peek(operator: op.Peek, site: Site) -> NodeFn:
    action, forward, name = operator.action, site.forward, site.name

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        try:
            action(key, value)
        except Exception as error:
            raise user_error(name, key, error) from error
        forward(key, value, timestamp, headers)

    return node


def compile_foreach(operator: op.Foreach, site: Site) -> NodeFn:
    action, name = operator.action, site.name

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        try:
            action(key, value)
        except Exception as error:
            raise user_error(name, key, error) from error

    return node


def compile_branch(operator: op.Branch, site: Site) -> NodeFn:
    name = site.name
    known = {*operator.children, *([operator.default] if operator.default else [])}
    if missing := known - site.children.keys():
        raise TopologyError(f"node {name}: branches {sorted(missing)} are not its children")
    branches = [
        (predicate, site.children[child])
        for predicate, child in zip(operator.predicates, operator.children, strict=True)
    ]
    otherwise = site.children[operator.default] if operator.default else None

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        for predicate, child in branches:
            try:
                accepted = predicate(key, value)
            except Exception as error:
                raise user_error(name, key, error) from error
            if accepted:
                child(key, value, timestamp, headers)
                return
        if otherwise is not None:
            otherwise(key, value, timestamp, headers)

    return node
