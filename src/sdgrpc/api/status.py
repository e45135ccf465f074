"""A failure -> google.rpc.Status with details, in one table.

Trailers travel as headers, of which gRPC takes about 8 KiB: long texts are cut, and of very many violations
the first ones are sent with the number of the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from sdgrpc.api.codec import duration
from sdgrpc.errors import (
    FieldViolation,
    InvalidRequest,
    LoraError,
    ModelError,
    ResourceMissing,
    SdgrpcError,
    Unexpected,
)

DOMAIN = "sdgrpc"
MAX_MESSAGE_BYTES = 1024  # sent twice, once percent-encoded
MAX_VIOLATION_BYTES = 2048
DEFAULT_RETRY_SECONDS = 1.0
FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/]+/)+(?=[^\s/])")
"""An absolute path without its last part: where a server keeps its models is no matter of its clients."""


def status_of(error: SdgrpcError) -> status_pb2.Status:
    """The status that a client is sent for a failure."""
    code: int = grpc.StatusCode[error.code].value[0]
    return status_pb2.Status(code=code, message=cut(_message(error)), details=map(_packed, _details(error)))


def internal(error_id: str) -> status_pb2.Status:
    """The status for an unexpected failure, whose cause only the log knows."""
    return status_of(Unexpected(error_id))


def cut(text: str, limit: int = MAX_MESSAGE_BYTES) -> str:
    """The text, or as much of it as fits into `limit` bytes and an ellipsis."""
    encoded = text.encode()
    return text if len(encoded) <= limit else encoded[: limit - 3].decode(errors="ignore") + "…"


def _packed(message: Message) -> Packed:
    packed = Packed()
    packed.Pack(message)
    return packed


def _message(error: SdgrpcError) -> str:
    if isinstance(error, ModelError):  # which the operator reads in the log as well
        return FOLDERS.sub("", error.message)
    if not isinstance(error, InvalidRequest):
        return error.message
    shown, more = _first(error.violations)
    sentences = [f"{violation.field}: {violation.description}" for violation in shown]
    return "; ".join([*sentences, f"and {more} more"] if more else sentences)


def _first(violations: Sequence[FieldViolation]) -> tuple[Sequence[FieldViolation], int]:
    """The violations that fit into a trailer, and how many do not."""
    sizes = accumulate(len(f"{each.field}{each.description}".encode()) + 8 for each in violations)
    count = max(1, sum(size <= MAX_VIOLATION_BYTES for size in sizes))
    return violations[:count], len(violations) - count


def _details(error: SdgrpcError) -> Iterator[Message]:
    yield error_details_pb2.ErrorInfo(domain=DOMAIN, reason=error.reason, metadata=_metadata(error))
    for kind, detail in _DETAILS.items():
        if isinstance(error, kind):
            yield detail(error)
    retry_after = error.retry_after
    if retry_after is None and error.code == "UNAVAILABLE":  # by its nature worth another try
        retry_after = DEFAULT_RETRY_SECONDS
    if retry_after is not None:
        yield error_details_pb2.RetryInfo(retry_delay=duration(retry_after))


def _metadata(error: SdgrpcError) -> dict[str, str]:
    """What programs may want to know beside the reason."""
    if isinstance(error, LoraError):
        named = {"lora": error.name, "key": error.key}
        return {key: cut(value, 256) for key, value in named.items() if value}
    if isinstance(error, InvalidRequest):
        return {"violations": str(len(error.violations))}
    if isinstance(error, Unexpected):
        return {"error_id": error.error_id}
    return {}


def _bad_request(error: InvalidRequest) -> error_details_pb2.BadRequest:
    shown, _ = _first(error.violations)
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(
                field=cut(each.field, 256), description=cut(each.description)
            )
            for each in shown
        ]
    )


def _resource_info(error: ResourceMissing) -> error_details_pb2.ResourceInfo:
    return error_details_pb2.ResourceInfo(
        resource_type=error.resource_type, resource_name=cut(error.name, 256), description=cut(error.message)
    )


_DETAILS: Mapping[type[SdgrpcError], Callable[[Any], Any]] = {
    InvalidRequest: _bad_request,
    ResourceMissing: _resource_info,
}
