"""The dashboard and the alerts: every metric they ask for is one there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamlib.metrics import COMMON_LABELS, GROUPS
from streamlib.monitoring.prometheus import exported_names

MONITORING = Path(__file__).parents[2] / "examples" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "grafana-dashboard.json").read_text())
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((MONITORING / "prometheus-alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
LABELS = {*COMMON_LABELS, *(label for _, labels in GROUPS.values() for label in labels)}
METRIC = re.compile(r"streamlib_[a-z0-9_]+")


def strings(value: Any) -> Iterator[str]:
    """Every string in a document."""
    match value:
        case str():
            yield value
        case dict():
            for each in value.values():
                yield from strings(each)
        case list():
            for each in value:
                yield from strings(each)


def expressions() -> list[str]:
    of_panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    of_variables = [each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    return [*of_panels, *of_variables, *(rule["expr"] for rule in RULES)]


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_that_is_asked_for_is_exported_at_info(expression: str) -> None:
    known = exported_names()
    names = METRIC.findall(expression)
    assert names
    for name in names:
        assert known[name].level == "INFO"
    counted = re.findall(r"(?:rate|increase)\((streamlib_[a-z0-9_]+)", expression)
    assert all(known[name].kind == "counter" for name in counted)
    assert {name for name in names if known[name].kind == "counter"} == set(counted), "a counter has to be a rate"


@pytest.mark.parametrize("expression", expressions())
def test_brackets_are_closed(expression: str) -> None:
    open_ones: list[str] = []
    for each in re.sub(r'"[^"]*"', "", expression):
        if each in "([{":
            open_ones.append({"(": ")", "[": "]", "{": "}"}[each])
        elif each in ")]}":
            assert open_ones.pop() == each
    assert not open_ones


def test_labels_that_are_shown_or_grouped_by_are_there() -> None:
    everything = "\n".join([*strings(DASHBOARD), *strings(RULES)])
    used = set(re.findall(r"\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}", everything))
    used |= {name for names in re.findall(r"by \(([a-z_, ]+)\)", everything) for name in names.split(", ")}
    assert used <= LABELS
    assert {"worker", "application_id"} <= used


def test_there_is_an_alert_for_each_thing_that_goes_wrong() -> None:
    asked = " ".join(rule["expr"] for rule in RULES)
    for name in (
        "worker_rebalance_total",
        "worker_records_lag_p99",
        "worker_stuck_partitions",
        "worker_hanging_transaction_age",
        "client_health",
    ):
        assert f"streamlib_{name}" in asked
    for rule in RULES:
        assert re.fullmatch(r"Streamlib[A-Za-z]+", rule["alert"])
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("warning", "critical")
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_panels_have_places_of_their_own() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_prometheus_loads_the_rules_that_are_there() -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    assert all((MONITORING / name).is_file() for name in config["rule_files"])
    assert config["scrape_configs"][0]["static_configs"][0]["targets"]
