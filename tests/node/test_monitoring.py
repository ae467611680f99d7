"""The alert rules and the dashboard: what they ask for is what a node exports, and Prometheus accepts them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from kinfolk.counters import DROPPED
from kinfolk.metrics import LoopLag, NodeCollector
from tests.node.nodes import Nodes, until

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "kinfolk.json").read_text())
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
]
METRIC = re.compile(r"\bkinfolk_\w+")
LABELS = re.compile(r"\b(kinfolk_\w+)\{([^}]*)\}")
OF_THE_SCRAPE = {"instance", "job"}
"""Labels that Prometheus adds."""


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in RULES)
    yield from (target["expr"] for panel in panels() for target in panel["targets"])
    yield from (variable["definition"] for variable in DASHBOARD["templating"]["list"] if "definition" in variable)


async def exported(nodes: Nodes) -> dict[str, set[str]]:
    """Every sample that a node with a peer exports, by its name, with its labels."""
    ada, bob = await nodes.mesh("ada", "bob")
    await until(lambda: ada.traffic()[bob.name].round_trip is not None)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(ada, LoopLag()))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


async def test_every_metric_and_label_that_is_asked_for_is_one_that_a_node_exports(nodes: Nodes):
    there = await exported(nodes)
    asked = {name for text in expressions() for name in METRIC.findall(text)}
    assert asked <= there.keys(), asked - there.keys()
    for text in expressions():
        for name, labels in LABELS.findall(text):
            assert set(re.findall(r"(\w+)\s*[=!]", labels)) <= there[name] | OF_THE_SCRAPE, text
        for reason in re.findall(r'reason[=!]~?"([^"]*)"', text):
            assert set(reason.split("|")) <= DROPPED.keys()


async def test_the_dashboard_shows_every_metric_of_links_names_and_messages(nodes: Nodes):
    """What none of its panels shows is a counter that is worth a look only when something else is wrong."""
    shown = {name for text in expressions() for name in METRIC.findall(text)}
    missing = {name for name in await exported(nodes) if not name.endswith("_total")} - shown
    assert missing == set()


def test_the_panels_have_numbers_of_their_own_and_stand_beside_each_other():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


def test_the_rules_say_what_is_wrong_and_what_to_look_at():
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))


@pytest.mark.slow
def test_prometheus_accepts_the_rules(tmp_path: Path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install --no-install-recommends prometheus)")
    done = subprocess.run([promtool, "check", "rules", str(ALERTS)], capture_output=True, text=True)
    assert done.returncode == 0 and f"{len(RULES)} rules found" in done.stdout, done.stderr
    broken = tmp_path / "broken.yml"
    broken.write_text(ALERTS.read_text().replace("kinfolk_ready == 0", "kinfolk_ready == ("))
    assert subprocess.run([promtool, "check", "rules", str(broken)], capture_output=True).returncode != 0
    for expression in (target["expr"] for panel in panels() for target in panel["targets"]):
        # What Grafana fills in; promtool reads an expression as part of a rule.
        filled = expression.replace("$__rate_interval", "5m").replace("$instance", ".*")
        one = tmp_path / "one.yml"
        one.write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": [{"record": "x", "expr": filled}]}]}))
        done = subprocess.run([promtool, "check", "rules", str(one)], capture_output=True, text=True)
        assert done.returncode == 0, f"{expression}: {done.stdout}{done.stderr}"
