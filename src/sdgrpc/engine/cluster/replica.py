"""What runs in a replica's process: a LocalEngine, asked by a front door."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sdgrpc.domain import (
    EngineStatus,
    Event,
    LoraRef,
    ModelInfo,
    ModelState,
    Task,
    UploadHeader,
    UpscaleEvent,
    UpscalerInfo,
    UpscaleTask,
)
from sdgrpc.engine.cluster.messages.carrying import Carried
from sdgrpc.engine.cluster.messages.observations import FOLLOWED, Recorder
from sdgrpc.engine.cluster.messages.outbox import Item, Outbox
from sdgrpc.engine.cluster.receiving import Receiving
from sdgrpc.errors import SdgrpcError
from sdgrpc.machine.ending import STUCK
from sdgrpc.settings import Settings

if TYPE_CHECKING:
    from sdgrpc.engine.local import LocalEngine

CALLS = frozenset({"list_loras", "list_embeddings", "get_lora", "prepare_loras", "plan"})
"""What may be asked of the engine by its name."""
EARLY = 1000
"""Jobs that are remembered as cancelled, since their cancelling may come before they do."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a replica serves, the same in each."""

    models: tuple[ModelInfo, ...]
    upscalers: tuple[UpscalerInfo, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A replica's word of itself. `node` is the address of its machine."""

    node: str
    process_id: int
    status: EngineStatus
    states: tuple[ModelState, ...]

    @property
    def is_full(self) -> bool:
        """Whether another set as large as the largest would drive one out."""
        largest = max((one.size_bytes for one in self.status.resident_sets), default=0)
        return self.status.lora_set_bytes + largest > self.status.lora_set_budget_bytes


@dataclass(slots=True)
class Drawing:
    """A job of this replica, and whether its previews are wanted now."""

    work: asyncio.Task[None]
    previews: bool


class Replica:
    """Holds an engine. Its process ends when the engine cannot go on: whoever waits for it notices.

    Nothing is raised to the front door: a failure is an answer, so that no traceback travels.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        opening: Callable[[Settings, str], LocalEngine | Carried] | None = None,
    ) -> None:
        self._node = "" if opening else node_address()
        self._jobs: dict[str, Drawing] = {}
        self._cancelled: deque[str] = deque(maxlen=EARLY)
        with ThreadPoolExecutor(1) as thread:  # away from the actor's event loop: opening has one of its own
            self._opened = thread.submit(opening or opened, settings, name).result()
        if not isinstance(self._opened, Carried):
            self._receiving = Receiving(self._opened)

    @property
    def _engine(self) -> LocalEngine:
        if isinstance(self._opened, Carried):
            raise self._opened.error()
        return self._opened

    async def served(self) -> Served | Carried:
        """Return what it serves, or why it cannot."""
        if isinstance(self._opened, Carried):
            return self._opened
        return Served(tuple(self._engine.models), tuple(self._engine.upscaling.infos))

    async def report(self) -> Report:
        """Return its load and what it holds."""
        return Report(self._node, os.getpid(), self._engine.status(), tuple(self._engine.model_states()))

    async def draw(
        self, job: str, task: Task, time_limit: float | None, previews: bool
    ) -> AsyncGenerator[list[Item] | Carried, None]:
        """Yield a job's events, those that waited together; at last its failure, if it failed."""
        wanted = partial(self._wants_previews, job)
        events = self._engine.submit(task, time_limit=time_limit, previews_wanted=wanted)
        async with aclosing(self._told(job, events, task.caller, previews=previews)) as told:
            async for message in told:
                yield message

    async def upscale(
        self, job: str, task: UpscaleTask, time_limit: float | None, previews: bool
    ) -> AsyncGenerator[list[Item] | Carried, None]:
        """Yield the events of a picture that is enlarged, as `draw` does."""
        del time_limit
        events = self._engine.upscaling.upscale(task)
        async with aclosing(self._told(job, events, "", previews=previews)) as told:
            async for message in told:
                yield message

    async def _told(
        self,
        job: str,
        events: AsyncGenerator[Event, None] | AsyncGenerator[UpscaleEvent, None],
        caller: str,
        *,
        previews: bool,
    ) -> AsyncGenerator[list[Item] | Carried, None]:
        box, failure = Outbox(tells_begin=bool(caller)), list[Carried]()

        async def work() -> None:
            FOLLOWED.set((job, box.note))
            try:
                async with aclosing(events):
                    async for event in events:
                        await box.put(event)
            except Exception as error:  # it is for the front door, whatever it is
                failure.append(Carried.of(error))
            finally:
                box.end()

        if job in self._cancelled:
            return
        drawing = self._jobs[job] = Drawing(asyncio.create_task(work()), previews)
        try:
            while items := await box.take():
                yield items
            if failure:
                yield failure[0]
        finally:
            del self._jobs[job]
            drawing.work.cancel()
            await asyncio.wait([drawing.work])

    def _wants_previews(self, job: str) -> bool:
        return job in self._jobs and self._jobs[job].previews

    async def previews(self, job: str, wanted: bool) -> None:
        """Note whether somebody reads a job's previews now."""
        if job in self._jobs:
            self._jobs[job].previews = wanted

    async def cancel(self, job: str) -> None:
        """Drop a job before its next step, wherever its reader is."""
        if job in self._jobs:
            self._jobs[job].work.cancel()
        else:
            self._cancelled.append(job)

    async def call(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:  # noqa: ANN401
        """Ask the engine by one of the names in `CALLS`."""
        if name not in CALLS:
            raise ValueError(f"{name} is not of {', '.join(sorted(CALLS))}")
        try:
            return await getattr(self._engine, name)(*args, **keywords)
        except SdgrpcError as error:
            return Carried.of(error)

    async def receive(self, step: str, *args: Any) -> Any:  # noqa: ANN401
        """Do a step of an upload, see `Receiving`."""
        try:
            return await getattr(self._receiving, step)(*args)
        except SdgrpcError as error:
            return Carried.of(error)

    async def has(self, ref: LoraRef) -> bool:
        """Tell whether a file is here."""
        return await self._receiving.has(ref)

    async def fused(self, model: str, loras: Sequence[LoraRef]) -> str:
        """Return the id of a set that is fused here, empty where it is not."""
        return await self._receiving.fused(model, loras)

    async def content_of(self, ref: LoraRef) -> tuple[UploadHeader, bytes] | None:
        """Return a file that this replica has, None if it has none of that name or hash."""
        return await self._receiving.content_of(ref)

    async def keep(self, content: tuple[UploadHeader, bytes] | None) -> bool:
        """Keep a file of another replica as an upload; tell whether that was done."""
        return content is not None and await self._receiving.keep(*content)


def node_address() -> str:
    """Return the address by which Ray knows this machine."""
    import ray

    return str(ray.util.get_node_ip_address())


def opened(settings: Settings, name: str) -> LocalEngine | Carried:
    """Open a replica's engine, whose uploads are in a folder of its own; or say why it cannot be opened."""
    from sdgrpc.logs.configured import configure_logging
    from sdgrpc.machine.allocator import keep_freed_memory, libraries_kept

    configure_logging(settings.log_level, settings.log_format)
    keep_freed_memory()
    with libraries_kept():
        from sdgrpc.engine.opening import open_engine
    settings = settings.model_copy(update={"max_queued_jobs_per_token": None})  # the front door keeps it
    if settings.upload_dir is not None:
        settings = settings.model_copy(update={"upload_dir": settings.upload_dir / name})
    try:
        return open_engine(settings, on_failure=lambda: os._exit(STUCK), observer=Recorder())
    except Exception as error:  # it is for whoever opens the cluster
        return Carried.of(error)
