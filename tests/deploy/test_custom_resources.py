"""What other projects add to Kubernetes, and compose files: held against the schemas that they publish."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.deploy.test_helm import VARIANTS, program, rendered
from tests.support.envoy import read
from tools import custom_resources, operator_models

__all__ = ["program"]

pytestmark = pytest.mark.timeout(1200)  # the first run builds Helm

Object = Mapping[str, Any]


@contextmanager
def schemas() -> Iterator[None]:
    """Skip where a schema cannot be had, unless everything is required."""
    try:
        yield
    except FileNotFoundError as error:
        if os.environ.get("SDGRPC_REQUIRE_ALL") == "1":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def observed(program: Path) -> Mapping[str, Object]:
    """The chart's objects with KEDA and Prometheus' operator, by kind."""
    return {kind: one for (kind, _), one in rendered(program, VARIANTS["keda"]).items()}


def changed(one: Object, path: str, value: object) -> Object:
    """Another object, with another value at a path such as `spec.triggers.0.type`."""
    made: Any = copy.deepcopy(one)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = made
    for part in parents:
        place = place[part]
    place[last] = value
    return made


def test_keda_would_take_it(observed: Mapping[str, Object]) -> None:
    """The ScaledObject, by KEDA's definition."""
    with schemas():
        custom_resources.check(observed["ScaledObject"])


@pytest.mark.parametrize(
    ("path", "value"),
    [("spec.triggers.0.kind", "prometheus"), ("spec.minReplicaCount", "1"), ("spec.triggers", None)],
)
def test_keda_would_refuse(observed: Mapping[str, Object], path: str, value: object) -> None:
    """A field that there is not, one of another type, and one that is missing."""
    with schemas(), pytest.raises(jsonschema.ValidationError):
        custom_resources.check(changed(observed["ScaledObject"], path, value))


def test_the_operator_would_take_them(observed: Mapping[str, Object]) -> None:
    """ServiceMonitor and PrometheusRule, by the models of Prometheus' operator."""
    with schemas():
        operator_models.check([observed["ServiceMonitor"], observed["PrometheusRule"]])


@pytest.mark.parametrize(
    ("kind", "path", "value", "said"),
    [
        ("ServiceMonitor", "spec.endpoints.0.intervall", "15s", "intervall"),
        ("ServiceMonitor", "spec.endpoints.0.interval", "often", "interval"),
        ("ServiceMonitor", "spec.selector", 3, "selector"),
        ("PrometheusRule", "spec.groups.0.rules.0.expression", "up", "expression"),
        ("PrometheusRule", "spec.groups.0.rules.0.for", 3, "for"),
    ],
)
def test_the_operator_would_refuse(
    observed: Mapping[str, Object], kind: str, path: str, value: object, said: str
) -> None:
    """Fields that there are not, and values that they do not take."""
    with schemas(), pytest.raises(ValueError, match=said):
        operator_models.check([changed(observed[kind], path, value)])


def test_compose_would_take_it() -> None:
    """The file of two servers and Envoy, by the specification's schema."""
    with schemas():
        custom_resources.check_compose(read("compose.yaml"))


@pytest.mark.parametrize(
    ("path", "value"),
    [("services.envoy.port", []), ("services.envoy.restart", 3), ("services.envoy.depends_on", "sdgrpc-1")],
)
def test_compose_would_refuse(path: str, value: object) -> None:
    """A field that there is not, and values of another type."""
    with schemas(), pytest.raises(jsonschema.ValidationError):
        custom_resources.check_compose(changed(read("compose.yaml"), path, value))


@pytest.mark.parametrize("failing", [custom_resources.published, operator_models.install])
def test_what_is_missing_is_said(
    failing: Callable[..., object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the program that fetches them the error names it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(operator_models, "FOLDER", tmp_path)
    arguments = ("example.org/none@v1.0.0", "a") if failing is custom_resources.published else ()
    with pytest.raises(FileNotFoundError, match="on the PATH"):
        failing(*arguments)
