"""Traces for OpenTelemetry that follow records through Kafka, by the header `traceparent` (W3C Trace Context).

    header --> process <topic>        CONSUMER   until the synchronous steps are done
                 |  <node>            INTERNAL   steps with stores or processors, or all of them
                 |  call <node>       INTERNAL   a function that is awaited, however long after
                 +> send <topic>      PRODUCER --> header of the record that is written, to repartition topics, too

The header of a record in process names its `process` span, so everything that comes of it is found to belong there,
whenever that is: after a call, a record cache, a retry topic. Where a result comes of several records it belongs to the
last of them, and has links to those before.

A span is ended when it is known what becomes of its transaction, with the time at which it was over.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from random import random
from typing import Any, Literal, TypeAlias

from streamlib.engine.calls import Answer, Call
from streamlib.engine.cursor import Cursor
from streamlib.engine.inputs import NodeFn
from streamlib.engine.plan import is_internal
from streamlib.engine.tracing import TaskTracing
from streamlib.errors import ExtraMissingError
from streamlib.records import Headers, TaskId
from streamlib.topology import operators as op
from streamlib.topology.nodes import ProcessorNode, SinkNode, SourceNode

try:
    from opentelemetry import context, trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
except ImportError as error:
    raise ExtraMissingError(__name__, "opentelemetry") from error

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

OUTCOME = "streamlib.transaction.outcome"
"""What became of a span's transaction: `committed` or `aborted`. Not known of more than `MOST_OPEN` at a time."""

MOST_OPEN = 2_048
"""Spans of a task that wait for the end of their transaction."""

MOST_LINKED = 1_024
"""Keys of an aggregation of which it is known who changed them last."""

Nodes: TypeAlias = Literal["none", "stateful", "all"]

_AGGREGATIONS = (
    op.StreamAggregate, op.StreamReduce, op.StreamCount, op.WindowedFold, op.SessionFold, op.CogroupMerge,
    op.TableAggregate, op.TableReduce,
)  # fmt: skip


class OpenTelemetryTracing:
    """Traces records of an application with a tracer provider.

        tracing = OpenTelemetryTracing(roots=0.01)
        await KafkaStreams(topology, config, tracing=tracing).run()

    A record with a `traceparent` is traced if that says it is sampled; for one without it the provider's sampler
    decides, and what it decides goes on in the headers, so that a trace is there as a whole or not at all.

    Args:
        tracer_provider: makes the spans; the global one if not given.
        roots: at which share of the records without a `traceparent` a trace may begin, before the sampler is asked,
            which takes some microseconds: 0 lets only traces of others go on. None begins at internal topics.
        nodes: which steps have spans of their own: those with stores and processors, `"all"` or `"none"`.

    >>> from opentelemetry.sdk.trace import TracerProvider
    >>> from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    >>> from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    >>> from streamlib import StreamsBuilder
    >>> from streamlib.testing import TopologyTestDriver
    >>> builder = StreamsBuilder()
    >>> builder.stream("in", key=str, value=str).map_values(str.upper).to("out")
    >>> spans, provider = InMemorySpanExporter(), TracerProvider()
    >>> provider.add_span_processor(SimpleSpanProcessor(spans))
    >>> with TopologyTestDriver(builder.build(), tracing=OpenTelemetryTracing(provider)) as driver:
    ...     driver.input_topic("in", key=str, value=str).pipe_input("a", "x")
    >>> sorted(span.name for span in spans.get_finished_spans())
    ['process in', 'send out']
    """

    def __init__(
        self, tracer_provider: trace.TracerProvider | None = None, *, roots: float = 1.0, nodes: Nodes = "stateful"
    ) -> None:
        self._tracer = trace.get_tracer("streamlib", tracer_provider=tracer_provider)
        self._roots = roots
        self._nodes: Nodes = nodes

    def of_task(self, application_id: str, task_id: TaskId) -> TaskTracing:
        """The spans of one task."""
        common = {
            "messaging.system": "kafka",
            "messaging.consumer.group.name": application_id,
            "streamlib.task": str(task_id),
        }
        return _TaskSpans(self._tracer, application_id, common, roots=self._roots, nodes=self._nodes)


