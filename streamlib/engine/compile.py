"""From a subtopology to closures: each node is compiled after its children, which it calls directly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import msgspec

from streamlib.engine.calls import Line
from streamlib.engine.error_handling import ErrorHandling
from streamlib.engine.inputs import CompiledSource, NodeFn
from streamlib.engine.operators import compile_operator
from streamlib.engine.operators.async_calls import compile_awaited, is_awaited
from streamlib.engine.operators.expiry import expiring
from streamlib.engine.operators.record_ids import nodes_that_tell_ids
from streamlib.engine.operators.sink import compile_sink
from streamlib.engine.operators.site import OpenStore, Site, Work, fan_out
from streamlib.engine.operators.versioned import versioned_tables
from streamlib.engine.prefetch import stores_read_by_key
from streamlib.engine.record_cache import RecordCache
from streamlib.engine.retries import Done
from streamlib.engine.retry_topics import Parking, returning
from streamlib.engine.timestamps import extract_function
from streamlib.policies import Fail, RetryTopics
from streamlib.state.ttl import TtlOverlay
from streamlib.topology import operators as op
from streamlib.topology.nodes import Node, ProcessorNode, SinkNode, SourceNode, TtlStoreSpec

FullName = Callable[[str], str]

_ROW_PER_KEY = ("key_value", "timestamped_key_value")


class Compiler(msgspec.Struct):
    """Compiles the nodes of one task.

    `nodes` in the order they were added to the topology, parents before children; `full_name` turns a topic's name as
    written by the user into the one in Kafka; `errors` decides about records that fail, which is an error without it.
    """

    nodes: Mapping[str, Node]
    full_name: FullName
    work: Work
    errors: ErrorHandling | None = None

    def compile(self) -> dict[str, CompiledSource]:
        """For each source topic, by its full name, where its records go."""
        children, versioned = children_of(self.nodes), versioned_tables(self.nodes, self.work.stores)
        tells_ids = nodes_that_tell_ids(self.nodes, children)
        compiled: dict[str, NodeFn] = {}
        sources: dict[str, CompiledSource] = {}
        for name, node in reversed(list(self.nodes.items())):
            below = {child: compiled[child] for child in children[name]}
            forward = fan_out(list(below.values()))
            match node:
                case SourceNode():
                    source = self._source(
                        node,
                        self._counted(name, self._traced_source(node, forward)),
                        stores_read_by_key(node, self.nodes, children),
                    )
                    sources.update((self.full_name(topic), source) for topic in node.topics)
                case ProcessorNode():
                    late = not versioned.isdisjoint(node.parents)
                    site = Site(
                        name, below, forward, node.stores, node.sends_old_values, self.work,
                        below_versioned=late, tells_ids=name in tells_ids,
                    )  # fmt: skip
                    compiled[name] = self._counted(name, self._processor(node, self._cached(node, site)))
                case SinkNode():
                    topic = self.full_name(node.topic) if isinstance(node.topic, str) else None
                    compiled[name] = self._counted(name, self._sink(node, topic))
        return sources

    def _counted(self, name: str, compiled: NodeFn) -> NodeFn:
        """Nothing comes in between unless somebody wants to know."""
        return compiled if self.work.counts is None else self.work.counts.node(name, compiled)

    def _traced_source(self, node: SourceNode, forward: NodeFn) -> NodeFn:
        tracing = self.work.tracing
        return forward if tracing is None else tracing.source(node, self.work.cursor, forward)

    def _traced(self, node: ProcessorNode, compiled: NodeFn, *, goes_on: bool) -> NodeFn:
        """Within what decides about records that fail: that such a record is skipped does not hide why."""
        tracing = self.work.tracing
        return compiled if tracing is None else tracing.processor(node, compiled, goes_on=goes_on)

    def _traced_sink(self, node: SinkNode, topic: str | None, compiled: NodeFn) -> NodeFn:
        tracing = self.work.tracing
        return compiled if tracing is None else tracing.sink(node, topic, compiled)

    def _source(self, node: SourceNode, forward: NodeFn, read_by_key: Iterable[str]) -> CompiledSource:
        if node.retries is not None:
            return returning(node, forward, self.work)
        skip = None if self.errors is None else self.errors.of_source(node)
        extract = extract_function(node.timestamp_extractor, node.name, self.work.facts.now_ms)
        stores = [self.work.stores[name] for name in sorted(read_by_key) if name in self.work.stores]
        prefetch = tuple(
            store.overlay.prefetch for store in stores if store.spec.key == node.key and store.spec.kind in _ROW_PER_KEY
        )
        return CompiledSource(node.name, forward, node.key, node.value, extract, skip, prefetch)

    def _processor(self, node: ProcessorNode, site: Site) -> NodeFn:
        if is_awaited(node):
            return compile_awaited(node, self.work, partial(self._resumed, site))
        if self.errors is None or self.work.calls is None or not self.errors.may_retry(node):
            return self._guarded(node, self._compiled(node, site))
        done = Done()
        watched = site.noted(done) if isinstance(node.operator, op.Process) else site
        return self.errors.retried(self._compiled(node, watched, goes_on=True), node, self.work.calls, done)

    def _resumed(self, site: Site, node: ProcessorNode, line: Line) -> NodeFn:
        """What goes on when a call has come back."""
        return self._guarded(node, self._compiled(node, site, goes_on=True), line)

    def _guarded(self, node: ProcessorNode, compiled: NodeFn, line: Line | None = None) -> NodeFn:
        if self.errors is None:
            return compiled
        if isinstance(node.on_error, RetryTopics):
            return self.errors.parked(compiled, node, self._parking(node, node.on_error), line)
        return self.errors.guarded(compiled, node, line)

    def _parking(self, step: ProcessorNode, policy: RetryTopics) -> Parking:
        above = (self.nodes[parent] for parent in step.parents)
        source = next(each for each in above if isinstance(each, SourceNode) and each.retries == step.name)
        return Parking(step.name, policy, source, [self.full_name(topic) for topic in source.topics], self.work)

    def _sink(self, node: SinkNode, topic: str | None) -> NodeFn:
        if self.errors is None:
            return self._traced_sink(node, topic, compile_sink(node, topic, self.work))
        measured = not isinstance(self.errors.of_writing(node), Fail)
        compiled = compile_sink(node, topic, self.work, measured=measured)
        return self.errors.guarded(self._traced_sink(node, topic, compiled), node)

    def _compiled(self, node: ProcessorNode, site: Site, *, goes_on: bool = False) -> NodeFn:
        return self._traced(node, self._untraced(node, site), goes_on=goes_on)

    def _untraced(self, node: ProcessorNode, site: Site) -> NodeFn:
        """The node; if it keeps a table whose rows expire, with what that takes."""
        compiled, store = compile_operator(node.operator, site), self._table_store(node)
        if store is None or not isinstance(store.overlay, TtlOverlay) or isinstance(node.operator, op.CogroupMerge):
            return compiled
        assert isinstance(store.spec, TtlStoreSpec)
        return expiring(compiled, store.spec, store.overlay, site)

    def _table_store(self, node: ProcessorNode) -> OpenStore | None:
        """The store that the node's operator keeps its table in."""
        return self.work.stores.get(getattr(node.operator, "store", None) or "")

    def _cached(self, node: ProcessorNode, site: Site) -> Site:
        """The site with a record cache in between, if the node makes a table whose store has one.

        Where several nodes write one store, as in a cogroup, the one below all of them has the cache.
        """
        work, budget, store = self.work, self.work.cache_budget, self._table_store(node)
        if budget is None or store is None or not store.spec.cached:
            return site
        name, forward = store.spec.name, site.forward
        if name not in work.caches:
            counts = work.counts
            below = forward if counts is None else counts.passed(name, forward)
            cache = RecordCache(store.spec, below, work.cursor, budget, with_old=site.sends_old_values)
            work.caches[name] = cache
            forward = cache.add if counts is None else counts.added(name, cache.add)
        return msgspec.structs.replace(site, forward=forward, sends_old_values=True, cached=True)


def children_of(nodes: Mapping[str, Node]) -> dict[str, list[str]]:
    """The children of each node, in the order they were attached."""
    children: dict[str, list[str]] = {name: [] for name in nodes}
    for name, node in nodes.items():
        if not isinstance(node, SourceNode):
            for parent in node.parents:
                children[parent].append(name)
    return children
