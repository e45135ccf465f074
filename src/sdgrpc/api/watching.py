"""WatchStatus: a report now, and one whenever something changed."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc import aio

from sdgrpc.api import catalog_codec as codec
from sdgrpc.api.gate import Gate
from sdgrpc.api.waiting import first_of
from sdgrpc.engine.base import Engine
from sdgrpc.errors import Draining, TooManyCalls
from sdgrpc.v1 import catalog_pb2 as pb

MAX_WATCHERS = 64
DEFAULT_INTERVAL = 1.0
LOOK_SECONDS = 0.1
"""An engine's state is numbers, of which some fade by themselves: it is looked at so often, once for all."""
NOISE = 0.15
"""The share by which a measured number has to differ from the one reported, so that noise is no report."""

Context = aio.ServicerContext[Any, pb.WatchStatusResponse]


class Watchers:
    """Reports to at most 64 calls at a time; a slow reader gets fewer reports, and none waits in memory.

    One task looks at the engine while anybody watches, and wakes the calls where something changed: a call
    that waits costs nothing.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._count = 0
        self._seen = pb.WatchStatusResponse()
        self._changed = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    async def watch(self, request: pb.WatchStatusRequest, context: Context) -> None:
        """Report until the call is cancelled or the server leaves.

        Raises:
            TooManyCalls: as many watch already.
            Draining: the server leaves; a report with `ready` false went before.

        """
        engine = self._gate.engine()
        if self._count >= MAX_WATCHERS:
            raise TooManyCalls(f"{MAX_WATCHERS} calls watch the status already", retry_after=5.0)
        self._count += 1
        try:
            await self._report(engine, interval_of(request), context)
        finally:
            self._count -= 1
            if not self._count and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _report(self, engine: Engine, interval: float, context: Context) -> None:
        closing = self._gate.closing
        told = self._see(engine)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(engine))
            self._looking.add_done_callback(lambda _: self._changed.set())
        looking = self._looking
        await context.write(told)
        while not closing.is_set():
            await first_of(asyncio.sleep(interval), closing.wait())
            while is_same(told, self._seen) and not closing.is_set():
                await first_of(self._changed.wait(), closing.wait())
                if looking.done():
                    looking.result()  # it does not end before the server does, but by an error
            told = self._see(engine)
            await context.write(told)
        if told.ready:
            await context.write(self._status(engine))
        raise Draining("the server is stopping; watch another")

    async def _look(self, engine: Engine) -> None:
        """See what changes, and wake those who wait for it."""
        while not self._gate.closing.is_set():
            await asyncio.sleep(LOOK_SECONDS)
            self._see(engine)

    def _see(self, engine: Engine) -> pb.WatchStatusResponse:
        """Return the state, and wake all who were told of another: who looks first sees for everybody."""
        now = self._status(engine)
        if not is_same(self._seen, now):
            self._seen = now
            self._changed.set()
            self._changed = asyncio.Event()
        return now

    def _status(self, engine: Engine) -> pb.WatchStatusResponse:
        now = engine.status()
        ready = now.ready and not self._gate.leaving
        return codec.status(now, engine.model_states(), ready=ready)


def interval_of(request: pb.WatchStatusRequest) -> float:
    """The shortest time between two reports, in seconds."""
    if not request.HasField("min_interval"):
        return DEFAULT_INTERVAL
    return request.min_interval.seconds + request.min_interval.nanos / 1e9


def is_same(told: pb.WatchStatusResponse, now: pb.WatchStatusResponse) -> bool:
    """Whether there is nothing to report: measured numbers may differ a little."""
    pairs = [
        (told.rows_per_call, now.rows_per_call),
        (told.steps_per_second, now.steps_per_second),
        (_seconds(told), _seconds(now)),
    ]
    if any(bool(old) != bool(new) or abs(old - new) > NOISE * max(old, new) for old, new in pairs):
        return False
    counted = pb.WatchStatusResponse()
    counted.CopyFrom(now)
    counted.rows_per_call, counted.steps_per_second = told.rows_per_call, told.steps_per_second
    expected = pb.WatchStatusResponse()
    expected.CopyFrom(told)
    for each in (counted, expected):
        each.ClearField("estimated_wait")
    return counted == expected


def _seconds(status: pb.WatchStatusResponse) -> float:
    return status.estimated_wait.seconds + status.estimated_wait.nanos / 1e9
