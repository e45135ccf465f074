"""Helm, built with Go from its module once, into `.tools`; and the table of the chart's values.

`python -m tools.helm` writes deploy/helm/sdgrpc/README.md and the chart's copies of Envoy's and Prometheus'
files; `--check` proves that they are fresh.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tools import go_programs

ROOT = Path(__file__).resolve().parent.parent
BINARY = ROOT / ".tools/helm"
PACKAGE = "helm.sh/helm/v3/cmd/helm@v3.22.0"
CHART = ROOT / "deploy/helm/sdgrpc"
COPIES: Mapping[str, Path] = {
    **{name: ROOT / "deploy/envoy" / name for name in ("envoy.yaml", "routes.yaml", "servers.yaml")},
    "sdgrpc.rules.yml": ROOT / "deploy/prometheus/sdgrpc.rules.yml",
}
"""The chart's files -> what they are copies of: Helm reads nothing outside of a chart."""

CHOICES: Mapping[str, list[str]] = {
    "workload": ["Deployment", "StatefulSet"],
    "autoscaling.kind": ["off", "hpa", "keda"],
    "service.type": ["ClusterIP", "NodePort", "LoadBalancer"],
    "image.pullPolicy": ["Always", "IfNotPresent", "Never"],
}
FREE = ("resources", "envoy.resources", "inferenceGateway.resources")
"""Mappings that Kubernetes defines, whatever their default has."""

HEAD = """\
# The chart

<!-- Made from values.yaml by `make gen`; change it there. -->

    helm install draw deploy/helm/sdgrpc --namespace drawing --create-namespace \\
        --set image.repository=registry.internal/sdgrpc --set models.existingClaim=models \\
        --set 'settings.model={photo=/models/photo.safetensors}'

Servers with gRPC probes, without rights and with a root that is read-only, behind Envoy, which sends each job
to a server that has its LoRA set ([docs/scaling.md](../../../docs/scaling.md)). A pod that leaves takes jobs
until Envoy has noticed (`drainDelay`), lets the running ones end (`drainTimeout`), and then stops; a pod
disruption budget and network policies are on, autoscaling by the jobs that wait, a ServiceMonitor and alerts
can be turned on. `image.repository` must be where your cluster finds the image of the Dockerfile.

With `inferenceGateway.enabled` an inference gateway of the cluster takes Envoy's place: an InferencePool,
whose picker goes by the servers' queues and the gauge of their adapters, and an HTTPRoute. It reads no
gRPC messages: it knows a call's LoRA set by the header `x-gateway-model-name-rewrite` alone, and holds events
back until a job's end. [docs/scaling.md](../../../docs/scaling.md#an-inference-gateway) says when that is
worth it.

Unknown names of values are refused (`values.schema.json`), unknown settings by the server at its start.

| value | default | |
|---|---|---|
"""


def install() -> Path:
    """Return the path of Helm; raises as `go_programs.install`."""
    return go_programs.install(BINARY, PACKAGE)


def documented(text: str) -> Iterator[tuple[str, str]]:
    """Yield each value of values.yaml that has no values of its own, with what the comment before it says."""
    path: list[str] = []
    said: list[str] = []
    for line in text.splitlines():
        if comment := re.fullmatch(r" *# (?:-- )?(.*)", line):
            said.append(comment[1])
            continue
        if found := re.fullmatch(r"( *)([\w.]+):(.*)", line):
            depth = len(found[1]) // 2
            path[depth:] = [found[2]]
            yield ".".join(path), " ".join(said)
        said = []


def leaves(values: Mapping[str, Any], text: str) -> Iterator[tuple[str, object, str]]:
    """Yield name, default and comment of every value that a user may set."""
    for name, comment in documented(text):
        value: Any = values
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if comment or not (isinstance(value, Mapping) and value):
            yield name, value, comment


def page() -> str:
    """Return the chart's README."""
    text = (CHART / "values.yaml").read_text("utf-8")
    rows = []
    for name, value, comment in leaves(yaml.safe_load(text), text):
        default = yaml.safe_dump(value).splitlines()[0].replace("|", "\\|")
        shown = "" if isinstance(value, Mapping) and value else f"`{default}`"
        rows.append(f"| `{name}` | {shown} | {comment} |\n")
    return HEAD + "".join(rows)


def schema(value: object, name: str = "") -> Mapping[str, object]:
    """Return the JSON schema of a value by its default; an empty mapping or list takes anything."""
    if name in CHOICES:
        return {"enum": CHOICES[name]}
    if isinstance(value, Mapping):
        made: dict[str, object] = {"type": "object"}
        if value and name not in FREE:
            inner = {key: schema(one, f"{name}.{key}".strip(".")) for key, one in value.items()}
            made |= {"properties": inner, "additionalProperties": False}
        return made
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer", "minimum": 0}
    return {"type": "array" if isinstance(value, list) else "string"}


def files() -> Mapping[Path, str]:
    """Return everything that is made, by its place."""
    made = {CHART / "files" / name: source.read_text("utf-8") for name, source in COPIES.items()}
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    rules = {"$schema": "https://json-schema.org/draft-07/schema#", **schema({**values, "global": {}})}
    text = json.dumps(rules, indent=2) + "\n"
    return {**made, CHART / "README.md": page(), CHART / "values.schema.json": text}


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail where a file is not what would be written")
    parser.add_argument("--build", action="store_true", help="build Helm too, for the tests of the chart")
    arguments = parser.parse_args()
    if arguments.build:
        install()
    checks = arguments.check
    stale = [path for path, text in files().items() if not path.exists() or path.read_text("utf-8") != text]
    if checks and stale:
        print(f"run make gen: {', '.join(str(path.relative_to(ROOT)) for path in stale)}", file=sys.stderr)
        return 1
    for path in stale:
        path.write_text(files()[path], "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
