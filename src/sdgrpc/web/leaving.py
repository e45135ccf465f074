"""A caller that goes away: ASGI tells of it only to who listens, so somebody always does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

_T = TypeVar("_T")


class CallerLeft(Exception):
    """Nobody waits for the answer any more."""


async def unless_left(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """Wait for `work`, which is cancelled at once when the caller goes away; its body was read before.

    Raises:
        CallerLeft: it went away.

    """
    working = asyncio.ensure_future(work)
    listening = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise CallerLeft
    finally:
        for task in (working, listening):
            task.cancel()
        await asyncio.gather(working, listening, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
