"""The engine of many replicas: routes jobs, and runs those of a dead replica again elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Any, cast

from sdgrpc.domain import (
    EmbeddingInfo,
    EngineStatus,
    Event,
    JobPlan,
    LoraDetails,
    LoraInfo,
    LoraPage,
    LoraQuery,
    LoraRef,
    ModelInfo,
    ModelState,
    Prepared,
    Task,
    UploadHeader,
    UpscaleEvent,
    UpscalerInfo,
    UpscaleTask,
)
from sdgrpc.engine.base import Upload, always
from sdgrpc.engine.cluster.fleet import Fleet, ReplicaDied
from sdgrpc.engine.cluster.jobs import Inside, Job
from sdgrpc.engine.cluster.keeper import Keeper
from sdgrpc.engine.cluster.messages.carrying import Carried
from sdgrpc.engine.cluster.placing import Placing
from sdgrpc.engine.cluster.replica import Served
from sdgrpc.engine.cluster.routing.holdings import Wanted
from sdgrpc.engine.cluster.routing.router import Router
from sdgrpc.engine.cluster.running import DEATHS, Runs
from sdgrpc.engine.cluster.scaling import Scaling
from sdgrpc.engine.cluster.set_names import SetNames, wanted_by
from sdgrpc.engine.cluster.uploads import ClusterUpload
from sdgrpc.engine.grids.merging import merged
from sdgrpc.engine.keeping.sharing import SharedJobs
from sdgrpc.engine.observing.observer import Observer
from sdgrpc.errors import Draining, EngineFailed, QueueFull
from sdgrpc.machine.stop_signals import take_signals_again

RETRY_SECONDS = 2.0
END_SECONDS = 1.0  # in which jobs that are left hear that their replicas ended
ANY = Wanted("")


class RayEngine:
    """Implements `engine.base.Engine` over replicas that are open. On the server's event loop."""

    def __init__(
        self,
        fleet: Fleet,
        router: Router,
        keeper: Keeper,
        scaling: Scaling,
        sets: SetNames,
        served: Served,
        observer: Observer,
        inside: Inside,
        shared_jobs: SharedJobs | None = None,
    ) -> None:
        self._fleet, self.keeper, self._inside = fleet, keeper, inside
        self.shared_jobs = shared_jobs
        self.replicas, self._sets, self._served = scaling, sets, served
        self._placing = Placing(fleet, router, keeper, sets)
        self._runs = Runs(fleet, self._placing, keeper, sets, inside, observer)
        self._draining, self._left = False, asyncio.Event()

    @property
    def models(self) -> Sequence[ModelInfo]:
        """See `Engine.models`."""
        return self._served.models

    def model_states(self) -> Sequence[ModelState]:
        """See `Engine.model_states`: a model is in memory where one replica has it."""
        return self.keeper.model_states()

    def status(self) -> EngineStatus:
        """See `Engine.status`: the sum over the replicas, as they last reported."""
        now = self.keeper.status()
        return replace(now, jobs_finished=max(now.jobs_finished, self._inside.finished))

    def check_room(self, caller: str = "", *, ahead: int = 0, ahead_of_caller: int = 0) -> None:
        """See `Engine.check_room`; the bounds are those of all replicas together."""
        if self._draining:
            raise Draining("the server is stopping")
        status = self.keeper.status()
        if status.queue_size and status.queued + ahead >= status.queue_size:
            raise QueueFull(f"{status.queued} jobs wait already on all replicas", retry_after=RETRY_SECONDS)
        self._inside.check(caller, ahead_of_caller)

    def submit(
        self,
        task: Task,
        *,
        time_limit: float | None = None,
        previews_wanted: Callable[[], bool] = always,
    ) -> AsyncGenerator[Event, None]:
        """See `Engine.submit`; a grid's pictures may be drawn by several replicas."""
        begin = partial(self._events, time_limit=time_limit, wanted=previews_wanted)
        return merged(task, list(map(begin, task.pictures))) if task.grid else begin(task)

    async def _events(
        self, task: Task, *, time_limit: float | None, wanted: Callable[[], bool]
    ) -> AsyncGenerator[Event, None]:
        deadline = None if time_limit is None else time.monotonic() + time_limit
        holding = await self._wanted(task.model, task.loras)
        job = Job("draw", task, holding, tuple(task.loras), deadline, wanted)
        async with aclosing(self._run(job)) as events:
            async for event in events:
                yield cast("Event", event)

    async def _run(self, job: Job) -> AsyncGenerator[Event | UpscaleEvent, None]:
        self.check_room(job.caller)
        try:
            with self._inside.holding(job):
                async with aclosing(self._runs.events(job)) as events:
                    async for event in events:
                        yield event
        except (ReplicaDied, EngineFailed):
            if self._draining:
                raise Draining("the server stopped before this job ended; send it to another") from None
            raise
        finally:
            if not self._inside:
                self._left.set()

    async def _wanted(self, model: str, loras: Sequence[LoraRef]) -> Wanted:
        if any(lora.content for lora in loras):
            return await asyncio.to_thread(wanted_by, model, loras)
        return wanted_by(model, loras)

    @property
    def upscaling(self) -> RayEngine:
        """See `Engine.upscaling`."""
        return self

    @property
    def infos(self) -> Sequence[UpscalerInfo]:
        """See `Upscales.infos`."""
        return self._served.upscalers

    async def upscale(self, task: UpscaleTask) -> AsyncGenerator[UpscaleEvent, None]:
        """See `Upscales.upscale`."""
        job = Job("upscale", task, ANY, (), None, always)
        async with aclosing(self._run(job)) as events:
            async for event in events:
                yield cast("UpscaleEvent", event)

    async def _ask(
        self,
        wanted: Wanted,
        name: str,
        *args: object,
        loras: Sequence[LoraRef] = (),
        **keywords: object,
    ) -> Any:  # noqa: ANN401
        """Ask a replica that fits, by the set of these LoRAs; another one where it dies."""
        for _ in range(DEATHS):
            replica = await self._placing.place(wanted, {}, loras=loras)
            self.keeper.enter(replica, wanted)
            try:
                answer = await self._fleet.ask(replica, "call", name, args, keywords)
            except ReplicaDied:
                self.keeper.lost(replica)
                continue
            finally:
                self.keeper.leave(replica, wanted)
            if isinstance(answer, Carried):
                raise answer.error()
            return answer
        raise EngineFailed(f"{DEATHS} replicas died while they were asked")

    async def list_loras(self, query: LoraQuery) -> LoraPage:
        """See `Engine.list_loras`."""
        return cast("LoraPage", await self._ask(ANY, "list_loras", query))

    async def list_embeddings(self, model: str) -> Sequence[EmbeddingInfo]:
        """See `Engine.list_embeddings`."""
        return cast("Sequence[EmbeddingInfo]", await self._ask(ANY, "list_embeddings", model))

    async def get_lora(self, ref: LoraRef, model: str, *, include_modules: bool) -> LoraDetails:
        """See `Engine.get_lora`."""
        answer = await self._ask(Wanted(model), "get_lora", ref, model, include_modules=include_modules)
        return cast("LoraDetails", answer)

    async def prepare_loras(self, model: str, loras: Sequence[LoraRef], *, caller: str = "") -> Prepared:
        """See `Engine.prepare_loras`: on the replica that jobs with the set will go to."""
        wanted = await self._wanted(model, loras)
        self.check_room(caller)
        with self._inside.preparing(caller):
            answer = await self._ask(wanted, "prepare_loras", model, list(loras), loras=loras, caller=caller)
        made = cast("Prepared", answer)
        self._sets.learn(wanted, made.lora_set_id)
        for name in self.keeper.ready:  # so that whoever looks now sees the set
            with suppress(ReplicaDied):
                self.keeper.note(name, await self._fleet.report(name))
        return made

    async def begin_upload(self, header: UploadHeader) -> Upload | LoraInfo:
        """See `Engine.begin_upload`: to every replica."""
        while not self.keeper.ready:
            await self.keeper.changed()
        upload = ClusterUpload(self._fleet, self.keeper.ready)
        try:
            return await upload.begin(header) or upload
        except BaseException:
            upload.abort()
            raise

    async def plan(self, task: Task) -> JobPlan:
        """See `Engine.plan`: by the replica that would draw it."""
        self.check_room(task.caller)
        wanted = await self._wanted(task.model, task.loras)
        return cast("JobPlan", await self._ask(wanted, "plan", task, loras=task.loras))

    async def failed(self) -> None:
        """See `Engine.failed`: dead replicas are replaced, so it takes that none can be started.

        Replicas are watched while somebody waits for this.
        """
        take_signals_again()  # Ray's handler writes a crash's report at each
        await self.keeper.follow(self.replicas.fit)

    async def drain(self) -> None:
        """See `Engine.drain`."""
        self._draining = True
        while self._inside:
            self._left.clear()
            await self._left.wait()

    async def close(self) -> None:
        """See `Engine.close`."""
        self._draining = True
        self.keeper.close()
        for name in list(self.keeper.names):
            self._fleet.stop(name)
        ended = asyncio.ensure_future(self.drain())  # once Ray is gone nobody hears of a death
        await asyncio.wait([ended], timeout=END_SECONDS)
        ended.cancel()
        await asyncio.to_thread(self._fleet.close)
