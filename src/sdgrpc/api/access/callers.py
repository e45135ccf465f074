"""Who calls: known to whatever runs for a call."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from grpc import aio

CALLER: ContextVar[str] = ContextVar("CALLER", default="")
"""What `caller` returns; each call has a context of its own."""

COMMON_NAME = "x509_common_name"
ALTERNATIVE_NAME = "x509_subject_alternative_name"


def caller() -> str:
    """The name of the token that this call showed; empty where none is needed."""
    return CALLER.get()


def certificate_name(context: aio.ServicerContext[Any, Any]) -> str:
    """What the client's certificate calls it: its common name, else its first alternative one; or nothing."""
    properties = context.auth_context()
    for key in (COMMON_NAME, ALTERNATIVE_NAME):
        for value in properties.get(key, ()):
            if value:
                return bytes(value).decode(errors="replace")
    return ""
