"""The manifests: their parts fit each other and the node, and the schemas of Kubernetes accept them.

No cluster runs here: see docs/kubernetes.md for what was not tried.
"""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from kinfolk import new_cookie
from kinfolk.cli.run import run
from kinfolk.node import CLOSE_TIMEOUT
from kinfolk.settings import Settings, resolve

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
OBJECTS: dict[str, dict[str, Any]] = {
    found["kind"]: found for path in MANIFESTS for found in yaml.safe_load_all(path.read_text())
}
SERVICE, SECRET, SET = OBJECTS["Service"], OBJECTS["Secret"], OBJECTS["StatefulSet"]
POD = SET["spec"]["template"]
[NODE] = POD["spec"]["containers"]
ENV = {entry["name"]: entry for entry in NODE["env"]}
IP = "10.1.2.3"


def environment(cookie: str, home: Path) -> dict[str, str]:
    """What the node sees, as Kubernetes fills it in."""
    filled = {"POD_IP": IP, "KINFOLK_HOME": str(home)}
    for name, entry in ENV.items():
        if "value" in entry:
            value = entry["value"]
            for known, text in filled.items():
                value = value.replace(f"$({known})", text)
            filled[name] = value
        elif "secretKeyRef" in entry["valueFrom"]:
            filled[name] = cookie if name == "KINFOLK_COOKIE" else "0" * 32
    return filled


def settings(tmp_path: Path, cookie: str) -> Settings:
    listen = NODE["args"][NODE["args"].index("--listen") + 1]
    return resolve(listen=listen, environ=environment(cookie, tmp_path), directory=tmp_path)


def test_the_node_gets_the_settings_that_it_needs(tmp_path: Path):
    known = settings(tmp_path, new_cookie())
    assert known.name == f"kinfolk@{IP}:4370" and str(known.listen) == "0.0.0.0:4370"
    assert known.discover == (f"dns://{SERVICE['metadata']['name']}:4370",)
    assert environment("", tmp_path)["KINFOLK_NODE"] == known.name


def test_the_template_of_the_secret_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="a free-text cookie can be guessed"):
        settings(tmp_path, SECRET["stringData"]["cookie"])
    assert len(SECRET["stringData"]["metrics-token"]) < importlib.import_module("kinfolk.web").MIN_TOKEN


def test_the_service_leads_to_the_pods_before_they_are_ready():
    assert SERVICE["spec"]["clusterIP"] == "None" and SERVICE["spec"]["publishNotReadyAddresses"] is True
    assert SET["spec"]["serviceName"] == SERVICE["metadata"]["name"]
    labels = POD["metadata"]["labels"].items()
    selectors = [SERVICE["spec"]["selector"], SET["spec"]["selector"]["matchLabels"]]
    selectors.append(OBJECTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"])
    assert all(selector.items() <= labels for selector in selectors)
    ports = {port["name"]: port["containerPort"] for port in NODE["ports"]}
    assert {port["targetPort"]: port["port"] for port in SERVICE["spec"]["ports"]} == ports


def test_every_secret_that_is_used_is_there():
    used = [
        entry["valueFrom"]["secretKeyRef"] for entry in ENV.values() if "secretKeyRef" in entry.get("valueFrom", {})
    ]
    assert {one["key"] for one in used} == SECRET["stringData"].keys()
    assert {one["name"] for one in used} == {SECRET["metadata"]["name"]}


def test_the_pod_has_time_to_drain_and_close(tmp_path: Path):
    drain = settings(tmp_path, new_cookie()).drain_timeout
    assert POD["spec"]["terminationGracePeriodSeconds"] >= drain + 2 * CLOSE_TIMEOUT
    assert NODE["lifecycle"]["preStop"]["exec"]["command"] == ["kinfolk", "drain"]


def test_the_command_and_the_files_of_the_image_are_there():
    container = (DEPLOY / "Containerfile").read_text()
    assert "COPY deploy/app /app" in container and "WORKDIR /app" in container
    assert NODE["args"][0] == run.__name__ and (DEPLOY / "app" / "main.py").exists()
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        python, script, page = NODE[probe]["exec"]["command"]
        assert python == "python" and (DEPLOY / "app" / script).exists() and page in ("healthz", "readyz")
    user = f"USER {POD['spec']['securityContext']['runAsUser']}:{POD['spec']['securityContext']['runAsGroup']}"
    assert user in container and POD["spec"]["securityContext"]["runAsNonRoot"] is True


@pytest.mark.slow
@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
def test_the_schemas_of_kubernetes_accept_the_manifests_and_nothing_unknown_stands_in_them(kind: str, version: str):
    schemas: Any = importlib.import_module("kubernetes_validate")
    schemas.validate(OBJECTS[kind], version, strict=True)
    broken = {**OBJECTS[kind], "spek": {}}
    with pytest.raises(schemas.ValidationError):
        schemas.validate(broken, version, strict=True)
