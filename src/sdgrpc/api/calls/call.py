"""A call from its first header to its end, as metrics, logs and traces tell of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from sdgrpc.domain import Task

Metadata = Sequence[tuple[str, str | bytes]]

OK, CANCELLED, UNKNOWN = "OK", "CANCELLED", "unknown"


@dataclass(slots=True)
class Call:
    """What is known of a call. Used by the event loop alone.

    Attributes:
        method: `sdgrpc.v1.DiffusionService/Generate`; `unknown` for what this server has not.
        metadata: the headers; they hold the token, so nobody writes them anywhere.
        peer: where it comes from, such as `ipv4:127.0.0.1:50412`.
        token: the name of the token that it showed.
        client: what the client's certificate calls it.
        code: the status it ended with, by gRPC's name.
        reason: that of ErrorInfo; empty where there is none.
        request_id: the job's, once the request was read.
        trace_id: the trace's, in hexadecimal, if there is one.
        task: what is drawn; None before the request was found valid.
        queue_seconds: how long its job waited for its turn; None if it had none.
        sent_seconds: what writing the events took, the waiting for a slow reader included.
        upload_bytes: what came of a LoRA file.
        seconds: how long it took, at its end.

    """

    method: str
    metadata: Metadata = ()
    peer: str = ""
    token: str = ""
    client: str = ""
    code: str = OK
    reason: str = ""
    request_id: str = ""
    trace_id: str = ""
    task: Task | None = None
    queue_seconds: float | None = None
    sent_seconds: float = 0.0
    upload_bytes: int = 0
    seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def failed(self, code: str, reason: str = "") -> None:
        """Note what it ends with; the first failure counts."""
        if self.code == OK:
            self.code, self.reason = code, reason


class CallObserver(Protocol):
    """Is told of each call on the event loop, within the call's own context."""

    def begin(self, call: Call) -> None:
        """Take note that a call is about to be answered."""
        ...

    def end(self, call: Call) -> None:
        """Take note of how it ended."""
        ...


CURRENT: ContextVar[Call | None] = ContextVar("CURRENT", default=None)
"""The call that runs; each has a context of its own."""


def current() -> Call:
    """Return the call that runs; outside of one, a call of which nobody is told."""
    return CURRENT.get() or Call(UNKNOWN)
