"""The engine on this machine's device."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.cache import PromptCache
from sdgrpc.domain import (
    Accepted,
    EngineStatus,
    Event,
    LoraDetails,
    LoraInfo,
    LoraPage,
    LoraQuery,
    LoraRef,
    ModelInfo,
    ModelState,
    Output,
    Picture,
    Prepared,
    Progress,
    Sampling,
    SigmaSpacing,
    Task,
    TaskKind,
    UploadHeader,
)
from sdgrpc.engine.admission import Turns
from sdgrpc.engine.base import Upload
from sdgrpc.engine.catalog import EngineCatalog
from sdgrpc.engine.job import Job
from sdgrpc.engine.loop import EngineLoop
from sdgrpc.engine.models import Loadable, ServedModels
from sdgrpc.engine.options import DEFAULT_OPTIONS, EngineOptions, LoopOptions
from sdgrpc.engine.runner import JobResources, LocalRunner
from sdgrpc.engine.stream import EventStream, Item
from sdgrpc.lora.store.library import LoraFile, LoraLibrary

logger = logging.getLogger(__name__)


class LocalEngine:
    """Serves `models` on their device with the LoRAs of `library`. Implements `engine.base.Engine`.

    Models that come loaded stay so; the others are loaded as tasks name them, see `ModelPool`. It owns its
    threads, the fused sets and, from then on, the models: whoever opens it closes it.
    """

    def __init__(
        self,
        models: Sequence[Model | Loadable],
        library: LoraLibrary,
        options: EngineOptions = DEFAULT_OPTIONS,
    ) -> None:
        self._models = ServedModels(
            models,
            capacity=options.resident_models,
            lora_cache_bytes=options.lora_cache_bytes,
            turns=Turns(options.loop.max_running_jobs_per_token),
        )
        self._library, self._options = library, options
        self._prompts = PromptCache(options.prompt_cache_bytes)
        self._job_ids = itertools.count()
        self._readers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sdgrpc-read")
        self._renderers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sdgrpc-preview")
        self._loop = EngineLoop(LocalRunner(self._prompts), options.loop, admission=self._models.pool)
        self._catalog = EngineCatalog(
            self._models, library, self._loop, options.max_upload_bytes, self._job_ids
        )
        self._ready = False

    @property
    def models(self) -> Sequence[ModelInfo]:
        """See `Engine.models`."""
        return self._models.infos

    def model_states(self) -> Sequence[ModelState]:
        """See `Engine.model_states`."""
        return self._models.states()

    @property
    def loop_options(self) -> LoopOptions:
        """The bounds that the engine keeps."""
        return self._loop.options

    @property
    def library(self) -> LoraLibrary:
        """The LoRA files that tasks can name."""
        return self._library

    async def warm_up(self) -> None:
        """Load the models that are there from the start, and draw one small picture of one step with each.

        Raises:
            ModelError: one cannot be loaded, or does not work.

        """
        for info in self._models.first:
            started = time.monotonic()
            async for _ in self._events(warm_up_task(info), counted=False):
                continue
            logger.info("model %s drew its first step in %.2f s", info.name, time.monotonic() - started)
        self._ready = True

    def submit(self, task: Task) -> AsyncGenerator[Event, None]:
        """See `Engine.submit`."""
        return self._events(task, counted=True)

    async def _events(self, task: Task, *, counted: bool) -> AsyncGenerator[Event, None]:
        self._models.check(task.model)
        self._loop.check_room(task.caller)
        loop = asyncio.get_running_loop()
        files: list[LoraFile] = []
        if task.loras:  # the index may have to look at the folder
            files = await loop.run_in_executor(
                self._readers, lambda: [self._library.find(ref) for ref in task.loras]
            )
        with self._library.in_use(files):
            job_id = next(self._job_ids)
            job = Job(job_id, task, EventStream(loop), counted=counted)
            # Held by the job alone, which lets the model go at its end, however late its events are read.
            job.resources = JobResources(partial(self._models.pool.of, job_id), files)
            position = self._loop.submit(job)
            try:
                yield Accepted(position, task, task.warnings)
                async for item in job.stream:
                    yield await self._rendered(item)
            finally:
                self._loop.cancel(job)

    async def _rendered(self, item: Item) -> Event:
        """Make the previews now that somebody reads them, away from the threads that draw."""
        event, render = item.event, item.render
        if isinstance(event, Progress) and render is not None:
            previews = await asyncio.get_running_loop().run_in_executor(self._renderers, render)
            return replace(event, previews=previews)
        return event

    async def list_loras(self, query: LoraQuery) -> LoraPage:
        """See `Engine.list_loras`."""
        return await self._catalog.list_loras(query)

    async def get_lora(self, ref: LoraRef, model: str, *, include_modules: bool) -> LoraDetails:
        """See `Engine.get_lora`."""
        return await self._catalog.get_lora(ref, model, include_modules=include_modules)

    async def prepare_loras(self, model: str, loras: Sequence[LoraRef], *, caller: str = "") -> Prepared:
        """See `Engine.prepare_loras`."""
        return await self._catalog.prepare_loras(model, loras, caller=caller)

    async def begin_upload(self, header: UploadHeader) -> Upload | LoraInfo:
        """See `Engine.begin_upload`."""
        return await self._catalog.begin_upload(header)

    def status(self) -> EngineStatus:
        """See `Engine.status`."""
        running, queued, finished = self._loop.counts()
        rows_per_call, steps_per_second = self._loop.meter.rates()
        sets, prompts = self._models.set_stats(), self._prompts.stats()
        return EngineStatus(
            ready=self._ready,
            running=running,
            queued=queued,
            rows_per_call=rows_per_call,
            steps_per_second=steps_per_second,
            lora_sets=sets.sets,
            lora_set_bytes=sets.bytes,
            fuse_count=sets.fuse_count,
            jobs_finished=finished,
            prompts=prompts.prompts,
            prompt_bytes=prompts.bytes,
            queue_size=self._loop.options.queue_size,
            estimated_wait_seconds=self._loop.estimated_wait(),
            lora_set_budget_bytes=self._options.lora_cache_bytes,
            resident_sets=self._models.resident_sets(),
        )

    async def drain(self) -> None:
        """See `Engine.drain`."""
        await asyncio.to_thread(self._loop.wait_idle)

    async def close(self) -> None:
        """See `Engine.close`."""
        self._ready = False
        await asyncio.to_thread(self._loop.close)
        await asyncio.to_thread(self._models.pool.close)
        await asyncio.to_thread(self._catalog.close)
        self._readers.shutdown()
        self._renderers.shutdown()
        self._models.release()


def warm_up_task(info: ModelInfo) -> Task:
    """The smallest real task for a model: one guided step, at most 256 pixels wide, decoded.

    A model that can only inpaint redraws all of a black picture.
    """
    width, height = min(info.width, 256), min(info.height, 256)
    inpaints = info.is_inpainting
    return Task(
        kind=TaskKind.INPAINT if inpaints else TaskKind.GENERATE,
        request_id="warm-up",
        model=info.name,
        prompt="a picture",
        negative_prompt="",
        loras=(),
        sampling=Sampling(
            steps=1,
            guidance_scale=info.guidance_scale,
            scheduler=info.scheduler,
            sigma_spacing=SigmaSpacing.DEFAULT,
            seed=0,
        ),
        output=Output(),
        width=width,
        height=height,
        image=Picture(width, height, 3, bytes(3 * width * height)) if inpaints else None,
        mask=Picture(width, height, 1, b"\xff" * (width * height)) if inpaints else None,
    )
