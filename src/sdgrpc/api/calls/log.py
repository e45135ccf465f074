"""One line in the log for each call: who asked for what, how it ended and how long it took. Never a prompt.

What is written is a list of fields here; nothing else of a request or of its headers can get into a line.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from sdgrpc.api.calls.call import CANCELLED, OK, Call

logger = logging.getLogger(__name__)

QUIET = ("grpc.health.", "grpc.reflection.")
"""Asked again and again by whoever watches over a server: logged at debug where nothing is wrong."""

WORDS = frozenset(("token", "client", "request_id", "model"))
"""Fields that hold a client's or an operator's own words."""

Fields = Mapping[str, str | int | float]


class CallLog:
    """Writes the lines. Implements `api.calls.call.CallObserver`.

    A call without a valid token is logged at debug: whoever sends many must not fill the disk, and the
    warning about them counts them.
    """

    def begin(self, call: Call) -> None:
        """See `CallObserver.begin`."""

    def end(self, call: Call) -> None:
        """See `CallObserver.end`."""
        fields = fields_of(call)
        quiet = (
            call.method.startswith(QUIET) and call.code in (OK, CANCELLED)
        ) or call.code == "UNAUTHENTICATED"
        text = " ".join(f"{name}={_written(name, value)}" for name, value in fields.items())
        logger.log(logging.DEBUG if quiet else logging.INFO, "%s", text, extra={"call": fields})


def fields_of(call: Call) -> Fields:
    """What may be written of a call; fields that are empty are left out."""
    fields: dict[str, str | int | float | None] = {
        "rpc": call.method.rpartition("/")[2],
        "peer": call.peer,
        "token": call.token,
        "client": call.client,
        "request_id": call.request_id,
        "trace_id": call.trace_id,
    }
    if (task := call.task) is not None:
        fields |= {
            "model": task.model,
            "size": f"{task.width}x{task.height}",
            "steps": task.step_count,
            "images": task.sampling.image_count,
            "loras": len(task.loras),
        }
    fields |= {
        "upload_bytes": call.upload_bytes or None,
        "queue_seconds": None if call.queue_seconds is None else round(call.queue_seconds, 3),
        "code": call.code,
        "outcome": call.reason or call.code,
        "seconds": round(call.seconds, 3),
    }
    return {name: value for name, value in fields.items() if value not in ("", None)}


def _written(name: str, value: str | float) -> str:
    """A value as a line has it; words in quotes, so that they cannot look like other fields."""
    if name in WORDS:
        return repr(value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)
