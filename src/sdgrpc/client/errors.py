"""The server's failures as exceptions: a google.rpc.Status from the trailers, decoded and typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sdgrpc.errors import FieldViolation


@dataclass(frozen=True, slots=True)
class Resource:
    """What was not found: `sdgrpc.v1.Lora`, `styles/postcard`."""

    type: str
    name: str


@dataclass(frozen=True, slots=True)
class Details:
    """What stood in the details of a status: ErrorInfo, BadRequest, ResourceInfo and RetryInfo."""

    reason: str = ""
    violations: tuple[FieldViolation, ...] = ()
    resource: Resource | None = None
    retry_after: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class SdgrpcServerError(Exception):
    """A call that failed.

    `code` is the gRPC status code's name, `reason` the ErrorInfo's (empty if the failure did not come from an
    sdgrpc server, say without a connection), `violations` every field that is wrong, `resource` what was
    not found, `retry_after` seconds after which trying again may help.
    """

    def __init__(self, code: str, message: str, details: Details = Details()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = details.reason
        self.violations = details.violations
        self.resource = details.resource
        self.retry_after = details.retry_after
        self.metadata = dict(details.metadata)

    def __str__(self) -> str:
        return f"{self.reason or self.code}: {self.message}"


class InvalidRequestError(SdgrpcServerError):
    """Fields of the request are wrong: see `violations`."""


class NotFoundError(SdgrpcServerError):
    """The request names a model or LoRA that the server does not have: see `resource`."""


class ModelNotFoundError(NotFoundError):
    """No such model."""


class LoraNotFoundError(NotFoundError):
    """No such LoRA file."""


class JobNotFoundError(NotFoundError):
    """The server keeps no such job for this client: it was not sent to be kept, or is forgotten."""


class JobExistsError(SdgrpcServerError):
    """The server keeps a job of that request_id, which asks for something else."""


class FailedPreconditionError(SdgrpcServerError):
    """The request is sound, but what it names cannot be used like this."""


class LoraUnusableError(FailedPreconditionError):
    """A LoRA file that is broken, for another base, or in a format that is not applied."""


class UnauthenticatedError(SdgrpcServerError):
    """The server asks for a token, and was given none or a wrong one."""


class PermissionDeniedError(SdgrpcServerError):
    """The token or certificate does not allow this."""


class ResourceExhaustedError(SdgrpcServerError):
    """The server is full: see `retry_after`."""


class QueueFullError(ResourceExhaustedError):
    """The queue is full."""


class TokenQueueFullError(QueueFullError):
    """As many jobs of this client's token wait as may; those of others may find room."""


class OutOfMemoryError(ResourceExhaustedError):
    """The server's device has no memory left for this job."""


class UnavailableError(SdgrpcServerError):
    """No server answers, or it is stopping."""


class DeadlineExceededError(SdgrpcServerError):
    """The call's timeout passed; the server has dropped the job."""


class JobCancelledError(SdgrpcServerError):
    """The call was cancelled, and with it the job."""


class InternalServerError(SdgrpcServerError):
    """A fault of the server; its log holds the cause under the id in the message."""


class IncompleteAnswerError(SdgrpcServerError):
    """The stream ended without an error and without its last event."""


_BY_REASON: Mapping[str, type[SdgrpcServerError]] = {
    "MODEL_NOT_FOUND": ModelNotFoundError,
    "LORA_NOT_FOUND": LoraNotFoundError,
    "JOB_NOT_FOUND": JobNotFoundError,
    "JOB_EXISTS": JobExistsError,
    "LORA_UNUSABLE": LoraUnusableError,
    "LORA_INCOMPATIBLE": LoraUnusableError,
    "LORA_MALFORMED": LoraUnusableError,
    "LORA_UNSUPPORTED": LoraUnusableError,
    "QUEUE_FULL": QueueFullError,
    "TOKEN_QUEUE_FULL": TokenQueueFullError,
    "OUT_OF_MEMORY": OutOfMemoryError,
}
_BY_CODE: Mapping[str, type[SdgrpcServerError]] = {
    "INVALID_ARGUMENT": InvalidRequestError,
    "NOT_FOUND": NotFoundError,
    "FAILED_PRECONDITION": FailedPreconditionError,
    "UNAUTHENTICATED": UnauthenticatedError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "RESOURCE_EXHAUSTED": ResourceExhaustedError,
    "UNAVAILABLE": UnavailableError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "CANCELLED": JobCancelledError,
    "INTERNAL": InternalServerError,
}


def incomplete() -> IncompleteAnswerError:
    """Return what a stream without its last event raises."""
    details = Details(reason="INCOMPLETE_ANSWER")
    return IncompleteAnswerError("DATA_LOSS", "the stream ended before `finished`", details)


def server_error(error: grpc.RpcError) -> SdgrpcServerError:
    """Return the typed exception for a call that ended with `error`."""
    call: Any = error  # both grpc and grpc.aio raise errors that are calls too: code(), details(), trailers
    code: grpc.StatusCode = call.code()
    details = _details(call)
    kind = _BY_REASON.get(details.reason) or _BY_CODE.get(code.name, SdgrpcServerError)
    return kind(code.name, call.details() or "", details)


def _details(call: Any) -> Details:  # noqa: ANN401 - grpc has no common type for its two kinds of failed calls
    """Decode `grpc-status-details-bin`; a proxy's or a broken server's trailers count as no details."""
    try:
        status = rpc_status.from_call(call)
    except ValueError:  # the details contradict the status code
        return Details()
    if status is None:
        return Details()
    found: dict[str, Any] = {}
    for packed in status.details:
        for message_type, decode in _DECODERS.items():
            if packed.Is(message_type.DESCRIPTOR):
                message = message_type()
                packed.Unpack(message)
                found |= decode(message)
    return Details(**found)


_DECODERS: Mapping[Any, Any] = {
    error_details_pb2.ErrorInfo: lambda info: {"reason": info.reason, "metadata": dict(info.metadata)},
    error_details_pb2.BadRequest: lambda bad: {
        "violations": tuple(FieldViolation(v.field, v.description) for v in bad.field_violations)
    },
    error_details_pb2.ResourceInfo: lambda info: {
        "resource": Resource(info.resource_type, info.resource_name)
    },
    error_details_pb2.RetryInfo: lambda info: {
        "retry_after": info.retry_delay.seconds + info.retry_delay.nanos / 1e9
    },
}
