"""Tiled jobs beside others."""

from __future__ import annotations

import asyncio

from sdgrpc.domain import Finished, Output, Tiling
from tests.support.tasks import task

BARE = Output(omit_metadata=True)


async def drawn(engine, asked) -> tuple[bytes, int]:
    events = [event async for event in engine.submit(asked)]
    finished = next(event for event in events if isinstance(event, Finished))
    return next(event.image.data for event in events if hasattr(event, "image")), finished.largest_batch


async def test_tiled_and_plain_jobs_share_no_call(open_tiny) -> None:
    """Side by side each draws what it draws alone, to the bit, and nothing of the tiling stays behind."""
    plain, tiled = task(output=BARE), task(output=BARE, tiling=Tiling(horizontal=True))
    async with open_tiny() as engine:
        alone = [await drawn(engine, asked) for asked in (plain, tiled)]
        assert alone[0] != alone[1]
        assert await asyncio.gather(drawn(engine, plain), drawn(engine, tiled)) == alone
        assert [batch for _, batch in alone] == [1, 1]
        assert await drawn(engine, plain) == alone[0]
