"""A running call of the client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from sdgrpc.client.errors import (
    JobCancelledError,
    SdgrpcServerError,
    incomplete,
    server_error,
)
from sdgrpc.client.events import Collector, Event, Result
from sdgrpc.client.jobs.records import kept_id
from sdgrpc.client.jobs.resuming import Resumption
from sdgrpc.client.pictures import DrawnImage
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import jobs_pb2

if TYPE_CHECKING:
    from sdgrpc.v1.jobs_pb2_grpc import JobServiceAsyncStub


CANCEL_SECONDS = 10.0
"""How long the server may take to cancel a job that it keeps."""


class AsyncJob:
    """A running call: iterate its events, or wait for its images. Leaving its `async with` block closes it.

    That cancels the job, unless it was sent with `on_disconnect="keep"`. A call that is cut after its job was
    accepted is resumed, see `Client`. Iterating and waiting raise SdgrpcServerError, or one of its
    subclasses, if the call fails.
    """

    def __init__(
        self,
        resumption: Resumption,
        call: Callable[[Any, float | None], grpc.aio.UnaryStreamCall[Any, pb.JobEvent]],
        jobs: JobServiceAsyncStub | None = None,
    ) -> None:
        self._resumption, self._make_call, self._jobs = resumption, call, jobs
        self._collector = Collector()
        self._closed = asyncio.Event()
        self._call = self._next_call()
        self._cancelling: object = None

    def _next_call(self) -> grpc.aio.UnaryStreamCall[Any, pb.JobEvent]:
        return self._make_call(self._resumption.request, self._resumption.time_left())

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            cause: grpc.aio.AioRpcError | None = None
            failure: SdgrpcServerError = incomplete()
            try:
                async for message in self._call:
                    event = self._collector.take(message) if self._resumption.is_new(message) else None
                    if event is not None:
                        yield event
            except grpc.aio.AioRpcError as error:
                failure, cause = server_error(error), error
            except asyncio.CancelledError:
                # grpc says the same for "your task was cancelled", which must travel on, and for `cancel()`.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                raise JobCancelledError("CANCELLED", "cancelled by this client") from None
            if cause is None and self._resumption.finished:
                return
            wait = self._resumption.wait_after(failure)
            if wait is None or await self._is_closed_within(wait):
                if cause is None:
                    return  # of which `result` tells
                raise self._resumption.failure_after(failure) from cause
            self._call = self._next_call()

    async def _is_closed_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), seconds)
        return self._closed.is_set()

    async def result(self) -> Result:
        """Wait for the end of the call; events that were iterated before count."""
        async for _ in self:
            continue
        return self._collector.result()

    async def images(self) -> tuple[DrawnImage, ...]:
        """Wait for the end of the call and return its images in order."""
        return (await self.result()).images

    def cancel(self) -> None:
        """Cancel the job: the server drops it before its next step. Does nothing after its end.

        One that is kept is cancelled by a call that goes on behind this one; `AsyncClient.cancel_job` waits.
        """
        self.close()
        request_id = kept_id(self._resumption.request)
        if request_id and self._jobs is not None and not self._resumption.finished:
            request = jobs_pb2.CancelJobRequest(request_id=request_id)
            self._cancelling = self._jobs.CancelJob(request, timeout=CANCEL_SECONDS)

    async def detach(self) -> str:
        """Leave a job that is kept, once it is accepted, and return its id; see `Job.detach`."""
        if not kept_id(self._resumption.request):
            raise ValueError('a job that is to be left is sent with on_disconnect="keep"')
        if not self._resumption.accepted:
            await anext(aiter(self), None)
        self.close()
        return kept_id(self._resumption.request)

    def close(self) -> None:
        """Close the call: a job that is not kept is cancelled, one that is goes on."""
        self._closed.set()
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
