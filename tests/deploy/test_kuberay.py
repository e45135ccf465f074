"""The cluster of deploy/kuberay: KubeRay and Kubernetes would take it, and it fits the program."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Mapping
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from sdgrpc.settings import Settings
from tests.deploy.test_custom_resources import changed, schemas
from tests.deploy.test_helm import KUBERNETES
from tools import custom_resources, helm

FOLDER = helm.ROOT / "deploy/kuberay"
OBJECTS = {one["kind"]: one for one in yaml.safe_load_all((FOLDER / "raycluster.yaml").read_text())}
SPEC = OBJECTS["RayCluster"]["spec"]
HEAD = SPEC["headGroupSpec"]["template"]["spec"]
(WORKERS,) = SPEC["workerGroupSpecs"]


def container(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """The only one of a pod."""
    (one,) = pod["containers"]
    return one


def settings() -> Settings:
    """What the front door is told."""
    said = {one["name"]: one["value"] for one in container(HEAD)["env"] if "value" in one}
    prefix = "SDGRPC_"
    chosen = {
        name.removeprefix(prefix).lower(): value for name, value in said.items() if name.startswith(prefix)
    }
    assert set(chosen) <= set(Settings.model_fields)
    assert chosen.pop("lora_dir") in [one["mountPath"] for one in container(HEAD)["volumeMounts"]]
    return Settings(**chosen, cluster="127.0.0.1:6379")


def test_kuberay_would_take_it() -> None:
    """By the definition of its operator, pods included."""
    with schemas():
        custom_resources.check(OBJECTS["RayCluster"])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.headGroupSpec.template.spec.containers.0.enw", []),
        ("spec.workerGroupSpecs.0.replicas", "2"),
        ("spec.headGroupSpec.rayStartParams.num-cpus", 0),
    ],
)
def test_kuberay_would_refuse(path: str, value: object) -> None:
    """A field that there is not, and values of another type."""
    with schemas(), pytest.raises(jsonschema.ValidationError):
        custom_resources.check(changed(OBJECTS["RayCluster"], path, value))


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("kind", ["Service", "NetworkPolicy"])
def test_kubernetes_would_take_the_rest(kind: str, version: str) -> None:
    """By its own schemas."""
    kubernetes_validate.validate(OBJECTS[kind], version, strict=True)


def test_there_is_a_worker_for_each_replica() -> None:
    """With the CPUs that one asks Ray for, and none on the front door's node."""
    chosen = settings()
    assert chosen.replica_range == (WORKERS["replicas"], WORKERS["maxReplicas"])
    limits = container(WORKERS["template"]["spec"])["resources"]["limits"]
    assert int(limits["cpu"]) == chosen.replica_cpus
    assert SPEC["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_a_pod_has_time_to_drain() -> None:
    """Workers as well, since they are deleted with the front door."""
    chosen = settings()
    for pod in (HEAD, WORKERS["template"]["spec"]):
        assert pod["terminationGracePeriodSeconds"] == chosen.drain_delay + chosen.drain_timeout + 10


def test_ray_asks_for_a_token() -> None:
    """The same one in every pod, out of a Secret."""
    for pod in (HEAD, WORKERS["template"]["spec"]):
        told = {one["name"]: one for one in container(pod)["env"]}
        assert told["RAY_AUTH_MODE"]["value"] == "token"
        (token,) = told["RAY_AUTH_TOKEN"]["valueFrom"].values()
        assert token == {"name": "sdgrpc-ray", "key": "token"}


def test_ray_is_the_extras() -> None:
    """The image's release and the manifest's are one that sdgrpc[cluster] takes."""
    dockerfile = (FOLDER / "Dockerfile").read_text()
    (tag,) = re.findall(r"^FROM rayproject/ray:([\d.]+)-py311$", dockerfile, re.MULTILINE)
    assert tag == SPEC["rayVersion"]
    extra = tomllib.loads((helm.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (wanted,) = (one for one in extra["cluster"] if one.startswith("ray["))
    assert f">={tag.rpartition('.')[0]}," in wanted


def test_commands_start_ray_before_the_server() -> None:
    """Bash runs them: `ray start` as KubeRay made it, then the server on that Ray in the shell's place."""
    (script,) = container(HEAD)["args"]
    stand_in = "ulimit() { :; }; ray() { echo ray $*; }; exec() { echo exec $*; }\n"
    environment = {
        "PATH": "/usr/bin:/bin",
        "KUBERAY_GEN_RAY_START_CMD": "echo ray start --head",
        "RAY_ADDRESS": "127.0.0.1:6379",
    }
    command = [*container(HEAD)["command"], stand_in + script + "\nwait"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()) == {
        "ray start --head",
        "ray health-check --address 127.0.0.1:6379",
        "exec sdgrpc serve --cluster 127.0.0.1:6379",
    }


def test_the_service_finds_the_front_door() -> None:
    """Its labels and its port; nobody but Ray's own pods and its operator reaches every port."""
    service = OBJECTS["Service"]["spec"]
    labels = SPEC["headGroupSpec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    ports = {one["name"]: one["containerPort"] for one in container(HEAD)["ports"]}
    assert str(settings().listen).endswith(str(ports[service["ports"][0]["targetPort"]]))
    everything, *_ = OBJECTS["NetworkPolicy"]["spec"]["ingress"]
    assert [one["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for one in everything["from"]] == [
        "sdgrpc",
        "kuberay-operator",
    ]
