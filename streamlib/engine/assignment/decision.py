"""The decision, put together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from streamlib.engine.assignment.balance import find_homes
from streamlib.engine.assignment.copies import Copies
from streamlib.engine.assignment.group import Decision, Member, Policy, Share, by_id, disputed, valid_claims
from streamlib.engine.assignment.handover import Handover, Route
from streamlib.engine.assignment.standbys import Standbys, find_standbys, shortage
from streamlib.engine.assignment.stores import Stores
from streamlib.records import TaskId


def assign(
    tasks: Iterable[TaskId], ends: Mapping[TaskId, int | None], members: Sequence[Member], policy: Policy
) -> Decision:
    """What each member runs from now on, moving tasks withheld.

    Args:
        tasks: all of them.
        ends: for each stateful task the sum of its changelogs' log ends; None if that could not be found out.
        members: the group.
        policy: the rules it can choose.

    >>> tasks = frozenset({TaskId(0, 0), TaskId(0, 1)})
    >>> two = [Member(member_id="a", owned=tasks, generation=1), Member(member_id="b")]
    >>> decision = assign(tasks, {}, two, Policy())
    >>> {member: sorted(map(str, share.active)) for member, share in decision.shares.items()}
    {'a': ['0_0'], 'b': []}
    >>> sorted(map(str, decision.withheld))
    ['0_1']

    With stores that are far behind, the task stays where it is and the other member gets ready for it:

    >>> decision = assign(tasks, dict.fromkeys(tasks, 70_000), two, Policy())
    >>> [(member, len(share.active), len(share.warmup)) for member, share in decision.shares.items()]
    [('a', 2, 0), ('b', 0, 1)]
    """
    everybody = by_id(members)
    staying = {name: member for name, member in everybody.items() if not member.leaving}
    known = sorted(set(tasks))
    if not staying:
        return Decision({name: Share() for name in everybody}, frozenset(known))
    owners = valid_claims(members)
    stores = Stores(everybody.values(), owners, ends, policy.acceptable_recovery_lag)
    homes = find_homes(known, staying, owners, stores)
    handover = Route(staying, owners, stores).plan(homes, disputed(members), policy)
    stateful = [task for task in known if stores.stateful(task)]
    copies = Copies(staying, owners, homes, handover, stores, policy.rack_tags)
    standbys = find_standbys(stateful, staying, copies, handover, stores, policy)
    shares = _shares(everybody, handover, standbys, _kept_open(everybody, owners, handover, stores))
    return Decision(shares, frozenset(handover.receivers), shortage(len(stateful), staying, policy))


def _kept_open(
    members: Mapping[str, Member], owners: Mapping[TaskId, str], handover: Handover, stores: Stores
) -> list[tuple[TaskId, str]]:
    """Withheld tasks are followed by who gets them next, so that its stores are open when they come.

    Except where the owner has to close them first, because it shares the directory.
    """
    return [
        (task, name)
        for task, name in handover.receivers.items()
        if stores.stateful(task) and task in owners and members[owners[task]].directory != members[name].directory
    ]


def _shares(
    members: Mapping[str, Member], handover: Handover, standbys: Standbys, kept_open: Iterable[tuple[TaskId, str]]
) -> dict[str, Share]:
    active: dict[str, set[TaskId]] = defaultdict(set)
    standby: dict[str, set[TaskId]] = defaultdict(set)
    warmup: dict[str, set[TaskId]] = defaultdict(set)
    for task, name in handover.active.items():
        active[name].add(task)
    for task, names in standbys.followers.items():
        for name in names:
            standby[name].add(task)
    for task, name in kept_open:
        standby[name].add(task)
    for task, name in (*handover.warmups.items(), *standbys.warmups.items()):
        warmup[name].add(task)
    return {name: Share(frozenset(active[name]), frozenset(standby[name]), frozenset(warmup[name])) for name in members}
