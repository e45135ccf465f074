"""The chart, rendered by the real Helm: what comes out is Kubernetes', and fits the program that it runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from sdgrpc.api.listener import DIFFUSION
from sdgrpc.settings import described_settings
from tools import helm

KUBERNETES = ("1.35.0", "1.37.0")
VERSION = ("--kube-version", KUBERNETES[0])
OTHERS = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "InferencePool", "HTTPRoute"}
"""Kinds of other projects, of which Kubernetes has no schema."""

VARIANTS: Mapping[str, Sequence[str]] = {
    "as it comes": [],
    "stateful": ["workload=StatefulSet", "cache.storageClass=fast", "envoy.enabled=false"],
    "tls": [
        "envoy.enabled=false",
        "tls.existingSecret=cert",
        "tls.clientCaKey=ca.crt",
        "tokens.existingSecret=who",
    ],
    "volumes": ["models.existingClaim=m", "loras.existingClaim=l", "uploads.existingClaim=u", "image.tag=v7"],
    "hpa": ["autoscaling.kind=hpa"],
    "keda": [
        "autoscaling.kind=keda",
        "metrics.serviceMonitor=true",
        "metrics.rules=true",
        "metrics.labels.a=b",
    ],
    "settings": [
        "settings.max_steps=30",
        "settings.model={a=embedded,b=embedded}",
        "settings.batching=false",
    ],
    "open": ["networkPolicy.enabled=false", "podDisruptionBudget.enabled=false"],
    "placed": [
        "nodeSelector.gpu=yes",
        "priorityClassName=high",
        "networkPolicy.hub=true",
        "podLabels.team=art",
    ],
    "inference": ["envoy.enabled=false", "inferenceGateway.enabled=true"],
}

pytestmark = pytest.mark.timeout(1200)  # the first run builds Helm

Objects = Mapping[tuple[str, str], Mapping[str, Any]]


@pytest.fixture(scope="module")
def program() -> Path:
    """The real Helm, built once."""
    if not helm.BINARY.exists():
        if os.environ.get("SDGRPC_REQUIRE_ALL") != "1":
            pytest.skip(
                "builds Helm for minutes: SDGRPC_REQUIRE_ALL=1 does, and so does python -m tools.helm --build"
            )
        if shutil.which("go") is None:
            pytest.fail("SDGRPC_REQUIRE_ALL=1 needs Go, to build Helm")
    return helm.install()


def run(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def rendered(program: Path, values: Sequence[str]) -> Objects:
    """What is made for some values: by kind and name."""
    flags = [part for value in values for part in ("--set", value)]
    done = run(program, "template", "draw", helm.CHART, "--namespace", "art", *VERSION, *flags)
    assert done.returncode == 0, done.stderr
    made = [one for one in yaml.safe_load_all(done.stdout) if one]
    return {(one["kind"], one["metadata"]["name"]): one for one in made}


@pytest.fixture(scope="module", params=VARIANTS, ids=list(VARIANTS))
def variant(request, program: Path) -> Objects:
    """The objects of one set of values."""
    return rendered(program, VARIANTS[request.param])


def pods(objects: Objects) -> list[Mapping[str, Any]]:
    """The specifications of pods."""
    kinds = ("Deployment", "StatefulSet")
    return [one["spec"]["template"]["spec"] for (kind, _), one in objects.items() if kind in kinds]


def server(objects: Objects) -> Mapping[str, Any]:
    """The servers' container."""
    return next(one for pod in pods(objects) for one in pod["containers"] if one["name"] == "server")


def variables(objects: Objects) -> dict[str, str]:
    return {one["name"]: one["value"] for one in server(objects)["env"]}


def test_lint_finds_nothing(program: Path) -> None:
    """Warnings included."""
    done = run(program, "lint", "--strict", *VERSION, helm.CHART)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_would_take_it(variant: Objects, version: str) -> None:
    """By the schemas of its own interface, where a field that there is not is an error."""
    for (kind, _), one in variant.items():
        if kind not in OTHERS:
            kubernetes_validate.validate(one, version, strict=True)


def test_every_variable_is_a_setting(variant: Objects) -> None:
    """And has a value that the server would take."""
    known = {one.variable for one in described_settings()}
    assert {name for name in variables(variant) if name.startswith("SDGRPC_")} <= known


