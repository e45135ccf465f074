"""Failures that cross processes: by class and content, never with the text of a traceback."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from typing import Any

from sdgrpc.errors import SdgrpcError, Unexpected

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Carried:
    """A failure on its way. Exceptions' own pickling calls their constructors with the wrong arguments."""

    kind: type[SdgrpcError]
    args: tuple[Any, ...]
    fields: dict[str, Any]

    @classmethod
    def of(cls, error: BaseException) -> Carried:
        """Take a failure apart; one without a name is logged here, and goes on as its log's id."""
        if not isinstance(error, SdgrpcError):
            error_id = uuid.uuid4().hex[:12]
            logger.error("unexpected failure %s", error_id, exc_info=error)
            error = Unexpected(error_id)
        return cls(type(error), error.args, dict(vars(error)))

    def error(self) -> SdgrpcError:
        """Put it together again."""
        made = self.kind.__new__(self.kind, *self.args)
        made.args = self.args
        vars(made).update(self.fields)
        return made
