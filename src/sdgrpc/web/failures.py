"""Failures in the form of the OpenAI API, whose `param` is the key of the body that is wrong."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.responses import JSONResponse

from sdgrpc.client import FieldViolation, NotFoundError, SdgrpcServerError

logger = logging.getLogger("sdgrpc.web")

INVALID, RATE, SERVER = "invalid_request_error", "rate_limit_error", "server_error"

_STATUSES: Mapping[str, tuple[int, str]] = {
    "INVALID_ARGUMENT": (400, INVALID),
    "FAILED_PRECONDITION": (400, INVALID),
    "UNAUTHENTICATED": (401, INVALID),
    "PERMISSION_DENIED": (403, INVALID),
    "NOT_FOUND": (404, INVALID),
    "ALREADY_EXISTS": (409, INVALID),
    "RESOURCE_EXHAUSTED": (429, RATE),
    "UNAVAILABLE": (503, SERVER),
    "CANCELLED": (503, SERVER),
    "DEADLINE_EXCEEDED": (504, SERVER),
}
_PARAMS: Mapping[str, str] = {
    "width": "size",
    "height": "size",
    "image_count": "n",
    "media_type": "output_format",
    "quality": "output_compression",
    "blur": "mask_blur",
    "kind": "preview",
}
"""Where a field of the contract has another name in the body."""


@dataclass
class Refused(Exception):
    """An answer that is an error. `param` is the key of the body at fault, `code` a word for programs."""

    message: str
    param: str | None = None
    code: str = "invalid_value"
    status: int = 400
    kind: str = INVALID
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, object]:
        """Return OpenAI's error object."""
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}

    def response(self) -> JSONResponse:
        """Return the whole answer."""
        return JSONResponse({"error": self.body()}, self.status, dict(self.headers))


def refusal(error: SdgrpcServerError) -> Refused:
    """Return what a server's failure is over HTTP.

    A failure that trying again cannot mend says so to OpenAI's clients, which try again on their own.
    """
    status, kind = _STATUSES.get(error.code, (500, SERVER))
    headers: dict[str, str] = {}
    if error.retry_after:
        headers["retry-after"] = str(math.ceil(error.retry_after))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after * 1000))
    if status in (500, 504):
        headers["x-should-retry"] = "false"
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    param, message = _param(error), error.message
    if error.violations:
        message = "; ".join(f"{body_key(one)}: {one.description}" for one in error.violations)
    return Refused(message, param, (error.reason or error.code).lower(), status, kind, headers)


def body_key(violation: FieldViolation) -> str:
    """Return the key of the body for a field of the contract: `n` for `sampling.image_count`."""
    name = re.sub(r"^(sampling|output\.preview|output|mask_options|source)\.", "", violation.field)
    if (top := name.partition(".")[0]) in ("image", "mask"):
        return top
    return _PARAMS.get(name, name)


def _param(error: SdgrpcServerError) -> str | None:
    if error.violations:
        return body_key(error.violations[0])
    if isinstance(error, NotFoundError) and error.resource is not None:
        return "loras" if error.resource.type.endswith("Lora") else "model"
    return "loras" if error.reason.startswith("LORA_") else None
