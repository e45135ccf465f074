"""Failures of models, LoRA files and uploads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from sdgrpc.errors.base import ResourceMissing, SdgrpcError


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


class UploadsOff(SdgrpcError):
    """The operator allows no uploads."""

    code = "FAILED_PRECONDITION"
    reason = "UPLOADS_OFF"


class UploadInterrupted(SdgrpcError):
    """The client stopped sending before its file was whole."""

    code = "ABORTED"
    reason = "UPLOAD_INTERRUPTED"


class StorageFull(SdgrpcError):
    """The disk, or the bytes that the operator allows for uploads, are used up."""

    code = "RESOURCE_EXHAUSTED"
    reason = "STORAGE_FULL"
