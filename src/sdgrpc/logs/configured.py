"""The log on standard error: lines of text for people, or of JSON for whatever collects them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
OURS = "sdgrpc"


def configure_logging(level: str, form: str = "text") -> None:
    """Write our lines at `level` and other libraries' warnings to standard error, as `text` or `json`."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(TEXT) if form == "text" else json_formatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger(OURS).setLevel(level.upper())


def json_formatter() -> logging.Formatter:
    """Return what writes a record as a line of JSON: `time`, `level`, `logger`, `event`, a call's fields."""
    before: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.stdlib.ExtraAdder(allow=["call"]),  # whatever else a library hangs on a record stays out
    ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _spread,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )


def _spread(_logger: Any, _name: str, event: EventDict) -> EventDict:  # noqa: ANN401 - structlog's signature
    """A call's fields beside the others instead of in the text."""
    fields: Mapping[str, object] | None = event.pop("call", None)
    return event if fields is None else {**event, "event": "call", **fields}
