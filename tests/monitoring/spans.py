"""What a tracer provider was told, and headers of others."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler

from streamlib.records import Headers

TRACE = 0x0AF7651916CD43DD8448EB211C80319C


def header(span_id: int, *, trace_id: int = TRACE, flags: int = 1) -> Headers:
    """What somebody else's span puts into a record."""
    return (("traceparent", f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}".encode()),)


class Spans:
    """Those that are over."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler or ParentBased(ALWAYS_ON), shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def finished(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def __getitem__(self, name: str) -> ReadableSpan:
        (found,) = (span for span in self.finished if span.name == name)
        return found

    def tree(self) -> dict[str, str | None]:
        """Each span's name, and that of the one it belongs to; None if that is not ours."""
        return self.of(self.finished)

    @staticmethod
    def of(finished: Sequence[ReadableSpan]) -> dict[str, str | None]:
        """The tree of some spans."""
        names = {span.context.span_id: span.name for span in finished}
        assert len(names) == len(set(names.values())), "two spans of one name"
        return {span.name: None if span.parent is None else names.get(span.parent.span_id) for span in finished}
