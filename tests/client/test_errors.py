"""Failures arrive as typed exceptions."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2

from sdgrpc import client as api
from sdgrpc.client import Client
from sdgrpc.testing.server import (
    fail_script,
    invalid_script,
    scripted_server,
)

FAILURES = [
    (code_pb2.NOT_FOUND, "LORA_NOT_FOUND", api.LoraNotFoundError),
    (code_pb2.NOT_FOUND, "MODEL_NOT_FOUND", api.ModelNotFoundError),
    (code_pb2.FAILED_PRECONDITION, "LORA_INCOMPATIBLE", api.LoraUnusableError),
    (code_pb2.FAILED_PRECONDITION, "NOT_AN_INPAINTING_MODEL", api.FailedPreconditionError),
    (code_pb2.RESOURCE_EXHAUSTED, "QUEUE_FULL", api.QueueFullError),
    (code_pb2.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", api.OutOfMemoryError),
    (code_pb2.UNAVAILABLE, "DRAINING", api.UnavailableError),
    (code_pb2.INTERNAL, "INTERNAL", api.InternalServerError),
    (code_pb2.UNAUTHENTICATED, "", api.UnauthenticatedError),
    (code_pb2.PERMISSION_DENIED, "", api.PermissionDeniedError),
    (code_pb2.DATA_LOSS, "", api.SdgrpcServerError),
]


def test_every_violation_arrives() -> None:
    """An invalid request raises one error with every violation."""
    with scripted_server(invalid_script()) as server, Client(server.target) as client:
        with pytest.raises(api.InvalidRequestError) as caught:
            client.generate("").images()
        assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
        assert caught.value.violations == (
            api.FieldViolation("sampling.steps", "999 is above 150"),
            api.FieldViolation("loras[1].strength", "1.5 is above 1.0"),
        )
        assert str(caught.value) == "INVALID_REQUEST: 2 fields are wrong"


@pytest.mark.parametrize(("code", "reason", "kind"), FAILURES)
def test_failures_are_typed(code: int, reason: str, kind: Any) -> None:
    """Each reason and each code has its exception, with all details of the status."""
    details = [
        error_details_pb2.ErrorInfo(reason=reason, metadata={"file": "a.safetensors"}),
        error_details_pb2.ResourceInfo(resource_type="sdgrpc.v1.Lora", resource_name="a"),
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000)),
    ]
    with scripted_server(fail_script(code, "no", details)) as server, Client(server.target) as client:
        with pytest.raises(kind) as caught:
            client.generate("a star").result()
        assert type(caught.value) is kind
        assert caught.value.reason == reason
        assert caught.value.metadata == {"file": "a.safetensors"}
        assert caught.value.resource == api.Resource("sdgrpc.v1.Lora", "a")
        assert caught.value.retry_after == 2.5


def test_no_server_is_unavailable() -> None:
    """Without a server the error is of the same tree, without a reason."""
    with Client("127.0.0.1:1") as client, pytest.raises(api.UnavailableError) as caught:
        client.generate("a star").result()
    assert caught.value.reason == ""
