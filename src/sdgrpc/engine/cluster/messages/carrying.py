"""Failures that cross processes: as answers, so that Ray adds no text of a traceback."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass

from sdgrpc.errors import SdgrpcError, Unexpected

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Carried:
    """A failure on its way, which travels by class and content alone: see `SdgrpcError.__reduce__`."""

    failure: SdgrpcError

    @classmethod
    def of(cls, error: BaseException) -> Carried:
        """Take a failure along; one without a name is logged here, and goes on as its log's id."""
        if not isinstance(error, SdgrpcError):
            error_id = uuid.uuid4().hex[:12]
            logger.error("unexpected failure %s", error_id, exc_info=error)
            error = Unexpected(error_id)
        return cls(error)

    def error(self) -> SdgrpcError:
        """Return the failure, to be raised."""
        return self.failure
