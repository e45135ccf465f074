"""The calls that draw and upscale: validate, decode, submit, stream, cancel."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from grpc import aio

from sdgrpc.api import codec
from sdgrpc.api.access.callers import caller
from sdgrpc.api.calls.call import current
from sdgrpc.api.codec import Request
from sdgrpc.api.gate import Gate
from sdgrpc.api.jobs.again import kept_request
from sdgrpc.api.jobs.content import Content
from sdgrpc.api.jobs.elsewhere import Elsewhere
from sdgrpc.api.jobs.kept import Draw, KeptJob
from sdgrpc.api.jobs.registry import KeptJobs
from sdgrpc.api.jobs.servicer import follow
from sdgrpc.api.jobs.sharing import Sharing
from sdgrpc.api.pictures import upscaling
from sdgrpc.api.prompts.changing import changes_much
from sdgrpc.api.traffic.holding import Holding
from sdgrpc.api.traffic.writing import Writer
from sdgrpc.api.validate import image_limits, read
from sdgrpc.domain import Task
from sdgrpc.engine.base import Engine, always
from sdgrpc.images.decoder_processes import PictureReaders
from sdgrpc.settings import Settings
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc

logger = logging.getLogger(__name__)

READERS = (
    2  # threads, and processes, each of which may hold a few hundred MB while it decodes the largest image
)

Context = aio.ServicerContext[Any, pb.JobEvent]
T = TypeVar("T")
Events = AsyncGenerator[pb.JobEvent, None]


class DiffusionServicer(pb_grpc.DiffusionServiceServicer):
    """Serves an engine once there is one. It owns the threads and processes that read requests."""

    def __init__(
        self, settings: Settings, gate: Gate, holding: Holding, kept: KeptJobs, sharing: Sharing
    ) -> None:
        self._settings, self._gate, self._holding = settings, gate, holding
        self._kept, self._sharing = kept, sharing
        self._writer = Writer(settings.write_timeout, gate.closing)
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="sdgrpc-request")
        limits, seconds = image_limits(settings), settings.image_read_timeout
        self._readers = PictureReaders(limits, seconds=seconds, idle=READERS)

    def start(self) -> None:
        """Start a process for the first picture, so that it need not wait for one."""
        self._threads.submit(self._readers.warm_up)

    async def idle(self) -> None:
        """Return when no call is inside."""
        await self._gate.idle()

    def close(self) -> None:
        """End the threads and processes; requests that still wait for one fail. May be called twice."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._readers.close()

    # The calls write to their context instead of yielding: a cancelled call then ends by CancelledError at
    # an `await` in here, wherever it was, and never by being forgotten at a `yield`.

    async def Generate(  # type: ignore[override]  # noqa: N802 - the contract's name; see above
        self, request: pb.GenerateRequest, context: Context
    ) -> None:
        """See the contract."""
        await self._run(request, context)

    async def Transform(  # type: ignore[override]  # noqa: N802
        self, request: pb.TransformRequest, context: Context
    ) -> None:
        """See the contract."""
        await self._run(request, context)

    async def Inpaint(  # type: ignore[override]  # noqa: N802
        self, request: pb.InpaintRequest, context: Context
    ) -> None:
        """See the contract."""
        await self._run(request, context)

    async def Upscale(  # type: ignore[override]  # noqa: N802
        self, request: pb.UpscaleRequest, context: aio.ServicerContext[Any, pb.UpscaleEvent]
    ) -> None:
        """See the contract."""
        with self._gate.enter() as engine, ExitStack() as held:
            with self._holding.place(engine, caller()), self._holding.holding(request.ByteSize()):
                reading = partial(
                    upscaling.read, request, self._settings, engine.upscaling.infos, self._readers
                )
                task = await asyncio.get_running_loop().run_in_executor(self._threads, reading)
            current().request_id = task.request_id
            held.enter_context(self._holding.holding(len(task.image.data)))
            async with aclosing(engine.upscaling.upscale(task)) as events:
                sequence = 0
                async for event in events:
                    await self._writer.write(context, upscaling.message(event, task.request_id, sequence))
                    sequence += 1

    async def _run(self, request: Request, context: Context) -> None:
        with self._gate.enter() as engine:
            deadline = deadline_of(context)
            job = await self._kept_job(request, engine, deadline)
            if job is not None:
                await follow(job, -1, context, self._writer)
                return
            async with aclosing(self._draw(request, engine, deadline)) as events:
                async for event in events:
                    await self._writer.write(context, event)

    async def _kept_job(
        self, request: Request, engine: Engine, deadline: float | None
    ) -> KeptJob | Elsewhere | None:
        """Return the job that is kept for the request, one that begins now included; None if none is."""
        keeps, other = request.on_disconnect == pb.ON_DISCONNECT_KEEP, None
        if request.request_id and not self._kept.has(caller(), request.request_id):
            other = await self._sharing.find_if_there(caller(), request.request_id)
        if keeps and not request.request_id:
            request.request_id = uuid.uuid4().hex
        if not keeps and other is None and not self._kept.has(caller(), request.request_id):
            return None
        is_answered = other is not None and not other.known.is_void
        with ExitStack() as held:
            if not is_answered and not self._kept.answers(caller(), request.request_id):
                held.enter_context(self._holding.place(engine, caller()))
            held.enter_context(self._holding.holding(request.ByteSize()))
            content = await self._in_thread(request, partial(Content.of, request))
        if (job := self._kept.find(caller(), request.request_id, content)) is not None:
            return job
        if other is not None and (answering := other.answering(content)) is not None:
            return answering
        return await self._begin(request, content, deadline) if keeps else None

    async def _begin(self, request: Request, content: Content, deadline: float | None) -> KeptJob | Elsewhere:
        """Draw a request that is kept; or return the job of another server, or call, that was quicker."""
        who, draw = caller(), self.drawing(request, deadline)
        if not self._sharing.is_on:
            return self._kept.start(who, request, content, draw)
        shared = kept_request(request, content, who, deadline)
        try:
            other = await self._sharing.claim(shared)
            job = self._kept.find(who, request.request_id, content)
            if job is None and other is None:
                return self._kept.start(who, request, content, draw, shared)
        except BaseException:
            self._sharing.release(shared)
            raise
        self._sharing.release(shared)
        answering = job or (other and other.answering(content))
        return answering or await self._begin(request, content, deadline)

    def drawing(self, request: Request, deadline: float | None) -> Draw:
        """Return what draws a request by a time of the monotonic clock, in a task that is no call's."""
        return partial(self._draw_apart, request, deadline)

    async def _draw_apart(
        self, request: Request, deadline: float | None, previews_wanted: Callable[[], bool]
    ) -> Events:
        """Draw as a call that draining waits for."""
        with self._gate.enter() as engine:
            async with aclosing(self._draw(request, engine, deadline, previews_wanted)) as events:
                async for event in events:
                    yield event

    async def _draw(
        self,
        request: Request,
        engine: Engine,
        deadline: float | None,
        previews_wanted: Callable[[], bool] = always,
    ) -> Events:
        with ExitStack() as held:
            place = held.enter_context(ExitStack())
            place.enter_context(self._holding.place(engine, caller()))
            with self._holding.holding(request.ByteSize()):
                task = replace(await self._read(request, engine), caller=caller())
            call = current()
            call.task, call.request_id = task, task.request_id
            held.enter_context(self._holding.holding(size_of(task)))
            left = None if deadline is None else deadline - time.monotonic()
            submitted = engine.submit(task, time_limit=left, previews_wanted=previews_wanted)
            async with aclosing(submitted) as events:
                sequence = 0
                async for event in events:
                    place.close()  # the job has one of its own now
                    yield codec.job_event(event, task.request_id, sequence)
                    sequence += 1

    async def task_of(self, request: Request, engine: Engine) -> Task:
        """Judge a request that is not to be drawn; it takes its memory of what requests may."""
        with self._holding.holding(request.ByteSize()):
            return replace(await self._read(request, engine), caller=caller())

    async def _read(self, request: Request, engine: Engine) -> Task:
        """Make a task of the request."""
        return await self._in_thread(
            request, partial(read, request, self._settings, engine.models, self._readers)
        )

    async def _in_thread(self, request: Request, work: Callable[[], T]) -> T:
        """Run work on a request with images, or much that changes, in a thread; only such requests wait."""
        if isinstance(request, pb.GenerateRequest) and not changes_much(request):
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def deadline_of(context: Context) -> float | None:
    """When a call ends in any case, as a time of the monotonic clock; None where it may take for ever."""
    left = context.time_remaining()
    return None if left is None else time.monotonic() + left


def size_of(task: Task) -> int:
    """The bytes of a task's pictures and files."""
    pictures = sum(len(picture.data) for picture in (task.image, task.mask) if picture is not None)
    return pictures + sum(len(lora.content) for lora in task.loras)
