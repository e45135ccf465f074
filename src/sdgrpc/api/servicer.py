"""The three calls: validate, decode, submit, stream, cancel."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from grpc import aio

from sdgrpc.api import codec
from sdgrpc.api.access.callers import caller, described
from sdgrpc.api.codec import Request
from sdgrpc.api.gate import Gate
from sdgrpc.api.traffic.holding import Holding
from sdgrpc.api.traffic.writing import Writer
from sdgrpc.api.validate import image_limits, read
from sdgrpc.domain import Task
from sdgrpc.engine.base import Engine
from sdgrpc.errors import SdgrpcError
from sdgrpc.images.readers import PictureReaders
from sdgrpc.settings import Settings
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc

logger = logging.getLogger(__name__)

READERS = (
    2  # threads, and processes, each of which may hold a few hundred MB while it decodes the largest image
)

Context = aio.ServicerContext[Any, pb.JobEvent]


class DiffusionServicer(pb_grpc.DiffusionServiceServicer):
    """Serves an engine once there is one. It owns the threads and processes that read requests."""

    def __init__(self, settings: Settings, gate: Gate, holding: Holding) -> None:
        self._settings, self._gate, self._holding = settings, gate, holding
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

    async def _run(self, request: Request, context: Context) -> None:
        with logged(request, described(context)) as entry, self._gate.enter() as engine, ExitStack() as held:
            place = held.enter_context(ExitStack())
            place.enter_context(self._holding.place(engine, caller()))
            with self._holding.holding(request.ByteSize()):
                entry.task = task = replace(await self._read(request, engine), caller=caller())
            held.enter_context(self._holding.holding(size_of(task)))
            async with aclosing(engine.submit(task, time_limit=context.time_remaining())) as events:
                sequence = 0
                async for event in events:
                    place.close()  # the job has one of its own now
                    await self._writer.write(context, codec.job_event(event, task.request_id, sequence))
                    sequence += 1

    async def _read(self, request: Request, engine: Engine) -> Task:
        """Make a task of the request; images are decoded in a thread, and only requests with them wait."""
        work = partial(read, request, self._settings, engine.models, self._readers)
        if isinstance(request, pb.GenerateRequest):
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def size_of(task: Task) -> int:
    """The bytes of a task's pictures and files."""
    pictures = sum(len(picture.data) for picture in (task.image, task.mask) if picture is not None)
    return pictures + sum(len(lora.content) for lora in task.loras)


@dataclass
class CallRecord:
    """What the log says about a call; `task` is None if the request was refused, `who` is the client."""

    rpc: str
    who: str
    task: Task | None = None

    def __str__(self) -> str:
        if self.task is None:
            return f"rpc={self.rpc}{self.who}"
        task, sampling = self.task, self.task.sampling
        return (
            f"rpc={self.rpc}{self.who} request_id={task.request_id!r} model={task.model!r} "
            f"size={task.width}x{task.height} steps={task.step_count} "
            f"images={sampling.image_count} loras={len(task.loras)}"
        )


@contextmanager
def logged(request: Request, who: str) -> Iterator[CallRecord]:
    """Write one line per call at its end: what, for whom, how it ended, how long it took. Never a prompt."""
    entry = CallRecord(codec.KINDS[type(request)].value, who)
    started, outcome = time.monotonic(), "CANCELLED"
    try:
        yield entry
        outcome = "OK"
    except SdgrpcError as error:
        outcome = error.reason
        raise
    except Exception:
        outcome = "INTERNAL"
        raise
    finally:
        logger.info("%s outcome=%s seconds=%.3f", entry, outcome, time.monotonic() - started)
