"""The real endpoint picker as the chart runs it, and an Envoy that asks it, as inference gateways do."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.envoy import Envoy, started_envoy, until
from tests.support.kubernetes import cluster
from tests.support.server import environment
from tools import go_programs

Object = Mapping[str, Any]
SECONDS = 60
REFRESHED = "Refreshed metrics"


@dataclass(frozen=True)
class Known:
    """What a picker knows of a server: adapters, how many it has room for, jobs."""

    active: set[str]
    waiting: set[str]
    room: int
    running_jobs: int
    waiting_jobs: int


@dataclass(frozen=True)
class Gateway:
    """An Envoy that gives each call to the server that the picker names."""

    envoy: Envoy
    log: Path
    servers: int

    def read_anew(self) -> None:
        """Wait until the picker has begun and ended to read every server's metrics from now on."""
        before = self.log.read_text().count(REFRESHED)
        until(lambda: self.log.read_text().count(REFRESHED) >= before + 2 * self.servers + 1)

    def known(self, number: int) -> Known:
        """What the picker has read last of a server's metrics."""
        pod = f'"name":"server-{number}-rank-0"'
        lines = [line for line in self.log.read_text().splitlines() if REFRESHED in line and pod in line]
        text = lines[-1] if lines else ""
        numbers = {name: int(found) for name, found in re.findall(r"(\w+):(\d+)(?= |})", text)}
        names = {
            name: set(re.findall(r"([^\s:]+):0", found))
            for name, found in re.findall(r"(\w+):map\[(.*?)\]", text)
        }
        return Known(
            active=names.get("ActiveModels", set()),
            waiting=names.get("WaitingModels", set()),
            room=numbers.get("MaxActiveModels", 0),
            running_jobs=numbers.get("RunningRequestsSize", 0),
            waiting_jobs=numbers.get("WaitingQueueSize", 0),
        )


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as held:
        return [
            held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)
        ]


def pods(pool: Object, addresses: Sequence[str]) -> list[Object]:
    """The pods of a pool, which are ready."""
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    labels = pool["spec"]["selector"]["matchLabels"]
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"server-{number}", "namespace": "art", "labels": labels},
            "spec": {"containers": []},
            "status": {**ready, "podIP": address, "podIPs": [{"ip": address}]},
        }
        for number, address in enumerate(addresses)
    ]


def bootstrap(port: int, *, tells: bool) -> dict[str, Any]:
    """Envoy's configuration with the picker's port; `tells` is whether it sends the picker answers too."""
    made: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "gateway.yaml").read_text("utf-8"))
    resources = made["static_resources"]
    (endpoints,) = resources["clusters"][1]["load_assignment"]["endpoints"]
    endpoints["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"] = port
    if not tells:
        (manager,) = resources["listeners"][0]["filter_chains"][0]["filters"]
        mode = manager["typed_config"]["http_filters"][0]["typed_config"]["processing_mode"]
        mode |= {f"response_{part}_mode": "SKIP" for part in ("header", "trailer")}
        mode["response_body_mode"] = "NONE"
    return made


def access(folder: Path, address: str) -> Path:
    """The file that tells programs where Kubernetes is."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": address}}],
        "contexts": [{"name": "here", "context": {"cluster": "here"}}],
        "current-context": "here",
    }
    path = folder / "kubernetes.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def is_serving(port: int, service: str) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)  # type: ignore[attr-defined]
        except grpc.RpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING


@contextmanager
def gateway(
    folder: Path,
    objects: Mapping[tuple[str, str], Object],
    addresses: Sequence[str],
    ports: tuple[int, int],
    *,
    tells: bool = True,
) -> Iterator[Gateway]:
    """Run the chart's picker, and Envoy, for the block.

    Args:
        folder: an empty one, for logs and configurations.
        objects: what the chart makes.
        addresses: of the pods.
        ports: the servers' own, and of their metrics.
        tells: whether Envoy sends the picker what servers answer, as its protocol has it.

    """
    pool = {**objects["InferencePool", "draw"]}
    pool["spec"] = {**pool["spec"], "targetPorts": [{"number": ports[0]}]}
    pool["metadata"] = {**pool["metadata"], "namespace": "art"}
    (container,) = objects["Deployment", "draw-picker"]["spec"]["template"]["spec"]["containers"]
    (folder / "picker.yaml").write_text(objects["ConfigMap", "draw-picker"]["data"]["picker.yaml"])
    grpc_port, health, metrics = free_ports(3)
    told = [f"--config-file={folder}/picker.yaml", f"--model-server-metrics-port={ports[1]}", "--v=5"]
    told += [f"--grpc-port={grpc_port}", f"--grpc-health-port={health}", f"--metrics-port={metrics}"]
    log = folder / "picker.log"
    with cluster([pool, *pods(pool, addresses)]) as kubernetes, log.open("w") as sink:
        told_by = {**environment(), "KUBECONFIG": str(access(folder, kubernetes.address))}
        command = [go_programs.install_picker(), *container["args"], *told]
        with subprocess.Popen(command, stdout=sink, stderr=sink, env=told_by) as process:
            try:
                service = container["readinessProbe"]["grpc"]["service"]
                until(lambda: process.poll() is not None or is_serving(health, service), SECONDS)
                assert process.poll() is None, log.read_text()
                until(lambda: f'"ext-proc","port":{grpc_port}' in log.read_text())
                with started_envoy(folder, bootstrap(grpc_port, tells=tells)) as envoy:
                    yield Gateway(envoy, log, len(addresses))
            finally:
                process.terminate()
                process.wait(SECONDS)
