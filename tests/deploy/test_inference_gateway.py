"""The chart for an inference gateway: what comes out is what the gateway, the picker and the servers know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from sdgrpc.metrics.status import ADAPTERS, NOTHING, StatusCollector
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.deploy.test_custom_resources import changed, schemas
from tests.deploy.test_helm import VARIANTS, VERSION, program, rendered, run, variables
from tools import custom_resources, go_programs, helm

__all__ = ["program"]

pytestmark = pytest.mark.timeout(1200)  # the first run builds Helm

Objects = Mapping[tuple[str, str], Mapping[str, Any]]


@pytest.fixture(scope="module")
def objects(program) -> Objects:
    """What the chart makes for an inference gateway."""
    return rendered(program, VARIANTS["inference"])


def picker(objects: Objects) -> Mapping[str, Any]:
    """The picker's container."""
    (container,) = objects["Deployment", "draw-picker"]["spec"]["template"]["spec"]["containers"]
    return container


def configuration(objects: Objects) -> Mapping[str, Any]:
    """What the picker is told."""
    return yaml.safe_load(objects["ConfigMap", "draw-picker"]["data"]["picker.yaml"])


@pytest.mark.parametrize("kind", ["InferencePool", "HTTPRoute"])
def test_the_gateway_would_take_it(objects: Objects, kind: str) -> None:
    """By the definitions that the two projects publish."""
    with schemas():
        custom_resources.check(objects[kind, "draw"])


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("InferencePool", "spec.extensionRef", {"name": "draw-picker"}),
        ("InferencePool", "spec.appProtocol", "grpc"),
        ("InferencePool", "spec.targetPorts", []),
        ("InferencePool", "spec.endpointPickerRef.port", 9002),
        ("HTTPRoute", "spec.rules.0.timeouts.request", "none"),
        ("HTTPRoute", "spec.rules.0.matches.0.path.type", "Regex"),
        ("HTTPRoute", "spec.rules.0.backends", []),
    ],
)
def test_the_gateway_would_refuse(objects: Objects, kind: str, path: str, value: object) -> None:
    """Fields that there are not, and values that they do not take."""
    with schemas(), pytest.raises(jsonschema.ValidationError):
        custom_resources.check(changed(objects[kind, "draw"], path, value))


def test_the_pool_is_the_servers(objects: Objects) -> None:
    """Their labels and their port, and the picker's service, whose pods are the picker's."""
    pool = objects["InferencePool", "draw"]["spec"]
    template = objects["Deployment", "draw"]["spec"]["template"]
    assert pool["selector"]["matchLabels"] == template["metadata"]["labels"]
    (server,) = template["spec"]["containers"]
    ports = {one["name"]: one["containerPort"] for one in server["ports"]}
    assert pool["targetPorts"] == [{"number": ports["grpc"]}]
    reference = pool["endpointPickerRef"]
    service = objects["Service", reference["name"]]["spec"]
    labels = objects["Deployment", "draw-picker"]["spec"]["template"]["metadata"]["labels"]
    assert service["selector"] == labels
    assert [one["port"] for one in service["ports"]] == [reference["port"]["number"]]
    assert f"--model-server-metrics-port={ports['metrics']}" in picker(objects)["args"]
    assert variables(objects)["SDGRPC_METRICS"].endswith(f":{ports['metrics']}")


def test_what_draws_is_picked_and_the_rest_is_not(objects: Objects) -> None:
    """Every call that draws; none has a time that ends it before the caller's."""
    service = pb.DESCRIPTOR.services_by_name["DiffusionService"]
    draws = {
        f"/{service.full_name}/{method.name}"
        for method in service.methods
        if method.output_type is pb.JobEvent.DESCRIPTOR
    }
    picked, rest = objects["HTTPRoute", "draw"]["spec"]["rules"]
    assert {one["path"]["value"] for one in picked["matches"]} == draws
    assert {one["path"]["type"] for one in picked["matches"]} == {"Exact"}
    (pool,) = picked["backendRefs"]
    assert (pool["kind"], pool["name"]) == ("InferencePool", "draw")
    (service,) = rest["backendRefs"]
    made = objects["Service", service["name"]]["spec"]
    assert [one["port"] for one in made["ports"]] == [service["port"]]
    assert made["ports"][0]["appProtocol"] == objects["InferencePool", "draw"]["spec"]["appProtocol"]
    assert made["selector"]["app.kubernetes.io/component"] == "server"
    assert [rule["timeouts"] for rule in (picked, rest)] == [{"request": "0s"}] * 2


def test_the_picker_reads_gauges_that_there_are(objects: Objects) -> None:
    """Under the names that servers give them, the adapters' with the labels that the picker looks for."""
    plugins = {one["type"]: one.get("parameters") for one in configuration(objects)["plugins"]}
    told = plugins["core-metrics-extractor"]
    (engine,) = told["engineConfigs"]
    assert told["defaultEngine"] == engine["name"]
    gauges = {one.name: one for one in StatusCollector(lambda: NOTHING).collect() if one.type == "gauge"}
    named = {engine[name] for name in engine if name.endswith("Spec")}
    assert (
        named == {"sdgrpc_jobs_waiting", "sdgrpc_jobs_running", "sdgrpc_lora_requests_info"} <= gauges.keys()
    )
    (series,) = gauges[engine["loraSpec"]].samples
    assert set(series.labels) == set(ADAPTERS)


def test_the_picker_is_the_tried_one(objects: Objects) -> None:
    """Its release is the one that the tests build and run."""
    assert picker(objects)["image"].endswith(f"/epp:{go_programs.PICKER_VERSION}")
    module, _ = custom_resources.KINDS["InferencePool"]
    assert module == f"{go_programs.PICKER_MODULE}@{go_programs.PICKER_VERSION}"


def test_the_picker_may_read_and_nothing_more(objects: Objects) -> None:
    """Pods and pools of its namespace; its network is Kubernetes, the servers' metrics and who asks it."""
    assert all(rule["verbs"] == ["get", "list", "watch"] for rule in objects["Role", "draw-picker"]["rules"])
    binding = objects["RoleBinding", "draw-picker"]
    (subject,) = binding["subjects"]
    assert (binding["roleRef"]["name"], subject["name"]) == ("draw-picker", "draw-picker")
    assert subject["namespace"] == "art"
    policy = objects["NetworkPolicy", "draw-picker"]["spec"]
    assert policy["egress"][-1]["ports"] == [{"port": 9464}]
    (_, metrics) = objects["NetworkPolicy", "draw"]["spec"]["ingress"]
    assert {"podSelector": policy["podSelector"]} in metrics["from"]


@pytest.mark.parametrize("other", ["envoy.enabled=true", "tls.existingSecret=cert"])
def test_what_does_not_go_together_is_refused(program, other: str) -> None:
    """By name, with what to do."""
    flags = [part for value in (*VARIANTS["inference"], other) for part in ("--set", value)]
    done = run(program, "template", "draw", helm.CHART, *VERSION, *flags)
    assert done.returncode != 0
    assert other.partition("=")[0] in done.stderr
    assert "inferenceGateway.enabled" in done.stderr
