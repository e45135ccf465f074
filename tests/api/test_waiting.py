"""Waiting for one thing or another."""

from __future__ import annotations

import asyncio

import pytest

from sdgrpc.api.waiting import first_of


async def never() -> None:
    await asyncio.Event().wait()


async def at_once() -> None:
    await asyncio.sleep(0)


async def wrong() -> None:
    raise ValueError("wrong")


async def test_work_that_ends_first() -> None:
    """True, or its error."""
    assert await first_of(at_once(), never())
    with pytest.raises(ValueError, match="wrong"):
        await first_of(wrong(), never())


async def test_work_that_is_cut_short() -> None:
    """False, by the other or by the time; it is cancelled either way."""
    ended = []

    async def work() -> None:
        try:
            await never()
        finally:
            ended.append(1)

    assert not await first_of(work(), at_once())
    assert not await first_of(work(), never(), seconds=0.01)
    assert len(ended) == 2


async def test_a_cancelled_caller_leaves_nothing_behind() -> None:
    """Both are cancelled with it."""
    before = asyncio.all_tasks()
    waiting = asyncio.ensure_future(first_of(never(), never()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert asyncio.all_tasks() == before
