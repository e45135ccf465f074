"""Each value of the chart does something, and what it makes is still Kubernetes'."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from tests.deploy.test_helm import KUBERNETES, OTHERS, VARIANTS, VERSION, program, run
from tools import helm

__all__ = ["program"]

pytestmark = pytest.mark.timeout(1200)  # the first run builds Helm

TEXT = (helm.CHART / "values.yaml").read_text("utf-8")
VALUES: Mapping[str, Any] = {
    name: value
    for name, value, _ in helm.leaves(yaml.safe_load(TEXT), TEXT)
    if name in helm.FREE or not (isinstance(value, dict) and value)
}
CALLERS = [{"podSelector": {"matchLabels": {"a": "b"}}}]
EXAMPLES: Mapping[str, object] = {
    "affinity": {"nodeAffinity": {}},
    "autoscaling.kind": "hpa",
    "cache.size": "1Gi",
    "env": [{"name": "A", "value": "b"}],
    "envoy.resources": {"limits": {"cpu": "1"}},
    "image.pullPolicy": "Always",
    "imagePullSecrets": [{"name": "registry"}],
    "inferenceGateway.hostnames": ["draw.example"],
    "inferenceGateway.resources": {"limits": {"cpu": "1"}},
    "metrics.labels": {"a": "b"},
    "networkPolicy.callers": CALLERS,
    "networkPolicy.egress": [{"ports": [{"port": 4317}]}],
    "networkPolicy.scrapers": CALLERS,
    "nodeSelector": {"gpu": "yes"},
    "podAnnotations": {"a": "b"},
    "podLabels": {"a": "b"},
    "resources": {"limits": {"nvidia.com/gpu": 1}},
    "service.annotations": {"a": "b"},
    "service.type": "LoadBalancer",
    "settings": {"max_steps": 30},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "workload": "StatefulSet",
}
"""Another value of what is no text, number or switch."""
WITH: Mapping[str, Sequence[str]] = {
    "autoscaling": ["autoscaling.kind=keda"],
    "autoscaling.kind": [],
    "cache.storageClass": ["workload=StatefulSet"],
    "inferenceGateway": VARIANTS["inference"],
    "inferenceGateway.enabled": ["envoy.enabled=false"],
    "metrics": ["metrics.serviceMonitor=true"],
    "metrics.serviceMonitor": [],
    "tls": ["envoy.enabled=false", "tls.existingSecret=cert"],
    "tls.existingSecret": ["envoy.enabled=false"],
}
"""What has to be on for a value, or for all that begin so, to count."""


def another(name: str, value: object) -> object:
    """A value that is not the default."""
    if name in EXAMPLES:
        return EXAMPLES[name]
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else "another"


def made(program: Path, flags: list[str]) -> list[Mapping[str, Any]]:
    """What the chart makes."""
    done = run(program, "template", "draw", helm.CHART, *VERSION, *flags)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


@pytest.mark.parametrize("name", VALUES)
def test_a_value_does_something(program: Path, name: str) -> None:
    """Another one makes other objects, which Kubernetes would take."""
    needs = WITH.get(name, WITH.get(name.partition(".")[0], []))
    base = [part for value in needs for part in ("--set", value)]
    changed = made(program, [*base, "--set-json", f"{name}={json.dumps(another(name, VALUES[name]))}"])
    assert changed != made(program, base)
    for one in changed:
        if one["kind"] not in OTHERS:
            kubernetes_validate.validate(one, KUBERNETES[0], strict=True)


def test_the_table_has_no_value_that_there_is_not() -> None:
    """Examples are of values, and of no others."""
    assert EXAMPLES.keys() <= VALUES.keys()
    assert all(any(name == key or name.startswith(f"{key}.") for name in VALUES) for key in WITH)
