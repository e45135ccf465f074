"""What is worth a report."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc import aio

from sdgrpc.api.watching import interval_of, is_same
from sdgrpc.v1 import catalog_pb2 as pb
from tests.support.api import running_api
from tests.support.engine import FakeEngine

AT_ONCE = pb.WatchStatusRequest(min_interval={})


def looking() -> int:
    """How many tasks look at the engine."""
    return sum("Watchers._look" in str(task.get_coro()) for task in asyncio.all_tasks())


def status(**changes) -> pb.WatchStatusResponse:
    return pb.WatchStatusResponse(**{"running": 1, "steps_per_second": 10.0, **changes})


@pytest.mark.parametrize("change", [{"steps_per_second": 10.5}, {"rows_per_call": 0.0}, {}])
def test_noise_is_no_report(change: dict[str, float]) -> None:
    """Measured numbers differ a little from call to call."""
    assert is_same(status(), status(**change))


@pytest.mark.parametrize(
    "change", [{"steps_per_second": 20.0}, {"steps_per_second": 0.0}, {"running": 2}, {"jobs_finished": 1}]
)
def test_changes_are(change: dict[str, float]) -> None:
    """Counts by one, measured numbers by a good share, or to nothing."""
    assert not is_same(status(), status(**change))


def test_unset_is_a_second() -> None:
    """And zero is zero."""
    assert interval_of(pb.WatchStatusRequest()) == 1.0
    assert interval_of(pb.WatchStatusRequest(min_interval={"nanos": 500_000_000})) == 0.5
    assert interval_of(pb.WatchStatusRequest(min_interval={})) == 0.0


async def test_one_look_serves_all_who_watch() -> None:
    """However many there are; each is told of a change, and nobody looks once they have left."""
    engine = FakeEngine()
    async with running_api(engine) as api:
        calls: list[Any] = [api.catalog.WatchStatus(AT_ONCE) for _ in range(8)]
        assert [(await call.read()).ready for call in calls] == [True] * 8
        assert looking() == 1
        engine.ready = False
        assert [(await call.read()).ready for call in calls] == [False] * 8
        for call in calls:
            call.cancel()
        async with asyncio.timeout(30):
            while looking():  # noqa: ASYNC110 - the server hears of it when it does
                await asyncio.sleep(0.01)
        again: Any = api.catalog.WatchStatus(AT_ONCE)
        assert not (await again.read()).ready
        again.cancel()


async def test_who_joins_hides_no_change_from_who_waits() -> None:
    """The newcomer's first report is of a change; those who watched before are told of it too."""
    engine = FakeEngine()
    async with running_api(engine) as api:
        first: Any = api.catalog.WatchStatus(AT_ONCE)
        assert (await first.read()).ready
        for ready in (False, True):
            engine.ready = ready
            newcomer: Any = api.catalog.WatchStatus(AT_ONCE)
            assert (await newcomer.read()).ready is ready
            async with asyncio.timeout(30):
                assert (await first.read()).ready is ready


async def test_an_engine_that_cannot_be_looked_at_ends_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an error, not with silence."""
    engine = FakeEngine()
    async with running_api(engine) as api:
        call = api.catalog.WatchStatus(AT_ONCE)
        await call.read()
        monkeypatch.setattr(engine, "status", lambda: 1 / 0)
        with pytest.raises(aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        monkeypatch.undo()
