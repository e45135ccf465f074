"""Every failure that a user can meet, as one small tree.

Each class knows its gRPC status code (by name, so that no room but `api` needs grpc) and the reason that
stands in google.rpc.ErrorInfo. Messages say what is wrong and what to do; they never hold prompts,
image bytes or file contents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self


class SdgrpcError(Exception):
    """A failure with a name. `retry_after` (seconds) is set where trying again may help."""

    code: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that is wrong: `loras[1].strength`, `1.5 is above 1.0`."""

    field: str
    description: str


class InvalidRequest(SdgrpcError):
    """A request with every violation that was found in it."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_REQUEST"

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = tuple(violations)


class ResourceMissing(SdgrpcError):
    """Something the request names does not exist."""

    code = "NOT_FOUND"
    resource_type: ClassVar[str] = ""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class ModelNotFound(ResourceMissing):
    """No model of that name is served."""

    reason = "MODEL_NOT_FOUND"
    resource_type = "sdgrpc.v1.Model"

    @classmethod
    def among(cls, name: str, served: Iterable[str]) -> Self:
        """Say which models there are instead."""
        return cls(name, f"no model {name!r} here; there are: {', '.join(served)}")


class LoraNotFound(ResourceMissing):
    """No LoRA of that name or hash is in the server's folders."""

    reason = "LORA_NOT_FOUND"
    resource_type = "sdgrpc.v1.Lora"


class LoraError(SdgrpcError):
    """A LoRA file that cannot be used as asked; `key` names the tensor, where one is to blame."""

    code = "FAILED_PRECONDITION"
    reason = "LORA_UNUSABLE"

    def __init__(self, name: str, message: str, *, key: str = "") -> None:
        super().__init__(f"LoRA {name!r}: {message}")
        self.name = name
        self.key = key


class LoraIncompatible(LoraError):
    """The file is sound but for another base or architecture."""

    reason = "LORA_INCOMPATIBLE"


class LoraMalformed(LoraError):
    """The file is broken: truncated, with NaN, with half of a pair, with shapes that do not fit."""

    reason = "LORA_MALFORMED"


class LoraChanged(LoraMalformed):
    """The file was written while it was read: what came is neither the old nor the new."""


class LoraUnsupported(LoraError):
    """The file is sound but in a format that this version does not apply."""

    reason = "LORA_UNSUPPORTED"


class ModelError(SdgrpcError):
    """A model that cannot be loaded or cannot do what was asked."""

    code = "FAILED_PRECONDITION"
    reason = "MODEL_UNUSABLE"


class NotAnInpaintingModel(ModelError):
    """The loaded model cannot inpaint."""

    reason = "NOT_AN_INPAINTING_MODEL"


class QueueFull(SdgrpcError):
    """The queue is full; try again after `retry_after` seconds."""

    code = "RESOURCE_EXHAUSTED"
    reason = "QUEUE_FULL"


class TokenQueueFull(QueueFull):
    """As many jobs of one token wait as the operator allows; those of others may still find room."""

    reason = "TOKEN_QUEUE_FULL"


class OutOfMemory(SdgrpcError):
    """The device has no memory left for this job."""

    code = "RESOURCE_EXHAUSTED"
    reason = "OUT_OF_MEMORY"


class UploadsOff(SdgrpcError):
    """The operator allows no uploads."""

    code = "FAILED_PRECONDITION"
    reason = "UPLOADS_OFF"


class UploadInterrupted(SdgrpcError):
    """The client stopped sending before its file was whole."""

    code = "ABORTED"
    reason = "UPLOAD_INTERRUPTED"


class RequestInterrupted(SdgrpcError):
    """The client opened a call and did not send its request."""

    code = "ABORTED"
    reason = "REQUEST_INTERRUPTED"


class ReaderStalled(SdgrpcError):
    """The client did not read its answer."""

    code = "ABORTED"
    reason = "READER_STALLED"


class StorageFull(SdgrpcError):
    """The disk, or the bytes that the operator allows for uploads, are used up."""

    code = "RESOURCE_EXHAUSTED"
    reason = "STORAGE_FULL"


class TooManyCalls(SdgrpcError):
    """As many calls of this kind as the server takes are running."""

    code = "RESOURCE_EXHAUSTED"
    reason = "TOO_MANY_CALLS"


class Unauthenticated(SdgrpcError):
    """The call showed no token, or none that is valid here."""

    code = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class JobNotFound(ResourceMissing):
    """No job of that id is kept for this caller."""

    reason = "JOB_NOT_FOUND"
    resource_type = "sdgrpc.v1.Job"


class JobExists(SdgrpcError):
    """A job of that id is kept, and it is another."""

    code = "ALREADY_EXISTS"
    reason = "JOB_EXISTS"


class JobCancelled(SdgrpcError):
    """The job was ended by CancelJob."""

    code = "CANCELLED"
    reason = "JOB_CANCELLED"


class KeepingOff(SdgrpcError):
    """The operator lets no job outlive its connection."""

    code = "FAILED_PRECONDITION"
    reason = "KEEPING_OFF"


class KeepingFull(SdgrpcError):
    """What jobs that are kept may hold is used up."""

    code = "RESOURCE_EXHAUSTED"
    reason = "KEEPING_FULL"


class Unexpected(SdgrpcError):
    """A failure without a name; the log has its cause under `error_id`."""

    def __init__(self, error_id: str) -> None:
        super().__init__(f"an unexpected failure; the server's log has its cause under {error_id}")
        self.error_id = error_id


class Draining(SdgrpcError):
    """The server is stopping and takes no new jobs."""

    code = "UNAVAILABLE"
    reason = "DRAINING"


class EngineFailed(SdgrpcError):
    """The engine cannot go on: a thread of it died or hangs, or its device is lost. The process ends."""

    code = "UNAVAILABLE"
    reason = "ENGINE_FAILED"


class DeadlineTooSoon(SdgrpcError):
    """The job would not be, or was not, drawn by its deadline."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_TOO_SOON"


class Loading(SdgrpcError):
    """The server is up but its models are not loaded yet."""

    code = "UNAVAILABLE"
    reason = "LOADING"


class SettingsError(SdgrpcError):
    """The server cannot start as it was configured; the message names the setting."""

    code = "FAILED_PRECONDITION"
    reason = "BAD_SETTINGS"
