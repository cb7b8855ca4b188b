"""The manifests in examples/kubernetes fit each other and streamlib: settings, commands, probes, volumes, times."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamlib import StreamsConfig
from streamlib.config import read_environment
from tests.docs.blocks import PAGES, ROOT, fenced
from tests.docs.test_pages import check_settings_in

MANIFESTS = sorted((ROOT / "examples" / "kubernetes").glob("*.yaml"))
LONGEST_STOP_S = 28  # docs/pages/rebalancing.md: hand-over, last commit, last abort, leaving


def documents(manifest: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(manifest.read_text()) if each]


def workload(manifest: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pods' specification and its only container."""
    found = next(each for each in documents(manifest) if each["kind"] in ("StatefulSet", "Deployment"))
    pod: dict[str, Any] = found["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def environment(manifest: Path) -> dict[str, str]:
    """Of the container, with files of secrets left out: they are not here."""
    maps = {each["metadata"]["name"]: each["data"] for each in documents(manifest) if each["kind"] == "ConfigMap"}
    _, container = workload(manifest)
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= maps[source["configMapRef"]["name"]]
    found |= {each["name"]: each.get("value", "orders-0") for each in container["env"]}
    return {name: value for name, value in found.items() if not name.endswith(("_PASSWORD_FILE", "_TOKEN_FILE"))}


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_settings_and_commands_exist(manifest: Path) -> None:
    check_settings_in(documents(manifest))
    settings = read_environment(environment(manifest), "STREAMLIB_")
    if "sasl_username" in settings:
        settings["sasl_password"] = "in a file"
    config = StreamsConfig.load(settings, env={})
    assert config.processing_guarantee == "exactly_once_v2"
    _, container = workload(manifest)
    assert config.rocksdb_memory_bytes < bytes_of(container["resources"]["limits"]["memory"]) / 2


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_pods_stop_in_good_order_and_are_probed_where_it_answers(manifest: Path) -> None:
    pod, container = workload(manifest)
    assert pod["terminationGracePeriodSeconds"] > LONGEST_STOP_S
    assert container["command"][0] == "streamlib"  # no shell: it has to get SIGTERM
    command = container["command"]
    served = {
        option: int(command[command.index(f"--{option}") + 1].rpartition(":")[2])
        for option in ("metrics", "web")
        if f"--{option}" in command
    }
    assert {each["name"]: each["containerPort"] for each in container["ports"]} == served
    probes = {each: container[f"{each}Probe"]["httpGet"] for each in ("readiness", "liveness")}
    assert {each["port"] for each in probes.values()} == {"metrics"}
    assert [probes["readiness"]["path"], probes["liveness"]["path"]] == ["/ready", "/health"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_state_is_on_a_volume_that_is_there(manifest: Path) -> None:
    pod, container = workload(manifest)
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    sets = [each["spec"] for each in documents(manifest) if each["kind"] == "StatefulSet"]
    claims = {claim["metadata"]["name"] for each in sets for claim in each["volumeClaimTemplates"]}
    assert mounts[environment(manifest)["STREAMLIB_STATE_DIR"]] in claims | {each["name"] for each in pod["volumes"]}
    assert set(mounts.values()) <= claims | {each["name"] for each in pod["volumes"]}


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_selectors_find_the_pods(manifest: Path) -> None:
    everything = documents(manifest)
    labels = workload_labels(everything)
    for each in everything:
        selector = each.get("spec", {}).get("selector")
        if selector:
            assert selector.get("matchLabels", selector) == labels


def workload_labels(everything: list[dict[str, Any]]) -> dict[str, str]:
    labels: dict[str, str] = next(
        each["spec"]["template"]["metadata"]["labels"]
        for each in everything
        if each["kind"] in ("StatefulSet", "Deployment")
    )
    return labels


def test_the_page_shows_what_is_in_the_manifest() -> None:
    manifest = (ROOT / "examples" / "kubernetes" / "orders.yaml").read_text()
    blocks = [block for block in fenced(PAGES / "kubernetes.md") if block.language == "yaml"]
    assert blocks
    for block in blocks:
        assert block.code.strip() in manifest


def bytes_of(quantity: str) -> int:
    match = re.fullmatch(r"(\d+)(Mi|Gi)", quantity)
    assert match is not None
    return int(match.group(1)) << {"Mi": 20, "Gi": 30}[match.group(2)]
