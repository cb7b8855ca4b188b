"""What differs between two topologies, what that means for what is kept, and what to do.

breaks   something that is kept is not found, or not read, by the present topology: data is lost, or it does not start
costs    nothing is lost, but something is done again, or others have to know
new      nothing there was is touched
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, Protocol, TypeAlias, TypeVar

import msgspec

from streamlib.cli.diff.alignment import align, is_generated, without_number
from streamlib.cli.diff.snapshot import (
    InternalTopic,
    OtherTopic,
    Rows,
    Snapshot,
    StoreSnapshot,
    stored_as,
    take_snapshot,
)
from streamlib.topology.naming import STORE_ARGUMENTS
from streamlib.topology.nodes import SinkNode, SourceNode, StoreSpec
from streamlib.topology.topology import Topology


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Named = TypeVar("Named", bound=_Named)

Level: TypeAlias = Literal["breaks", "costs", "new"]

Kind: TypeAlias = Literal[
    "application",
    "store-gone",
    "store-renamed",
    "store-taken",
    "store-changed",
    "store-rows",
    "store-new",
    "topic-gone",
    "topic-renamed",
    "topic-partitions",
    "topic-rows",
    "topic-new",
    "input-gone",
    "input-rows",
    "input-new",
    "output-gone",
    "output-rows",
    "output-new",
    "tasks-moved",
]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference.

    Attributes:
        level: how bad it is.
        kind: what it is about; for programs.
        subject: the store, topic or tasks, by their earlier name.
        now: their present name, if they have another.
        what: what happens, in words.
        advice: what to do; empty if nothing has to be done.
    """

    level: Level
    kind: Kind
    subject: str
    now: str | None = None
    what: str
    advice: str = ""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All differences, the worst first."""

    changes: tuple[Change, ...]

    @property
    def compatible(self) -> bool:
        """Whether nothing that is kept is lost."""
        return all(change.level != "breaks" for change in self.changes)


def compare(old: Snapshot, topology: Topology, application_id: str) -> Comparison:
    """What becomes of what an application has kept, if it goes on with this topology.

    >>> from streamlib import StreamsBuilder
    >>> def counting(store):
    ...     builder = StreamsBuilder()
    ...     builder.stream("in", key=str, value=str).group_by_key().count(store=store)
    ...     return builder.build()
    >>> comparison = compare(take_snapshot(counting("a"), "app"), counting("b"), "app")
    >>> [(change.level, change.kind, change.subject, change.now) for change in comparison.changes]
    [('breaks', 'store-renamed', 'a', 'b')]
    """
    found = list(_Comparing(old, topology, application_id).all())
    order: list[Level] = ["breaks", "costs", "new"]
    return Comparison(changes=tuple(sorted(found, key=lambda change: order.index(change.level))))


class _Comparing:
    def __init__(self, old: Snapshot, topology: Topology, application_id: str) -> None:
        self._old = old
        self._new = take_snapshot(topology, application_id)
        self._topology = topology
        self._alignment = align(old, self._new)
        self._prefixes = f"{old.application_id}-", f"{application_id}-"

    def all(self) -> Iterator[Change]:
        if self._old.application_id != self._new.application_id:
            yield self._application()
        yield from self._stores()
        yield from self._internal_topics()
        yield from self._others("input", self._old.inputs, self._new.inputs)
        yield from self._others("output", self._old.outputs, self._new.outputs)
        yield from self._tasks()

    def _application(self) -> Change:
        old, new = self._old.application_id, self._new.application_id
        return Change(
            level="breaks",
            kind="application",
            subject=old,
            now=new,
            what=f"the group, all internal topics, transactional ids and the state folder are called after it: {new} "
            "starts without offsets and with empty stores",
            advice=f"keep application_id = {old!r}; or let it begin anew, and delete what is left with "
            f"'streamlib reset {old}'",
        )

    # -- Stores ------------------------------------------------------------------------------------------------------

    def _stores(self) -> Iterator[Change]:
        olds, news = _by_name(self._old.stores), _by_name(self._new.stores)
        renamed = self._renamed_stores(olds, news)
        for name, store in olds.items():
            if name in renamed:
                yield self._store_renamed(store, news[renamed[name]])
            elif name not in news:
                yield self._store_gone(store)
            elif (other := self._taken(name)) is not None:
                yield self._store_taken(store, other)
            else:
                yield from self._store_changed(store, news[name])
        for name, store in news.items():
            if name not in olds and name not in renamed.values():
                yield Change(level="new", kind="store-new", subject=name, what=_begins_empty(store))

    def _renamed_stores(self, olds: Mapping[str, StoreSnapshot], news: Mapping[str, StoreSnapshot]) -> dict[str, str]:
        """Stores that the same steps have under another name now."""
        renamed: dict[str, str] = {}
        nodes = _by_name(self._new.nodes)
        for node in self._old.nodes:
            if (now := self._alignment.pairs.get(node.name)) is None:
                continue
            pairs = zip(node.stores, nodes[now].stores, strict=False)
            renamed |= {
                before: after
                for before, after in pairs
                if before != after and before not in news and news[after].kind == olds[before].kind
            }
        gone = [name for name in olds if name not in news and name not in renamed]
        fresh = [name for name in news if name not in olds and name not in renamed.values()]
        for name in gone:  # a step whose signature has changed with the name: alone of its kind, it is that one
            alike = [each for each in fresh if _alike(olds[name], news[each])]
            if len(alike) == 1 and sum(_alike(olds[other], news[alike[0]]) for other in gone) == 1:
                renamed[name] = alike[0]
        return renamed

    def _taken(self, name: str) -> str | None:
        """The step that has a generated store name now, if it is not the one that had it."""
        if not is_generated(name):
            return None
        had = {self._alignment.pairs.get(each.name) for each in self._old.nodes if name in each.stores}
        have = {each.name for each in self._new.nodes if name in each.stores}
        return next(iter(sorted(have))) if have.isdisjoint(had) else None

    def _store_renamed(self, old: StoreSnapshot, new: StoreSnapshot) -> Change:
        shifted = is_generated(old.name) and is_generated(new.name)
        why = f" (its name is generated, and counts otherwise since {self._alignment.why_shifted})" if shifted else ""
        return Change(
            level="costs" if old.is_global else "breaks",
            kind="store-renamed",
            subject=old.name,
            now=new.name,
            what=f"the store is called {new.name} now{why}: {_what_is_left(old)}, {_begins_empty(new)}",
            advice=_keep_name(old.name) if shifted else f"keep the name {old.name!r}",
        )

    def _store_gone(self, store: StoreSnapshot) -> Change:
        return Change(
            level="costs" if store.is_global else "breaks",
            kind="store-gone",
            subject=store.name,
            what=f"no step has the store any more: {_what_is_left(store)}",
            advice="put it back; or, if it is not needed, delete its changelog once no earlier program may come back",
        )

    def _store_taken(self, store: StoreSnapshot, node: str) -> Change:
        return Change(
            level="breaks",
            kind="store-taken",
            subject=store.name,
            what=f"its name is generated, and since {self._alignment.why_shifted} another step has it, {node}: that "
            "would go on with the rows of the other",
            advice=_keep_name(store.name),
        )

    def _store_changed(self, old: StoreSnapshot, new: StoreSnapshot) -> Iterator[Change]:
        if old.kind != new.kind:
            what = f"it was a {old.kind} store and is a {new.kind} store: its rows have another format"
            yield Change(level="breaks", kind="store-changed", subject=old.name, what=what, advice=_OTHER_NAME)
            return
        if problems := _row_problems(old.rows, self._topology.stores[old.name]):
            yield _rows_changed("store-rows", old.name, problems)
        if old.window_size_ms != new.window_size_ms:
            what = f"windows were {old.window_size_ms} ms long and are {new.window_size_ms} ms: those that are kept"
            what += " would be taken for windows of the new length"
            yield Change(level="breaks", kind="store-changed", subject=old.name, what=what, advice=_OTHER_NAME)
        if old.changelog is not None and new.changelog is None:
            what = "it has no changelog any more: what is kept is on the disks of the workers only, and goes with them"
            yield Change(level="breaks", kind="store-changed", subject=old.name, what=what, advice="keep the changelog")
        elif old.changelog is None and new.changelog is not None:
            what = f"it has a changelog now, {new.changelog}, which begins empty: rows from before are not in it"
            yield Change(level="costs", kind="store-changed", subject=old.name, what=what)
        elif old.changelog_config != new.changelog_config:
            yield _config_changed(old, new)

    # -- Topics ------------------------------------------------------------------------------------------------------

    def _internal_topics(self) -> Iterator[Change]:
        olds = {each.name.removeprefix(self._prefixes[0]): each for each in self._old.internal_topics}
        news = {each.name.removeprefix(self._prefixes[1]): each for each in self._new.internal_topics}
        renamed = self._renamed_topics(olds, news)
        for name, topic in olds.items():
            if name in news and name not in renamed:
                yield from self._topic_changed(name, topic, news[name])
            else:
                yield self._topic_gone(topic, renamed.get(name))
        for name, topic in news.items():
            if name not in olds and name not in renamed.values():
                what = "it is created when the application starts"
                yield Change(level="new", kind="topic-new", subject=topic.name, what=what)

    def _renamed_topics(self, olds: Mapping[str, InternalTopic], news: Mapping[str, InternalTopic]) -> dict[str, str]:
        """Topics that the same sources read under another name now; those that only swapped them are among them."""
        nodes = _by_name(self._new.nodes)
        renamed: dict[str, str] = {}
        for node in self._old.nodes:
            now = self._alignment.pairs.get(node.name)
            if node.kind == "source" and now is not None:
                pairs = zip(node.topics, nodes[now].topics, strict=False)
                renamed |= {
                    before: after for before, after in pairs if before != after and before in olds and after in news
                }
        gone = [name for name in olds if name not in news and name not in renamed]
        fresh = [name for name in news if name not in olds and name not in renamed.values()]
        for name in gone:
            if len(gone) == len(fresh) == 1 and olds[name].rows == news[fresh[0]].rows:
                renamed[name] = fresh[0]
        return renamed

    def _topic_gone(self, old: InternalTopic, now: str | None) -> Change:
        name = old.name.removeprefix(self._prefixes[0])
        shifted = now is not None and is_generated(name) and is_generated(now)
        why = f" (generated, and counted otherwise since {self._alignment.why_shifted})" if shifted else ""
        what = f"it is called {self._prefixes[1]}{now} now{why}" if now else "nothing reads it any more"
        keep = "name the step, group_by(name=...), join(name=...), repartition(name=...), or its store"
        lag = f"'streamlib lag {self._old.application_id}'"
        drain = f"before the change, stop what writes to the inputs and wait until {lag} is 0"
        return Change(
            level="breaks",
            kind="topic-renamed" if now else "topic-gone",
            subject=old.name,
            now=f"{self._prefixes[1]}{now}" if now else None,
            what=f"{what}: records in it that are not processed yet, or wait to be tried again, are lost",
            advice=f"{keep}; or {drain}" if shifted else drain,
        )

    def _topic_changed(self, name: str, old: InternalTopic, new: InternalTopic) -> Iterator[Change]:
        if old.partitions != new.partitions:
            before, after = (each.partitions or "as many as what feeds it" for each in (old, new))
            yield Change(
                level="breaks",
                kind="topic-partitions",
                subject=old.name,
                what=f"partitions: {before} before, {after} now: keys go to other partitions than their rows, and the "
                "topic that exists keeps its number",
                advice=f"keep the number; or let it begin anew with 'streamlib reset {self._old.application_id}'",
            )
        source = next(
            node for node in self._topology.nodes.values() if isinstance(node, SourceNode) and name in node.topics
        )
        if problems := _row_problems(old.rows, stored_as(name, source.key, source.value)):
            yield _rows_changed("topic-rows", old.name, problems)

    def _others(
        self, side: Literal["input", "output"], olds: Iterable[OtherTopic], news: Iterable[OtherTopic]
    ) -> Iterator[Change]:
        before, after = _by_name(olds), _by_name(news)
        for name, topic in before.items():
            if name not in after:
                yield _other_gone(side, name)
            elif problems := _row_problems(topic.rows, self._as_stored(side, name)):
                yield _other_rows(side, name, problems)
        for name in after.keys() - before.keys():
            what = "it is read from now on, and has to exist" if side == "input" else "it is written to from now on"
            yield Change(level="new", kind=f"{side}-new", subject=name, what=what)  # type: ignore[arg-type]

    def _as_stored(self, side: str, topic: str) -> StoreSpec:
        for node in self._topology.nodes.values():
            match node:
                case SourceNode() if side == "input" and topic in node.topics:
                    return stored_as(topic, node.key, node.value)
                case SinkNode() if side == "output" and node.topic == topic:
                    return stored_as(topic, node.key, node.value)
        raise AssertionError(f"no node has {topic}")

    # -- Tasks -------------------------------------------------------------------------------------------------------

    def _tasks(self) -> Iterator[Change]:
        """Numbers of subtopologies go by the names of their sources, and tasks are called after them."""
        nodes = _by_name(self._new.nodes)
        for part in self._old.subtopologies:
            if part.is_global:
                continue
            members = [each.name for each in self._old.nodes if each.subtopology == part.id]
            now = {nodes[self._alignment.pairs[name]].subtopology for name in members if name in self._alignment.pairs}
            if now and now != {part.id}:
                yield self._moved(part.id, sorted(now), part.stores)

    def _moved(self, number: int, now: list[int], stores: tuple[str, ...]) -> Change:
        kept = _by_name(self._old.stores)
        lost = [name for name in stores if kept[name].changelog is None and kept[name].persistent]
        become = " and ".join(f"{each}_*" for each in now)
        ways = ["workers of both programs do not run together: stop all, then start all"]
        if stores:
            what = f"tasks {number}_* are {become} now: their stores are restored from their changelogs"
        else:
            what = f"tasks {number}_* are {become} now; they have no stores"
        if lost:
            what += f"; {', '.join(lost)} has no changelog and begins empty"
            ways.insert(0, f"give {', '.join(lost)} a changelog first")
        return Change(
            level="breaks" if lost else "costs",
            kind="tasks-moved",
            subject=f"{number}_*",
            now=become,
            what=what,
            advice="; ".join(ways),
        )


_OTHER_NAME = "keep new rows in a store of another name; or let it begin anew with 'streamlib reset'"


def _by_name(each: Iterable[Named]) -> dict[str, Named]:
    return {one.name: one for one in each}


def _alike(old: StoreSnapshot, new: StoreSnapshot) -> bool:
    return (old.kind, old.rows, old.is_global) == (new.kind, new.rows, new.is_global)


def _row_problems(old: Rows, spec: StoreSpec) -> list[str]:
    """Why rows cannot be read as they are now; where shapes are not known, other names are reason enough."""
    now = Rows.of(spec)
    problems = list(old.shape.problems(spec))
    for what, before, after, shape in (
        ("keys", old.key, now.key, old.shape.key and now.shape.key),
        ("values", old.value, now.value, old.shape.value and now.shape.value),
    ):
        if shape is None and before != after:
            problems.append(f"its {what} were {before} and are {after}")
    return problems


def _rows_changed(kind: Kind, name: str, problems: list[str]) -> Change:
    return Change(
        level="breaks",
        kind=kind,
        subject=name,
        what=f"rows that are there cannot be read: {'; '.join(problems)}",
        advice="declare how older values are upgraded, @upgrades(...), give new fields a default, or use another name",
    )


def _config_changed(old: StoreSnapshot, new: StoreSnapshot) -> Change:
    names = sorted(old.changelog_config.items() ^ new.changelog_config.items())
    settings = ", ".join(dict.fromkeys(name for name, _ in names))
    return Change(
        level="costs",
        kind="store-changed",
        subject=old.name,
        what=f"its changelog should have other settings ({settings}); one that exists keeps those it has",
        advice=f"kafka-configs.sh --alter --topic {new.changelog} --add-config "
        + ",".join(
            f"{name}=[{value}]" if "," in value else f"{name}={value}"
            for name, value in sorted(new.changelog_config.items() - old.changelog_config.items())
        ),
    )


def _other_gone(side: Literal["input", "output"], name: str) -> Change:
    if side == "input":
        what = "it is not read any more: records that come are left out, and its committed offsets expire"
        return Change(level="costs", kind="input-gone", subject=name, what=what)
    return Change(
        level="costs", kind="output-gone", subject=name, what="nothing is written to it any more: tell who reads it"
    )


def _other_rows(side: Literal["input", "output"], name: str, problems: list[str]) -> Change:
    told = "; ".join(problems)
    if side == "input":
        return Change(
            level="costs",
            kind="input-rows",
            subject=name,
            what=f"records that were written for the earlier program cannot be decoded: {told}",
            advice="see that whoever writes it has changed; on_deserialization_error= says what becomes of the others",
        )
    return Change(
        level="costs",
        kind="output-rows",
        subject=name,
        what=f"what is written now differs, and both are in it: {told}",
        advice="see that readers understand both, or write to another topic",
    )


def _what_is_left(store: StoreSnapshot) -> str:
    if store.is_global:
        return "it is filled from its topic again"
    if store.changelog is None:
        return "its rows are left on disk"
    return f"its rows are left in {store.changelog}, which nobody reads"


def _begins_empty(store: StoreSnapshot) -> str:
    return "the new one is filled from its topic" if store.is_global else "a new store begins empty"


def _keep_name(name: str) -> str:
    """How to give a store the name that it had, so that it keeps it from now on."""
    start = without_number(name).partition("-STATE-STORE")[0]
    argument = next((given for prefix, given in STORE_ARGUMENTS.items() if start.startswith(prefix)), None)
    step = (argument or "table(store=...)").replace("...", repr(name), 1)
    return f"give it this name, so that it stays: {step}; StreamsBuilder(strict_naming=True) refuses generated ones"
