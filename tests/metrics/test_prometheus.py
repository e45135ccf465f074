"""The real Prometheus reads them, and its tool finds nothing wrong with names and alerts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from prometheus_client import generate_latest

from sdgrpc.client import Client
from sdgrpc.metrics.metrics import Metrics
from tests.support.server import running_server

LISTENING = r'"address":"(127\.0\.0\.1:[1-9]\d*)"'
DEPLOY = Path(__file__).resolve().parents[2] / "deploy/prometheus"


@pytest.fixture(autouse=True)
def prometheus_is_there() -> None:
    """Debian's package `prometheus` has both programs."""
    if missing := [name for name in ("prometheus", "promtool") if shutil.which(name) is None]:
        reason = f"{' and '.join(missing)} missing: apt-get install prometheus"
        if os.environ.get("SDGRPC_REQUIRE_ALL") == "1":
            pytest.fail(f"SDGRPC_REQUIRE_ALL=1, but {reason}")
        pytest.skip(reason)


def promtool(*arguments: str, stdin: bytes = b"") -> str:
    """Run it in the folder of the rules; it must find nothing wrong."""
    done = subprocess.run(["promtool", *arguments], input=stdin, cwd=DEPLOY, capture_output=True, check=False)
    output = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, output
    return output


def test_names_and_types_are_as_prometheus_likes_them() -> None:
    """`promtool check metrics` says nothing."""
    assert promtool("check", "metrics", stdin=generate_latest(Metrics(["a"]).registry)) == ""


def test_alerts_fire_when_they_should_and_not_otherwise() -> None:
    """The rules are valid and pass their unit tests, each alert in at least one."""
    promtool("check", "rules", "sdgrpc.rules.yml")
    promtool("test", "rules", "sdgrpc.tests.yml")
    alerts = re.findall(r"alert: (\w+)", (DEPLOY / "sdgrpc.rules.yml").read_text())
    tests = (DEPLOY / "sdgrpc.tests.yml").read_text()
    fired = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts:", tests))
    assert set(alerts) == fired


def test_alerts_ask_for_metrics_that_there_are() -> None:
    """Every name in a rule is one of a server's."""
    text = generate_latest(Metrics(["a"]).registry).decode()
    there = set(re.findall(r"^(sdgrpc_\w+)", text, re.MULTILINE))
    rules = re.sub(
        r"^ +(summary|description):.*$", "", (DEPLOY / "sdgrpc.rules.yml").read_text(), flags=re.MULTILINE
    )
    asked = set(re.findall(r"\bsdgrpc_\w+", rules))
    assert asked
    assert not asked - there


def ask(address: str, path: str, **query: str) -> dict:
    """Ask Prometheus' API, which is not ready as soon as its port is open."""
    for _ in range(600):
        try:
            with urlopen(f"http://{address}/api/v1/{path}?{urlencode(query)}", timeout=30) as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            time.sleep(0.1)
    raise AssertionError("Prometheus never became ready")


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """Run one that scrapes the target every second with the rules of `deploy/`; yield its address."""
    config = (DEPLOY / "prometheus.yml").read_text().replace("127.0.0.1:9464", target)
    config = config.replace("scrape_interval: 15s", "scrape_interval: 1s\n  scrape_timeout: 1s")
    config = config.replace("[sdgrpc.rules.yml]", f"[{DEPLOY}/sdgrpc.rules.yml]")
    (folder / "prometheus.yml").write_text(config)
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += ["--web.listen-address=127.0.0.1:0", "--log.format=json"]
    log = folder / "prometheus.log"
    with log.open("w") as sink, subprocess.Popen(command, stdout=sink, stderr=sink) as process:
        try:
            yield address_of(process, log)
        finally:
            process.terminate()


def address_of(process: subprocess.Popen, log: Path) -> str:
    for _ in range(600):
        if found := re.search(
            r'"(?:Listening on"?,"address|address)":"(127\.0\.0\.1:[1-9]\d*)"', log.read_text()
        ):
            return found.group(1)
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def metrics_address(log: Path) -> str:
    """Where a server says that its metrics are."""
    return re.search(r"metrics on http://(\S+)/metrics", log.read_text()).group(1)


def dashboard_queries() -> list[str]:
    """What Grafana asks, with its variables replaced as it does."""
    panels = json.loads((DEPLOY.parent / "grafana/sdgrpc.json").read_text())["panels"]
    texts = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [text.replace("$instance", ".*").replace("$__rate_interval", "1m") for text in texts]


def test_a_real_prometheus_scrapes_a_real_server(tmp_path: Path) -> None:
    """It finds the server up and stores what was drawn; no alert fires, and Grafana's queries are sound."""
    with running_server(tmp_path / "log", "--metrics", "127.0.0.1:0") as server:
        with Client(server.target) as client:
            assert list(client.generate("a star", steps=2))
        with prometheus(tmp_path, metrics_address(server.log)) as address:
            for _ in range(600):
                found = ask(address, "query", query="sdgrpc_images_total")["result"]
                if found:
                    break
                time.sleep(0.1)
            assert [float(one["value"][1]) for one in found] == [1.0]
            assert found[0]["metric"]["model"] == "embedded"
            (target,) = ask(address, "targets")["activeTargets"]
            assert (target["health"], target["lastError"]) == ("up", "")
            (group,) = ask(address, "rules")["groups"]
            assert len(group["rules"]) == 9
            assert not ask(address, "alerts")["alerts"]
            for query in dashboard_queries():
                ask(address, "query", query=query)


def test_a_taken_port_ends_the_start() -> None:
    """With a sentence that names the setting."""
    with Metrics(["a"]).served("127.0.0.1:0") as address:
        command = [sys.executable, "-m", "sdgrpc", "serve", "--listen", "127.0.0.1:0", "--metrics", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        f"metrics: cannot listen on {address} (Address already in use)"
    )
