"""Schemas of what others add to Kubernetes, and of compose files, from the Go modules that publish them.

Go's own client fetches a module once (20 MB together) into its cache, and proves its content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import jsonschema  # type: ignore[import-untyped]
import yaml

from tools import go_programs

COMPOSE = ("github.com/compose-spec/compose-go/v2@v2.16.2", "schema/compose-spec.json")
KINDS: Mapping[str, tuple[str, str]] = {
    "HTTPRoute": (
        "sigs.k8s.io/gateway-api@v1.6.3",
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    ),
    "InferencePool": (
        f"{go_programs.PICKER_MODULE}@{go_programs.PICKER_VERSION}",
        "config/crd/bases/inference.networking.k8s.io_inferencepools.yaml",
    ),
    "RayCluster": (
        "github.com/ray-project/kuberay/ray-operator@v1.5.0",
        "config/crd/bases/ray.io_rayclusters.yaml",
    ),
    "ScaledObject": ("github.com/kedacore/keda/v2@v2.21.0", "config/crd/bases/keda.sh_scaledobjects.yaml"),
}
"""Kind -> module and the file in it that defines the kind for Kubernetes."""


@cache
def published(module: str, name: str) -> str:
    """Return a file of a module.

    Raises:
        FileNotFoundError: as `go_programs.module`.

    """
    return (go_programs.module(module) / name).read_text("utf-8")


def strict(schema: object) -> object:
    """Return a schema of Kubernetes as plain JSON schema, where a field that it does not name is an error."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    made: dict[str, object] = {name: strict(one) for name, one in schema.items() if name != "format"}
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


@cache
def schema_of(kind: str, version: str) -> Mapping[str, Any]:
    """Return the schema of a kind in a version of its interface, without metadata, which are Kubernetes'."""
    definition = yaml.load(published(*KINDS[kind]), Loader=yaml.CSafeLoader)
    (served,) = (one for one in definition["spec"]["versions"] if one["name"] == version)
    schema = served["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"x-kubernetes-preserve-unknown-fields": True, "type": "object"}
    return cast("Mapping[str, Any]", strict(schema))


def check(one: Mapping[str, Any]) -> None:
    """Hold an object of `KINDS` against its schema.

    Raises:
        ValidationError: it does not fit; names the field.
        FileNotFoundError: as `published`.

    """
    version = one["apiVersion"].rpartition("/")[2]
    jsonschema.validate(one, schema_of(one["kind"], version))


def check_compose(file: Mapping[str, Any]) -> None:
    """Hold a compose file's content against the specification's schema; raises as `check`."""
    jsonschema.validate(file, json.loads(published(*COMPOSE)))
