"""The methods that a server may have, for labels that nobody outside can make more of; and codes' numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from sdgrpc.api.calls.call import UNKNOWN
from sdgrpc.v1 import catalog_pb2, diffusion_pb2, jobs_pb2

REFLECTION = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
"""Reflection's newer name, of which there is no generated code."""


def methods_of(*files: Any) -> Iterator[str]:  # noqa: ANN401 - as protobuf's implementation has it
    """Yield `package.Service/Method` for every method of the files' descriptors."""
    for file in files:
        for service in file.services_by_name.values():
            yield from (f"{service.full_name}/{method.name}" for method in service.methods)


OURS = tuple(methods_of(diffusion_pb2.DESCRIPTOR, catalog_pb2.DESCRIPTOR, jobs_pb2.DESCRIPTOR))
OTHERS = (*methods_of(health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR, channelz_pb2.DESCRIPTOR), REFLECTION)
METHODS = frozenset((*OURS, *OTHERS))


def method_label(path: str) -> str:
    """Return the name of the method that a call's path asks for; `unknown` for any other."""
    name = path.removeprefix("/")
    return name if name in METHODS else UNKNOWN


def code_number(code: str) -> int:
    """Return gRPC's number of a status: 5 for NOT_FOUND."""
    number: int = grpc.StatusCode[code].value[0]
    return number
