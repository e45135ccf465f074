"""The pods of deploy/kuberay as they are run: their scripts, the real Ray, and what SIGTERM does to them."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from sdgrpc.client import Client, Progress
from tests.deploy.test_kuberay import HEAD, SPEC, WORKERS, container
from tests.support.assets import LORAS
from tests.support.envoy import until
from tests.support.server import LISTENING, environment

SECONDS = 120
ADDRESS_OF = {"head": "127.0.0.1", "worker": "127.0.0.2"}
"""Loopback's names stand in for the pods' addresses."""
GRACE = {"SDGRPC_DRAIN_DELAY": "1", "SDGRPC_DRAIN_TIMEOUT": "60"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def namespace() -> list[str]:
    """The command that gives a program processes of its own, which end with it, as a container does."""
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("this system gives nobody but its own root a process namespace")
    return command


def variables(pod: Mapping[str, Any]) -> dict[str, str]:
    """What the manifest says."""
    return {one["name"]: one["value"] for one in container(pod)["env"] if "value" in one}


class Pod:
    """A pod's container, its first process told apart from `unshare`, which waits for it."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log

    def first(self) -> psutil.Process:
        """Process 1 of the container."""
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def processes(self) -> list[psutil.Process]:
        """All that run in it."""
        return self.first().children(recursive=True)

    def says(self, pattern: str) -> re.Match[str] | None:
        return re.search(pattern, self.log.read_text("utf-8"), re.MULTILINE)


@contextmanager
def running(pod: Mapping[str, Any], folder: Path, name: str, more: Mapping[str, str]) -> Iterator[Pod]:
    """Run the very command of a pod, with its variables and others that name ports and folders."""
    one = container(pod)
    told = {**environment(), **variables(pod), **more}
    told["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{told['PATH']}"
    log = folder / f"{name}.log"
    with log.open("wb") as sink:
        command = [*namespace(), *one["command"], *one["args"]]
        process = subprocess.Popen(command, env=told, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    try:
        yield Pod(process, log)
    finally:
        process.kill()  # unshare, whose child and the child's are then killed
        process.wait(SECONDS)


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[tuple[Pod, Pod]]:
    """The head's pod and a worker's, with what KubeRay and Kubernetes tell them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with ExitStack() as held:
        temporary = held.enter_context(tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True))
        told = {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_ADDRESS": address, **GRACE}
        told |= {"SDGRPC_LISTEN": "127.0.0.1:0", "SDGRPC_METRICS": "127.0.0.1:0"}
        told |= {"SDGRPC_LORA_DIR": str(LORAS), "SDGRPC_REPLICAS": "1", "SDGRPC_REPLICA_CPUS": "1"}

        def start(kind: str, *flags: str) -> str:
            common = ["--node-ip-address", ADDRESS_OF[kind], "--temp-dir", temporary, "--block"]
            return " ".join(["ray start", *flags, *common])

        cpus = SPEC["headGroupSpec"]["rayStartParams"]["num-cpus"]
        flags = ("--head", "--port", address.rpartition(":")[2], "--include-dashboard=false")
        head = start("head", *flags, "--num-cpus", cpus)
        worker = start("worker", "--address", address, "--num-cpus", "1")
        generated = "KUBERAY_GEN_RAY_START_CMD"
        front = held.enter_context(running(HEAD, tmp_path, "head", {**told, generated: head}))
        until(lambda: front.says("Ray runtime started") is not None, SECONDS)
        behind = WORKERS["template"]["spec"]
        replica = held.enter_context(running(behind, tmp_path, "worker", {**told, generated: worker}))
        yield front, replica


def names(pod: Pod) -> set[str]:
    """The programs that run in a pod."""
    return {one.name() for one in pod.processes()}


def test_the_pods_draw_and_end_as_they_should(pods: tuple[Pod, Pod]) -> None:
    """The door waits for Ray, draws in the worker's pod, and at SIGTERM ends its job before Ray goes."""
    front, behind = pods
    until(lambda: front.says(f"^{LISTENING}") is not None, SECONDS)
    target = front.says(f"^{LISTENING}(.*)$")[1].strip()
    assert "serve" in front.first().cmdline()  # the server is in the shell's place
    assert {"gcs_server", "raylet"} <= names(front)
    with Client(target) as client:
        assert client.generate("a", loras=["postcard:0.5"], steps=2).images()
        assert any("Replica" in " ".join(one.cmdline()) for one in behind.processes())
        job = client.generate("a", steps=40, width=256, height=256)
        assert next(event for event in job if isinstance(event, Progress)).step < 40
        held = front.processes()
        front.first().send_signal(signal.SIGTERM)
        assert job.images()
    assert front.process.wait(SECONDS) == 0
    psutil.wait_procs(held, timeout=SECONDS)
    assert not [one for one in held if one.is_running()]
    first = behind.first()
    first.send_signal(signal.SIGTERM)
    behind.process.wait(SECONDS)
    assert not psutil.pid_exists(first.pid)