def test_pods_have_no_rights(variant: Objects) -> None:
    """No root, no root to write to, no capability; a token of the cluster's has the picker alone."""
    for pod in pods(variant):
        assert pod["automountServiceAccountToken"] is (pod["containers"][0]["name"] == "picker")
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            context = container["securityContext"]
            assert (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"]) == (True, False)
            assert context["capabilities"] == {"drop": ["ALL"]}


def test_probes_ask_what_there_is(variant: Objects) -> None:
    """The service whose health turns once models are there; by the program itself where TLS is on."""
    container = server(variant)
    probe = container["readinessProbe"]
    if "SDGRPC_TLS_CERTIFICATE" in variables(variant):
        assert probe["exec"]["command"][:2] == ["sdgrpc", "health"]
    else:
        assert probe["grpc"] == {"port": 50051, "service": DIFFUSION}
        assert container["startupProbe"]["grpc"] == probe["grpc"]
        assert "service" not in container["livenessProbe"]["grpc"]


def test_a_pod_has_time_to_drain(variant: Objects) -> None:
    """What the server is told to wait, and some seconds in which it ends in any case."""
    said = variables(variant)
    least = int(said["SDGRPC_DRAIN_DELAY"]) + int(said["SDGRPC_DRAIN_TIMEOUT"])
    assert all(pod["terminationGracePeriodSeconds"] >= least + 5 for pod in pods(variant))


def test_paths_and_user_are_the_images(variant: Objects) -> None:
    """Folders and user of the Dockerfile, and no folder that is written to but the mounted ones."""
    dockerfile = (helm.ROOT / "Dockerfile").read_text()
    mounts = {one["mountPath"]: one for one in server(variant)["volumeMounts"]}
    assert {"/models", "/loras", "/cache", "/tmp"} <= mounts.keys()  # noqa: S108 - the image's
    assert re.search(r"install -d .*/models /loras /cache", dockerfile)
    assert "--uid 10001" in dockerfile
    for name, value in variables(variant).items():
        if name.startswith("SDGRPC_") and value.startswith("/"):
            assert any(Path(value).is_relative_to(mount) for mount in mounts), name


def test_settings_reach_the_server(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the program reads them: numbers, switches and lists."""
    from sdgrpc.settings import Settings

    for name, value in variables(rendered(program, VARIANTS["settings"])).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SDGRPC_CACHE_DIR")  # of the image
    settings = Settings.load(None)
    assert (settings.max_steps, settings.batching, settings.drain_delay) == (30, False, 6)
    assert [name for name, _ in settings.models] == ["a", "b"]


def test_envoy_is_the_tried_one(program: Path) -> None:
    """Its files are deploy/envoy's but for the servers' name, which is the headless service's."""
    objects = rendered(program, [])
    data = objects["ConfigMap", "draw-envoy"]["data"]
    tried = {
        name: yaml.safe_load(path.read_text()) for name, path in helm.COPIES.items() if "rules" not in name
    }
    servers = yaml.safe_load(data["servers.yaml"])
    (endpoint,) = servers["resources"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"]
    host = endpoint["endpoint"]["address"]["socket_address"]["address"]
    assert host == "draw-servers.art.svc.cluster.local"
    assert objects["Service", "draw-servers"]["spec"]["clusterIP"] == "None"
    for cluster, same in zip(servers["resources"], tried["servers.yaml"]["resources"], strict=True):
        assert {**cluster, "load_assignment": 0} == {**same, "load_assignment": 0}
    assert yaml.safe_load(data["routes.yaml"]) == tried["routes.yaml"]
    assert objects["Service", "draw"]["spec"]["selector"]["app.kubernetes.io/component"] == "envoy"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("replica=3", "replica"),
        ("workload=DaemonSet", "workload"),
        ("autoscaling.kind=on", "kind"),
        ("tls.existingSecret=cert", "envoy.enabled"),
    ],
)
def test_wrong_values_are_refused(program: Path, value: str, said: str) -> None:
    """By name, before anything is installed."""
    done = run(program, "template", "draw", helm.CHART, *VERSION, "--set", value)
    assert done.returncode != 0
    assert said in done.stderr


def test_scaling_asks_for_metrics_that_there_are(program: Path) -> None:
    """Of the servers' own pods, and nothing fixes their number beside it."""
    hpa = rendered(program, VARIANTS["hpa"])
    (metric,) = hpa["HorizontalPodAutoscaler", "draw"]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == "sdgrpc_jobs_waiting"
    assert "replicas" not in hpa["Deployment", "draw"]["spec"]
    keda = rendered(program, VARIANTS["keda"])
    (trigger,) = keda["ScaledObject", "draw"]["spec"]["triggers"]
    assert trigger["metadata"]["query"].startswith("sum(sdgrpc_jobs_waiting{")
    assert len(keda["PrometheusRule", "draw"]["spec"]["groups"][0]["rules"]) == 9
    monitor = keda["ServiceMonitor", "draw"]["spec"]
    labels = keda["Service", "draw-servers"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()


def test_every_value_is_documented() -> None:
    """A sentence for each; and what is made from the values is fresh."""
    text = (helm.CHART / "values.yaml").read_text()
    assert not [name for name, _, comment in helm.leaves(yaml.safe_load(text), text) if not comment]
    for path, made in helm.files().items():
        assert path.read_text("utf-8") == made, path.name


def test_the_schemas_do_refuse() -> None:
    """What Kubernetes does not know is an error of the check above."""
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"portz": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, KUBERNETES[0], strict=True)
