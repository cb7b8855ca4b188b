"""What happens to one record below a node: whether results of it can be out while one of its calls is pending.

If they cannot, a commit need not wait for calls: a record whose calls are unfinished has led to nothing yet, and is
processed again after a restart, while those around it that are finished are not. Otherwise the commit waits.

    source -> call -> sink                nothing happens before the call is back
    source -> count -> call -> sink       the store has changed before: the commit waits
    source -> sink                        the record is out while its call is pending: the commit waits
           -> call -> sink
    source -> flat_map -> call -> sink    one of its calls may be through, and another pending: the commit waits
    source -> branch -> call -> sink      a record goes one way only: nothing happens before the call is back
                     -> sink
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from streamlib.engine.retries import may_retry
from streamlib.policies import ErrorPolicies, may_write
from streamlib.topology import operators as op
from streamlib.topology.nodes import Node, ProcessorNode

_SILENT = (op.PassThrough, op.DropNullKeys, op.AddRecordId)
_FUNCTIONS = (op.Filter, op.MapRecords, op.MapValues, op.SelectKey, op.Peek, op.Foreach, op.Branch)
_MANY = (op.FlatMap, op.FlatMapValues)


class Reach(msgspec.Struct, frozen=True):
    """What one record at a node leads to.

    Attributes:
        effects: results of it get out, somewhere below: to a topic, a store, or a processor that may do both.
        at_once: some of them before a call is awaited.
        calls: it leads to calls.
        safe: no results of it are out while one of its calls is pending.
    """

    effects: bool = False
    at_once: bool = False
    calls: bool = False
    safe: bool = True


def finishes_at_once(
    nodes: Mapping[str, Node], children: Mapping[str, Sequence[str]], source: str, policies: ErrorPolicies
) -> bool:
    """Whether results of a record of the source are out only when all its calls are through.

    Args:
        nodes: of the task, parents before children.
        children: of each node.
        source: the node where the records come in.
        policies: what becomes of records at which a function raises: they may go to a topic, or be tried again later.
    """
    reach: dict[str, Reach] = {}
    for name, node in reversed(list(nodes.items())):
        below = [reach[child] for child in children[name]]
        reach[name] = _of(node, below, policies) if isinstance(node, ProcessorNode) else _at_end(node, below)
    return reach[source].safe


def _at_end(node: Node, below: Sequence[Reach]) -> Reach:
    """Of a source what is below it; a sink is an effect and nothing else."""
    return _together(below) if below else Reach(effects=True, at_once=True)


def _of(node: ProcessorNode, below: Sequence[Reach], policies: ErrorPolicies) -> Reach:
    operator, policy = node.operator, policies.of_processor(node.on_error)
    reach = _either(below) if isinstance(operator, op.Branch) else _together(below)
    if isinstance(operator, _SILENT):
        return reach
    # What is tried again later has led to nothing when it is, and so is a call. It may also go on at once; then its
    # results are out while a call beside it is pending, but two calls beside each other are not safe in any case.
    awaited = getattr(operator, "calls", None) is not None or may_retry(node, policy)
    if not isinstance(operator, _FUNCTIONS + _MANY):
        return Reach(effects=True, at_once=not awaited, calls=reach.calls or awaited, safe=not reach.calls)
    # A record that fails here goes to a topic, and nowhere else.
    dead_letters = may_write(policy)
    effects = reach.effects or dead_letters
    safe = reach.safe and not (isinstance(operator, _MANY) and reach.calls and effects)
    if awaited:
        return Reach(effects, at_once=False, calls=True, safe=safe)
    return Reach(effects, reach.at_once or dead_letters, reach.calls, safe)


def _together(below: Sequence[Reach]) -> Reach:
    """A record goes to all of them."""
    effects, calls = any(each.effects for each in below), [each for each in below if each.calls]
    others_at_once = any(each.at_once for each in below if not each.calls)
    apart = len(calls) < 2 or not effects
    return Reach(
        effects,
        any(each.at_once for each in below),
        bool(calls),
        _all_safe(below) and apart and not (calls and others_at_once),
    )


def _either(below: Sequence[Reach]) -> Reach:
    """A record goes to one of them."""
    return Reach(
        any(each.effects for each in below),
        any(each.at_once for each in below),
        any(each.calls for each in below),
        _all_safe(below),
    )


def _all_safe(below: Iterable[Reach]) -> bool:
    return all(each.safe for each in below)
