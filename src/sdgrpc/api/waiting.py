"""Waiting for one thing or another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


async def first_of(work: Awaitable[object], end: Awaitable[object], *, seconds: float | None = None) -> bool:
    """Run `work` until it is done (True, or its error), or until `end` or the time cut it short (False).

    Whatever is not done by then is cancelled, also if the caller is.
    """
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(end)]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0] in done:
            tasks[0].result()
        return tasks[0] in done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
