"""Pages of a caller's kept jobs: where one ends and the next begins."""

from __future__ import annotations

import base64
import json

from sdgrpc.errors import FieldViolation, InvalidRequest
from sdgrpc.v1 import jobs_pb2 as pb

MAX_PAGE = 1000

Place = tuple[float, str]
"""When a job was created, and its id: the oldest are first, whichever server is asked for the next page."""

START: Place = (0.0, "")
"""Before the first job."""


def page_of(jobs: dict[Place, pb.Job], size: int) -> tuple[list[pb.Job], str]:
    """Return the jobs of one page, and the token of the next; empty after the last.

    Args:
        jobs: those after the page before, more than one page of them if there are more.
        size: how many there are on a page.

    """
    places = sorted(jobs)
    page = places[:size]
    return [jobs[place] for place in page], _token(page[-1]) if len(places) > size else ""


def place_of(token: str) -> Place:
    """Return the place after which a page begins.

    Raises:
        InvalidRequest: the token is none of ListJobs.

    """
    if not token:
        return START
    try:
        created, request_id = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (ValueError, TypeError, RecursionError):
        created, request_id = None, None
    if not isinstance(created, float) or not isinstance(request_id, str):
        raise InvalidRequest([FieldViolation("page_token", "is not a `next_page_token` of ListJobs")])
    return created, request_id


def _token(place: Place) -> str:
    return base64.urlsafe_b64encode(json.dumps(place, ensure_ascii=False).encode()).decode()
