"""The engine on this machine's device."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TypeVar

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.cache import PromptCache
from sdgrpc.diffusion.upscaling.network import Upscaler
from sdgrpc.domain import (
    Accepted,
    EngineStatus,
    Event,
    JobPlan,
    ModelInfo,
    ModelState,
    Task,
)
from sdgrpc.engine.base import always
from sdgrpc.engine.grids.merging import merged
from sdgrpc.engine.hashing.files import FileHashes
from sdgrpc.engine.hashing.models import ModelHashes
from sdgrpc.engine.job import Job
from sdgrpc.engine.loop import EngineLoop
from sdgrpc.engine.lora_calls import EngineCatalog
from sdgrpc.engine.models.served_models import Loadable, ServedModels, weight_files
from sdgrpc.engine.models.warm_up import warm_up
from sdgrpc.engine.observing.observer import Observer
from sdgrpc.engine.options import DEFAULT_OPTIONS, EngineOptions, LoopOptions
from sdgrpc.engine.pictures.rendering import Renderers
from sdgrpc.engine.queueing.turns import Turns
from sdgrpc.engine.runner import LocalRunner
from sdgrpc.engine.sets.finding import Finding
from sdgrpc.engine.sets.prefetching import Prefetching
from sdgrpc.engine.status import engine_status
from sdgrpc.engine.stream import EventStream, Undelivered
from sdgrpc.engine.supervision.call_times import CallShape
from sdgrpc.engine.supervision.runner import SupervisedRunner
from sdgrpc.engine.supervision.supervisor import Supervisor
from sdgrpc.engine.timing.estimates import Estimates
from sdgrpc.engine.timing.planning import Planner
from sdgrpc.engine.upscaling import Upscaling
from sdgrpc.engine.work import first_set
from sdgrpc.lora.embeddings.library import EmbeddingLibrary
from sdgrpc.lora.store.library import LoraLibrary

T = TypeVar("T")


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
        observer: Observer | None = None,
        embeddings: EmbeddingLibrary | None = None,
        upscalers: Mapping[str, Upscaler] | None = None,
    ) -> None:
        self._observer, embeddings = observer or Observer(), embeddings or EmbeddingLibrary()
        self._supervisor = Supervisor(hang_timeout=options.hang_timeout, hang_factor=options.hang_factor)
        self._models = ServedModels(
            models,
            capacity=options.resident_models,
            lora_cache_bytes=options.lora_cache_bytes,
            device_options=options.device,
            turns=Turns(options.loop.max_running_jobs_per_token),
            supervisor=self._supervisor,
        )
        self._library, self._options, self._ready = library, options, False
        self._undelivered = Undelivered(options.undelivered_budget_bytes)
        self._prompts = PromptCache(options.prompt_cache_bytes)
        self._job_ids = itertools.count()
        self._readers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sdgrpc-read")
        self._renderers = Renderers(self._supervisor)
        self._hashes = ModelHashes(weight_files(models), FileHashes(options.cache_dir))
        estimates = Estimates()
        self.upscaling = Upscaling(upscalers or {}, options.loop.queue_size, self._supervisor)
        runner = LocalRunner(self._prompts, self._hashes, embeddings, self.upscaling.covering)
        self._loop = EngineLoop(
            SupervisedRunner(runner, self._supervisor, estimates),
            options.loop,
            policy=self._models.pool,
            supervisor=self._supervisor,
            estimates=estimates,
            observer=self._observer,
        )
        parsed, jobs, resident = library.parsed, self._loop.queue.jobs, self._models.pool.resident
        self._prefetching = Prefetching(parsed, jobs, resident, self._supervisor, on=options.prefetch)
        self._planner = Planner(self._loop, self._models, library, embeddings, estimates)
        self._catalog = EngineCatalog(
            self._models,
            library,
            self._loop,
            options.max_upload_bytes,
            self._job_ids,
            self._supervisor,
            embeddings,
        )
        # What an engine answers about its files, see `Engine`.
        self.list_loras, self.get_lora = self._catalog.list_loras, self._catalog.get_lora
        self.prepare_loras, self.begin_upload = self._catalog.prepare_loras, self._catalog.begin_upload
        self.list_embeddings = self._catalog.list_embeddings
        self.replicas = self.shared_jobs = None
        self._supervisor.start()

    @property
    def models(self) -> Sequence[ModelInfo]:
        """See `Engine.models`."""
        return self._models.infos

    def model_states(self) -> Sequence[ModelState]:
        """See `Engine.model_states`."""
        return [replace(state, sha256=self._hashes.known(state.info.name)) for state in self._models.states()]

    @property
    def loop_options(self) -> LoopOptions:
        """The bounds that the engine keeps."""
        return self._loop.queue.options

    @property
    def library(self) -> LoraLibrary:
        """The LoRA files that tasks can name."""
        return self._library

    async def warm_up(self) -> None:
        """Load the models that are there from the start, and draw with each; raises as `warm_up`."""
        await warm_up(self._models, partial(self._events, counted=False))
        self._ready = True
        self._hashes.start()

    def check_room(self, caller: str = "", *, ahead: int = 0, ahead_of_caller: int = 0) -> None:
        """See `Engine.check_room`."""
        self._undelivered.check()
        self._loop.queue.check_room(caller, ahead=ahead, ahead_of_caller=ahead_of_caller)

    def submit(
        self,
        task: Task,
        *,
        time_limit: float | None = None,
        previews_wanted: Callable[[], bool] = always,
    ) -> AsyncGenerator[Event, None]:
        """See `Engine.submit`."""
        begin = partial(self._events, counted=True, time_limit=time_limit, wanted=previews_wanted)
        return merged(task, list(map(begin, task.pictures))) if task.grid else begin(task)

    async def _events(
        self,
        task: Task,
        *,
        counted: bool,
        time_limit: float | None = None,
        wanted: Callable[[], bool] = always,
    ) -> AsyncGenerator[Event, None]:
        deadline = None if time_limit is None else time.monotonic() + time_limit
        self._models.check_usable(task.model)
        self._loop.queue.check_room(task.caller)
        finding = Finding(task, self._library)
        try:
            is_late = finding.may_be_late and await self._in(self._readers, "find", finding.is_late)
            finding.begin(self._readers, partial(self._supervisor.run, CallShape("find")))
            job_id = next(self._job_ids)
            stream = EventStream(asyncio.get_running_loop(), self._undelivered)
            job = Job(job_id, task, stream, counted=counted, deadline=deadline)
            # Held by the job alone, which lets the model go at its end, however late its events are read.
            job.work = work = self._prefetching.work(partial(self._models.pool.of, job_id), finding.files)
            if is_late:
                self._loop.next_sets.expect(job, finding.files)
            else:
                work.files = await asyncio.wrap_future(finding.files)
                work.finding, job.set_id = None, first_set(task, work.files).set_id
            job.observer = self._observer.begin(task) if counted else job.observer
            position = self._loop.queue.submit(job)
            self._prefetching.look()
            try:
                yield Accepted(position, task, task.warnings)
                async for item in job.stream:
                    yield await self._renderers.rendered(item) if wanted() else item.event
            finally:
                self._loop.cancel(job)
                job.stream.leave()
        finally:
            finding.close()

    async def _in(self, threads: ThreadPoolExecutor, verb: str, work: Callable[[], T]) -> T:
        """Run `work` in a thread, watched over."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(threads, self._supervisor.run, CallShape(verb), work)

    def on_failure(self, tell: Callable[[], None]) -> None:
        """Have `tell` called, from any thread, once the engine cannot go on; it must not block."""
        self._supervisor.on_failure(tell)

    async def failed(self) -> None:
        """See `Engine.failed`."""
        await self._supervisor.wait_failed()

    async def plan(self, task: Task) -> JobPlan:
        """See `Engine.plan`."""
        self._models.check_usable(task.model)
        self._loop.queue.check_room(task.caller)
        return await self._in(self._readers, "plan", partial(self._planner.plan, task))

    def status(self) -> EngineStatus:
        """See `Engine.status`."""
        return engine_status(
            self._loop,
            self._models,
            self._prompts.stats(),
            set_budget_bytes=self._options.lora_cache_bytes,
            ready=self._ready and not self._supervisor.failed,
            silence=self._supervisor.silence(),
        )

    async def drain(self) -> None:
        """See `Engine.drain`."""
        await asyncio.to_thread(self._loop.queue.wait_idle)

    async def close(self) -> None:
        """See `Engine.close`."""
        self._ready = False
        await asyncio.to_thread(self._prefetching.close)
        await asyncio.to_thread(self._loop.close)
        await asyncio.to_thread(self._models.pool.close, wait=not self._supervisor.failed)
        await asyncio.to_thread(self._catalog.close)
        await asyncio.to_thread(self.upscaling.close)
        await asyncio.to_thread(self._hashes.close)
        self._supervisor.close()
        self._readers.shutdown(wait=not self._supervisor.failed)
        self._renderers.close()
        if not self._supervisor.failed:  # what hangs may still use one
            self._models.release()
