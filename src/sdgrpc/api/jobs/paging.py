"""Pages of a caller's kept jobs: where one ends and the next begins."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from uuid import uuid4

from sdgrpc.api.jobs.kept import KeptJob
from sdgrpc.errors import FieldViolation, InvalidRequest

MAX_PAGE = 1000

RUN = uuid4().hex[:8]
"""Tells tokens of this process, whose jobs they count, from another's."""


def page_of(jobs: Sequence[KeptJob], size: int, token: str) -> tuple[Sequence[KeptJob], str]:
    """Return the jobs of one page, and the token of the next; empty after the last.

    Args:
        jobs: all, in the order of their `number`.
        size: how many there are on a page.
        token: as the page before told it; empty for the first.

    Raises:
        InvalidRequest: the token is none of this server's.

    """
    after = _number(token) if token else -1
    rest = [job for job in jobs if job.number > after]
    page = rest[:size]
    return page, _token(page[-1].number) if len(rest) > size else ""


def _token(number: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([RUN, number]).encode()).decode()


def _number(token: str) -> int:
    try:
        run, number = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (ValueError, TypeError, RecursionError):
        run, number = "", -1
    if run != RUN or not isinstance(number, int):
        text = "is not a `next_page_token` of this server since its start"
        raise InvalidRequest([FieldViolation("page_token", text)])
    return number
