"""Traces follow records by their headers: through nodes, calls, repartition topics and other applications."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from streamlib import ProcessingError, Retry, RetryTopics, StreamsBuilder, StreamsConfig
from streamlib.monitoring import tracing as module
from streamlib.monitoring.tracing import OUTCOME, OpenTelemetryTracing, parent_of
from streamlib.records import Headers, TaskId
from streamlib.serdes import serde_for
from streamlib.testing import TopologyTestDriver
from streamlib.topology.nodes import SinkNode
from tests.monitoring.spans import TRACE, Spans, header

SAMPLED = header(1)


@pytest.fixture
def spans() -> Spans:
    return Spans()


@contextmanager
def driven(builder: StreamsBuilder, spans: Spans, **options: Any) -> Iterator[TopologyTestDriver]:
    config = StreamsConfig(application_id="app", **options)
    with TopologyTestDriver(builder.build(), config=config, tracing=OpenTelemetryTracing(spans.provider)) as driver:
        yield driver


def counting() -> StreamsBuilder:
    builder = StreamsBuilder()
    stream = builder.stream("in", key=str, value=str)
    stream.group_by(lambda _, v: v, key=str, name="by-word").count(store="counts", name="count").to_stream().to("out")
    return builder


def pipe(driver: TopologyTestDriver, value: Any = "x", headers: Headers = SAMPLED, key: str = "a") -> None:
    driver.input_topic("in", key=str, value=str).pipe_input(key, value, headers=headers, timestamp_ms=5)


def test_a_trace_goes_through_a_repartition_topic_to_the_output(spans: Spans) -> None:
    with driven(counting(), spans) as driver:
        pipe(driver)
        out = driver.output_topic("out", key=str, value=int).read_record()
    assert spans.tree() == {
        "process in": None,
        "send app-by-word-repartition": "process in",
        "process app-by-word-repartition": "send app-by-word-repartition",
        "count": "process app-by-word-repartition",
        "send out": "count",
    }
    assert {span.context.trace_id for span in spans.finished} == {TRACE}
    named = parent_of(out.headers)
    assert named is not None
    assert named.span_id == spans["send out"].context.span_id
    remote = spans["process in"].parent
    assert remote is not None
    assert (remote.span_id, remote.is_remote) == (1, True)


def test_attributes_are_those_of_messaging(spans: Spans) -> None:
    with driven(counting(), spans) as driver:
        pipe(driver)
    process, send, count = spans["process in"], spans["send out"], spans["count"]
    assert process.kind is SpanKind.CONSUMER
    assert dict(process.attributes or {}) == {
        "messaging.system": "kafka",
        "messaging.consumer.group.name": "app",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "in",
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": 0,
        "messaging.message.body.size": 1,
        "streamlib.message.key.size": 1,
        "streamlib.node": "KSTREAM-SOURCE-0000000000",
        "streamlib.task": "0_0",
        OUTCOME: "committed",
    }
    assert send.kind is SpanKind.PRODUCER
    sent: Mapping[str, Any] = send.attributes or {}
    assert (sent["messaging.destination.name"], sent["messaging.operation.type"]) == ("out", "send")
    counted: Mapping[str, Any] = count.attributes or {}
    assert (counted["streamlib.operator"], counted["streamlib.stores"]) == ("StreamCount", "counts")


@pytest.mark.parametrize("headers", [header(1, flags=0), header(1, flags=2)])
def test_what_others_do_not_sample_is_not_traced_and_its_header_goes_on(headers: Headers, spans: Spans) -> None:
    with driven(counting(), spans) as driver:
        pipe(driver, headers=headers)
        assert tuple(driver.output_topic("out", key=str, value=int).read_record().headers) == tuple(headers)
    assert spans.finished == ()


@pytest.mark.parametrize("headers", [(), (("traceparent", b"00-zz"),), (("traceparent", None),)])
def test_a_trace_begins_where_there_is_none(headers: Headers, spans: Spans) -> None:
    with driven(counting(), spans) as driver:
        pipe(driver, headers=headers)
    assert spans["process in"].parent is None
    assert len({span.context.trace_id for span in spans.finished}) == 1


def test_what_the_sampler_leaves_out_is_left_out_as_a_whole() -> None:
    spans = Spans(ParentBased(ALWAYS_OFF))
    with driven(counting(), spans) as driver:
        pipe(driver, headers=())
        out = driver.output_topic("out", key=str, value=int).read_record()
    assert spans.finished == ()
    named = parent_of(out.headers)
    assert named is not None
    assert not named.trace_flags.sampled


def test_without_roots_only_traces_of_others_go_on(spans: Spans) -> None:
    tracing = OpenTelemetryTracing(spans.provider, roots=0)
    with TopologyTestDriver(counting().build(), tracing=tracing) as driver:
        pipe(driver, headers=())
        assert driver.output_topic("out", key=str, value=int).read_record().headers == ()
        pipe(driver)
    assert [span.name for span in spans.finished].count("process in") == 1


def test_a_share_of_the_records_may_begin_a_trace(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([0.05, 0.2, 0.2, 0.2])
    monkeypatch.setattr(module, "random", lambda: next(drawn))
    with TopologyTestDriver(counting().build(), tracing=OpenTelemetryTracing(spans.provider, roots=0.1)) as driver:
        pipe(driver, headers=())
        pipe(driver, headers=())  # at the repartition topic what is drawn is not below 0
    assert len({span.context.trace_id for span in spans.finished}) == 1
    assert [span.name for span in spans.finished].count("process in") == 1


def test_tracestate_and_other_headers_go_along(spans: Spans) -> None:
    headers = (*SAMPLED, ("tracestate", b"vendor=x"), ("lang", b"en"))
    with driven(counting(), spans) as driver:
        pipe(driver, headers=headers)
        out = dict(driver.output_topic("out", key=str, value=int).read_record().headers)
    assert (out["tracestate"], out["lang"]) == (b"vendor=x", b"en")


def test_an_aggregation_has_a_link_to_the_trace_before(spans: Spans) -> None:
    with driven(counting(), spans) as driver:
        pipe(driver, headers=header(1, trace_id=7))
        pipe(driver, headers=header(1, trace_id=8))
        pipe(driver, "other", headers=header(1, trace_id=9))
    first, second, other = (span for span in spans.finished if span.name == "count")
    assert not first.links
    assert [link.context.trace_id for link in second.links] == [7]
    assert not other.links


def test_a_result_of_the_record_cache_belongs_to_the_last_update(spans: Spans) -> None:
    with driven(counting(), spans, statestore_cache_max_bytes=1 << 20) as driver:
        pipe(driver)
    assert spans["send out"].context.trace_id == TRACE


async def slow(value: str) -> str:
    await asyncio.sleep(0)
    with trace.get_tracer("user").start_as_current_span("inside"):
        return value.upper()


def test_a_call_is_a_span_around_what_the_function_does(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "get_tracer", lambda name, *_, **__: spans.provider.get_tracer(name))
    builder = StreamsBuilder()
    builder.stream("in", key=str, value=str).map_values(slow, name="ask").to("out")
    with driven(builder, spans) as driver:
        pipe(driver)
        assert driver.output_topic("out", key=str, value=str).read_value() == "X"
    assert spans.tree() == {
        "process in": None, "call ask": "process in", "inside": "call ask", "send out": "process in",
    }  # fmt: skip


def test_a_plain_function_finds_the_span_of_its_record(spans: Spans) -> None:
    found = []
    builder = StreamsBuilder()
    stream = builder.stream("in", key=str, value=str)
    stream.peek(lambda k, v: found.append(trace.get_current_span().get_span_context().span_id)).to("out")
    with driven(builder, spans) as driver:
        pipe(driver)
    assert found == [spans["process in"].context.span_id]
    assert not trace.get_current_span().get_span_context().is_valid


def failing(*failures: int) -> Any:
    """Raises at the calls with these numbers."""
    calls = iter(range(100))

    def function(value: str) -> str:
        if next(calls) in failures:
            raise ValueError("no price")
        return value

    return function


def test_an_error_is_told_and_its_span_is_of_an_aborted_transaction(spans: Spans) -> None:
    builder = StreamsBuilder()
    builder.stream("in", key=str, value=str).map_values(failing(0), value=str).to("out")
    with pytest.raises(ProcessingError), driven(builder, spans) as driver:
        pipe(driver)
    span = spans["process in"]
    assert span.status.status_code is StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]
    assert (span.attributes or {})[OUTCOME] == "aborted"


def test_an_error_that_is_skipped_is_told_all_the_same(spans: Spans) -> None:
    builder = StreamsBuilder()
    builder.stream("in", key=str, value=str).map_values(failing(0), value=str, on_error="skip").to("out")
    with driven(builder, spans) as driver:
        pipe(driver)
    span = spans["process in"]
    assert (span.status.status_code, (span.attributes or {})[OUTCOME]) == (StatusCode.ERROR, "committed")


def test_a_record_that_is_tried_again_stays_in_its_trace(spans: Spans) -> None:
    builder = StreamsBuilder()
    stream = builder.stream("in", key=str, value=str)
    stream.map_values(failing(0), value=str, on_error=Retry([timedelta(seconds=1)])).to("out")
    with driven(builder, spans) as driver:
        pipe(driver)
        driver.advance_wall_clock(timedelta(seconds=2))
        assert driver.output_topic("out", key=str, value=str).read_value() == "x"
    assert spans.tree() == {"process in": None, "send out": "process in"}


def test_a_record_that_comes_back_from_a_retry_topic_stays_in_its_trace(spans: Spans) -> None:
    builder = StreamsBuilder()
    again = RetryTopics([timedelta(hours=1)])
    stream = builder.stream("in", key=str, value=str)
    stream.map_values(failing(0), value=str, name="ask", on_error=again).to("out")
    with driven(builder, spans) as driver:
        pipe(driver)
        driver.advance_wall_clock(timedelta(hours=2))
        assert driver.output_topic("out", key=str, value=str).read_value() == "x"
    assert spans["send out"].context.trace_id == TRACE


def test_spans_that_wait_for_a_commit_are_bounded(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OPEN", 1)
    with driven(counting(), spans) as driver:
        pipe(driver)
    assert len(spans.finished) == 5
    assert any(OUTCOME not in (span.attributes or {}) for span in spans.finished)


def test_what_was_sealed_is_committed_and_the_rest_dropped(spans: Spans) -> None:
    task = OpenTelemetryTracing(spans.provider).of_task("app", TaskId(0, 0))
    node = SinkNode(name="out", topic="out", key=serde_for(str), value=serde_for(str), parents=())
    send = task.sink(node, "out", lambda *_: None)
    send("a", "x", 0, SAMPLED)
    task.sealed()
    send("b", "x", 0, SAMPLED)
    assert [span.name for span in spans.finished] == []
    task.committed()
    task.dropped()
    assert [(span.attributes or {})[OUTCOME] for span in spans.finished] == ["committed", "aborted"]
