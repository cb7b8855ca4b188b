"""A report on a terminal, or in a log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from streamlib.verify.hanging import OpenTransaction
from streamlib.verify.report import Example, InputReport, Report, TopicReport, Verdict

_VERDICTS = {
    Verdict.HOLDS: "exactly once: it holds",
    Verdict.VIOLATED: "exactly once: IT DOES NOT HOLD",
    Verdict.UNKNOWN: "exactly once: cannot tell",
}


def show(report: Report, console: Console) -> None:
    """Print it; the verdict comes last."""
    if report.inputs:
        console.print(_inputs(report.inputs))
    if report.topics:
        console.print(_topics(report.topics))
    for topic in report.topics:
        _print_lines(console, topic.topic, (*map(_example, topic.examples), *map(_why, topic.reasons)))
    if report.transactions:
        _print_lines(console, "open transactions", map(_transaction, report.transactions))
    for reason in report.reasons:
        _print(console, reason)
    for note in report.notes:
        _print(console, f"note: {note}")
    console.print(_verdict(report), style="bold", soft_wrap=True, highlight=False)


def _verdict(report: Report) -> str:
    hanging = len(report.hanging)
    if hanging and not any(topic.violated for topic in report.topics):
        return f"{hanging} hanging transaction{'s' if hanging > 1 else ''}"
    return _VERDICTS[report.verdict]


def _inputs(inputs: Iterable[InputReport]) -> Table:
    """By topic: what is processed of it."""
    table = Table("input", "partitions", "processed", "lag", title="inputs", title_justify="left")
    by_topic: dict[str, list[InputReport]] = defaultdict(list)
    for each in inputs:
        by_topic[each.topic].append(each)
    for topic, partitions in by_topic.items():
        processed = sum(each.processed - each.start for each in partitions)
        table.add_row(topic, str(len(partitions)), f"{processed:,}", f"{sum(each.lag for each in partitions):,}")
    return table


def _topics(topics: Iterable[TopicReport]) -> Table:
    table = Table(title="what is written", title_justify="left")
    for heading in ("topic", "kind", "expected", "found", "missing", "extra", "different", "cannot tell", "compared"):
        table.add_column(heading, overflow="fold")
    for topic in topics:
        extra = topic.duplicates + topic.unexpected
        counts = (topic.expected, topic.found, topic.missing, extra, topic.different, topic.undecided)
        table.add_row(topic.topic, topic.kind, *(f"{count:,}" for count in counts), _compared(topic))
    return table


def _compared(topic: TopicReport) -> str:
    if len(topic.compared) == 1:
        return next(iter(topic.compared))
    return ", ".join(f"{name}: {count:,} keys" for name, count in topic.compared.items())


def _example(example: Example) -> str:
    """`duplicate: partition 1, offset 7: 'ann' = 3, from topic orders, partition 0, offset 4`."""
    place = "" if example.partition is None else f" partition {example.partition}"
    place += "" if example.offset is None else f", offset {example.offset}"
    words = [f"{example.kind}{'' if example.certain else ' (cannot tell)'}:{place}: {example.key} = {_values(example)}"]
    if example.change is not None:
        words.append(example.change)
    if example.input is not None:
        words.append(f"from {example.input.topic}, partition {example.input.partition}, offset {example.input.offset}")
    return ", ".join(words)


def _values(example: Example) -> str:
    if example.found is None or example.expected is None or example.expected == example.found:
        return str(example.expected if example.found is None else example.found)
    return f"{example.found} instead of {example.expected}"


def _why(reason: str) -> str:
    return f"because: {reason}"


def _transaction(each: OpenTransaction) -> str:
    name = each.transactional_id or f"producer {each.producer_id}"
    age = "since nobody knows when" if each.age_ms is None else f"for {each.age_ms / 1000:,.1f} s"
    line = f"{each.topic}-{each.partition} from offset {each.start_offset}: {name}, {age}"
    return line if each.hanging is None else f"{line}: HANGING, {each.hanging}; {each.advice}"


def _print_lines(console: Console, heading: str, lines: Iterable[str]) -> None:
    shown: Sequence[str] = list(lines)
    if shown:
        _print(console, f"{heading}:")
    for line in shown:
        _print(console, f"  {line}")


def _print(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False, highlight=False)