class _TaskSpans:
    """`current` is the innermost span of the record in process; None if that is not traced, or there is none."""

    def __init__(
        self, tracer: trace.Tracer, application_id: str, common: dict[str, str], *, roots: float, nodes: Nodes
    ) -> None:
        self._tracer = tracer
        self._application_id = application_id
        self._common = common
        self._roots = roots
        self._nodes = nodes
        self._current: Span | None = None
        self._error: BaseException | None = None  # the last one that a span has recorded: those above need not
        self._open: list[tuple[Span, int]] = []  # over at that time, in ns
        self._sealed: list[tuple[Span, int]] = []

    # -- Where records come from, pass and go to ---------------------------------------------------------------------

    def source(self, node: SourceNode, cursor: Cursor, forward: NodeFn) -> NodeFn:
        tracer = self._tracer
        roots: float | None = None  # of this source, as soon as a record says which topic it reads

        def traced(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
            nonlocal roots
            if roots is None:
                roots = self._roots_at(cursor)
            parent = parent_of(headers) if headers else None
            if random() >= roots if parent is None else not parent.trace_flags.sampled:
                forward(key, value, timestamp, headers)
                return
            topic = "" if cursor.partition is None else cursor.partition.topic
            span = tracer.start_span(
                f"process {topic}",
                Context() if parent is None else _context(parent),
                SpanKind.CONSUMER,
                self._consumed(node, cursor),
            )
            headers = with_parent(headers, span.get_span_context())
            if span.is_recording():
                self._within(span, forward, key, value, timestamp, headers)
            else:
                forward(key, value, timestamp, headers)

        return traced

    def processor(self, node: ProcessorNode, compiled: NodeFn, *, goes_on: bool) -> NodeFn:
        traced = self._node(node, compiled) if self._has_span(node) else self._watched(compiled)
        return self._going_on(traced) if goes_on else traced

    def sink(self, node: SinkNode, topic: str | None, compiled: NodeFn) -> NodeFn:
        attributes = {**self._common, **_operation("send"), "streamlib.node": node.name}
        if topic is not None:
            attributes["messaging.destination.name"] = topic
        name = "send" if topic is None else f"send {topic}"

        def traced(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
            parent, links = self._parent(headers)
            if parent is None:
                compiled(key, value, timestamp, headers)
                return
            span = self._tracer.start_span(name, parent, SpanKind.PRODUCER, attributes, links)
            headers = with_parent(headers, span.get_span_context())
            self._within(span, compiled, key, value, timestamp, headers)

        return traced

    async def call(self, call: Call, answer: Awaitable[Answer]) -> Answer:
        parent = parent_of(call.headers)
        if parent is None or not parent.trace_flags.sampled:
            return await answer
        name = call.line.name
        attributes: dict[str, Any] = {**self._common, "streamlib.node": name, "streamlib.call.retries": call.retries}
        with self._tracer.start_as_current_span(f"call {name}", _context(parent), attributes=attributes) as span:
            answered = await answer
            if answered.error is not None:
                span.record_exception(answered.error)
                span.set_status(Status(StatusCode.ERROR, _short(answered.error)))
            return answered

    # -- What becomes of it ------------------------------------------------------------------------------------------

    def sealed(self) -> None:
        self._sealed += self._open
        self._open = []

    def committed(self) -> None:
        ended, self._sealed = self._sealed, []
        for span, end_ns in ended:
            span.set_attribute(OUTCOME, "committed")
            span.end(end_ns)

    def dropped(self) -> None:
        ended, self._sealed, self._open = [*self._sealed, *self._open], [], []
        for span, end_ns in ended:
            span.set_attribute(OUTCOME, "aborted")
            span.set_status(Status(StatusCode.ERROR, "not committed: the record is processed again"))
            span.end(end_ns)

    # -- Parts -------------------------------------------------------------------------------------------------------

    def _roots_at(self, cursor: Cursor) -> float:
        """What comes through a topic of the application's own was offered to the sampler already."""
        partition = cursor.partition
        return 0.0 if partition is None or is_internal(self._application_id, partition.topic) else self._roots

    def _has_span(self, node: ProcessorNode) -> bool:
        match self._nodes:
            case "none":
                return False
            case "all":
                return True
            case _:
                return bool(node.stores) or isinstance(node.operator, op.Process)

    def _node(self, node: ProcessorNode, compiled: NodeFn) -> NodeFn:
        attributes = {**self._common, "streamlib.node": node.name, "streamlib.operator": type(node.operator).__name__}
        if node.stores:
            attributes["streamlib.stores"] = ", ".join(node.stores)
        changed = _LastChanges() if isinstance(node.operator, _AGGREGATIONS) else None

        def traced(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
            if self._current is None:
                return compiled(key, value, timestamp, headers)
            links = None if changed is None else changed.before(key, self._current.get_span_context())
            span = self._tracer.start_span(
                node.name, trace.set_span_in_context(self._current, Context()), SpanKind.INTERNAL, attributes, links
            )
            return self._within(span, compiled, key, value, timestamp, headers)

        return traced

    def _watched(self, compiled: NodeFn) -> NodeFn:
        """A node without a span of its own: what it raises is told by the one around it, whatever becomes of that."""

        def watched(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
            try:
                return compiled(key, value, timestamp, headers)
            except BaseException as error:
                if self._current is not None:
                    self._failed(self._current, error)
                raise

        return watched

    def _going_on(self, compiled: NodeFn) -> NodeFn:
        """A node that may be called for a record of earlier: what it belongs to is in its headers."""

        def traced(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
            if self._current is not None or not headers:
                return compiled(key, value, timestamp, headers)
            parent = parent_of(headers)
            if parent is None or not parent.trace_flags.sampled:
                return compiled(key, value, timestamp, headers)
            self._current = trace.NonRecordingSpan(parent)
            try:
                return compiled(key, value, timestamp, headers)
            finally:
                self._current = None

        return traced

    def _within(self, span: Span, forward: NodeFn, key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        """Go on inside of a span; functions find it as the current one."""
        outer, self._current = self._current, span
        token = context.attach(trace.set_span_in_context(span))
        try:
            return forward(key, value, timestamp, headers)
        except BaseException as error:
            self._failed(span, error)
            raise
        finally:
            context.detach(token)
            self._current = outer
            self._over(span)

    def _failed(self, span: Span, error: BaseException) -> None:
        if error is not self._error:
            span.record_exception(error)
            self._error = error
        span.set_status(Status(StatusCode.ERROR, _short(error)))

    def _over(self, span: Span) -> None:
        if len(self._open) < MOST_OPEN:
            self._open.append((span, time.time_ns()))
        else:
            span.end()

    def _parent(self, headers: Headers) -> tuple[Context | None, Sequence[Link] | None]:
        """What a record that is written belongs to: that which its headers name. If that is another trace than the one
        in process, as when a window closes, it is linked with the record that caused it."""
        current = self._current
        named = parent_of(headers) if headers else None
        if named is None:
            return (None if current is None else trace.set_span_in_context(current, Context())), None
        if current is not None and current.get_span_context().trace_id == named.trace_id:
            return trace.set_span_in_context(current, Context()), None
        if not named.trace_flags.sampled:
            return None, None
        return _context(named), None if current is None else [Link(current.get_span_context())]

    def _consumed(self, node: SourceNode, cursor: Cursor) -> dict[str, Any]:
        attributes: dict[str, Any] = {**self._common, **_operation("process"), "streamlib.node": node.name}
        if cursor.partition is None or cursor.record is None:
            return attributes
        record = cursor.record
        attributes["messaging.destination.name"] = cursor.partition.topic
        attributes["messaging.destination.partition.id"] = str(cursor.partition.partition)
        attributes["messaging.kafka.offset"] = record.offset
        attributes["streamlib.message.key.size"] = len(record.key or b"")
        attributes["messaging.message.body.size"] = len(record.value or b"")
        if record.value is None:
            attributes["messaging.kafka.message.tombstone"] = True
        return attributes


class _LastChanges:
    """Which span changed a key of an aggregation last, of the keys that were changed last."""

    def __init__(self) -> None:
        self._spans: dict[Any, SpanContext] = {}

    def before(self, key: Any, now: SpanContext) -> Sequence[Link] | None:
        """A link to the one before, if that is of another trace. Keys that cannot be hashed have none."""
        try:
            last = self._spans.pop(key, None)
        except TypeError:
            return None
        self._spans[key] = now
        if len(self._spans) > MOST_LINKED:
            del self._spans[next(iter(self._spans))]
        return None if last is None or last.trace_id == now.trace_id else [Link(last)]


def parent_of(headers: Headers) -> SpanContext | None:
    """The span that a record's headers name; None if they name none, or not as W3C Trace Context has it.

    >>> found = parent_of([("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")])
    >>> f"{found.span_id:x}", found.trace_flags.sampled
    ('b7ad6b7169203331', True)
    >>> parent_of([("traceparent", b"nonsense")])
    """
    for name, content in headers:
        if name == TRACEPARENT:
            return None if content is None else _parsed(content, headers)
    return None


def with_parent(headers: Headers, span: SpanContext) -> Headers:
    """The headers with this span in place of the one they name.

    >>> span = parent_of([("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")])
    >>> with_parent((("lang", b"en"), ("traceparent", b"nonsense")), span)
    (('lang', b'en'), ('traceparent', b'00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00'))
    """
    if not span.is_valid:
        return headers
    named = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}".encode()
    others = [each for each in headers if each[0] not in (TRACEPARENT, TRACESTATE)]
    state = [(TRACESTATE, span.trace_state.to_header().encode())] if span.trace_state else []
    return (*others, (TRACEPARENT, named), *state)


def _parsed(content: bytes, headers: Headers) -> SpanContext | None:
    parts = content.split(b"-")
    if len(parts) < 4 or [len(part) for part in parts[:4]] != [2, 32, 16, 2] or parts[0] == b"ff":
        return None
    try:
        trace_id, span_id, flags = (int(part, 16) for part in parts[1:4])
    except ValueError:
        return None
    found = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags), trace_state=_state(headers))
    return found if found.is_valid else None


def _state(headers: Headers) -> TraceState | None:
    states = [content.decode("ascii", "replace") for name, content in headers if name == TRACESTATE and content]
    return TraceState.from_header(states) if states else None


def _context(parent: SpanContext) -> Context:
    return trace.set_span_in_context(trace.NonRecordingSpan(parent), Context())


def _operation(what: str) -> dict[str, str]:
    return {"messaging.operation.name": what, "messaging.operation.type": what}


def _short(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}"
    return text if len(text) <= 200 else f"{text[:197]}..."
