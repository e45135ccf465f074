"""A scripted engine for tests of the API: it obeys `engine.base.Engine`, and draws flat colours."""

from __future__ import annotations

import asyncio
import colorsys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sdgrpc import images
from sdgrpc.domain import (
    Accepted,
    EngineStatus,
    Event,
    Finished,
    ImageReady,
    JobPlan,
    LatentArray,
    LoraReport,
    ModelInfo,
    ModelState,
    Picture,
    PlannedLora,
    Prepared,
    Preview,
    PreviewKind,
    Progress,
    Scheduler,
    Task,
    UpscaleAccepted,
    UpscaleEvent,
    UpscaleProgress,
    UpscalerInfo,
    UpscaleTask,
)
from sdgrpc.engine.base import always
from sdgrpc.errors import Draining, LoraNotFound, QueueFull
from tests.support.fake_catalog import FakeCatalog


def make_model(**changes) -> ModelInfo:
    """A model of the size of SD1.5, but for its small pictures."""
    values = {
        "name": "fake",
        "base": "sd15",
        "title": "Fake",
        "description": "Flat colours.",
        "width": 64,
        "height": 64,
        "steps": 4,
        "guidance_scale": 5.0,
        "scheduler": Scheduler.EULER,
        "is_inpainting": False,
        "latent_channels": 4,
        "vae_scale_factor": 8,
        "prediction_type": "epsilon",
        "text_encoder_layers": 12,
        "latent_rgb_factors": ((0.0, 0.0, 0.0),) * 4,
        "latent_rgb_bias": (0.0, 0.0, 0.0),
    }
    return ModelInfo(**{**values, **changes})


def colour_of(seed: int) -> bytes:
    """The colour of a seed's picture."""
    return bytes(round(255 * part) for part in colorsys.hsv_to_rgb(seed * 0.37 % 1.0, 0.8, 0.9))


@dataclass
class FakeUpscaling:
    """Sends a black picture after `tiles` tiles, each once `gate` is open; who closes early sets `left`."""

    infos: Sequence[UpscalerInfo] = (UpscalerInfo("large", 4, "ESRGAN"), UpscalerInfo("double", 2, "Compact"))
    tiles: int = 2
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[UpscaleTask] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def upscale(self, task: UpscaleTask) -> AsyncGenerator[UpscaleEvent, None]:
        self.tasks.append(task)
        try:
            yield UpscaleAccepted(0, task, self.tiles)
            for tile in range(1, self.tiles + 1):
                await self.gate.wait()
                yield UpscaleProgress(tile, self.tiles, 0.5 * tile, 0.5 * (self.tiles - tile))
            flat = Picture(task.width, task.height, 3, bytes(3 * task.width * task.height))
            yield images.encode(flat, task.media_type)
        except (GeneratorExit, asyncio.CancelledError):
            self.left.set()
            raise


@dataclass
class FakeEngine:
    """Every job goes through the grammar at once, except where a test holds or breaks it.

    A job waits for `gate` before every step. `failures` maps a moment (`submit`, `prepare`, `step`, `decode`)
    to what is raised there. LoRAs exist if their name is in `loras`. `tasks` are all that were submitted;
    `steps` counts denoising steps, `cancelled` the jobs that were closed before they ended.
    """

    models: Sequence[ModelInfo] = field(default_factory=lambda: (make_model(),))
    loras: Sequence[str] = ("inks", "dots")
    queue_size: int = 8
    failures: dict[str, Exception] = field(default_factory=dict)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[Task] = field(default_factory=list)
    planned: list[Task] = field(default_factory=list)
    time_limits: list[float | None] = field(default_factory=list)
    ready: bool = True
    replicas: Any = None
    shared_jobs: Any = None
    steps: int = 0
    cancelled: int = 0
    finished: int = 0
    closed: int = 0

    def __post_init__(self) -> None:
        self.gate.set()
        self.upscaling = FakeUpscaling()
        self._running: set[object] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._closing = asyncio.Event()
        self.failure = asyncio.Event()
        self.catalog = FakeCatalog(self.loras)
        self.list_loras, self.get_lora = self.catalog.list_loras, self.catalog.get_lora
        self.list_embeddings = self.catalog.list_embeddings
        self.prepare_loras, self.begin_upload = self.catalog.prepare_loras, self.catalog.begin_upload

    def check_room(self, caller: str = "", *, ahead: int = 0, ahead_of_caller: int = 0) -> None:
        del caller, ahead_of_caller
        if self._draining:
            raise Draining("the engine is closing", retry_after=1.0)
        if len(self._running) + ahead >= self.queue_size:
            raise QueueFull("the queue is full", retry_after=3.0)

    async def submit(
        self,
        task: Task,
        *,
        time_limit: float | None = None,
        previews_wanted: Callable[[], bool] = always,
    ) -> AsyncGenerator[Event, None]:
        self.time_limits.append(time_limit)
        self._raise_at("submit")
        if self._draining:
            raise Draining("the engine is closing", retry_after=1.0)
        if len(self._running) >= self.queue_size:
            raise QueueFull("the queue is full", retry_after=3.0)
        for lora in task.loras:
            if lora.name and lora.name not in self.loras:
                raise LoraNotFound(lora.name, f"no LoRA {lora.name!r} here")
        self.tasks.append(task)
        with self._counted():
            yield Accepted(len(self._running) - 1, task)
            self._raise_at("prepare")
            yield Prepared(tuple(map(_report, task.loras)), "set" if task.loras else "", False, 0.25)
            for step in range(1, task.step_count + 1):
                await self._wait_for_gate()
                self._raise_at("step")
                self.steps += 1
                yield _progress(task, step, previews=previews_wanted())
            self._raise_at("decode")
            for index in range(task.sampling.image_count):
                yield _image(task, index)
            yield Finished(0.1, 0.2, 0.3, 0.4, 1)
            self.finished += 1

    async def _wait_for_gate(self) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (self.gate, self._closing)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._closing.is_set():
            raise Draining("the server stopped before this job ended")

    def _raise_at(self, moment: str) -> None:
        if moment in self.failures:
            raise self.failures[moment]

    @contextmanager
    def _counted(self):
        job = object()
        self._running.add(job)
        self._idle.clear()
        before = self.finished
        try:
            yield
        except (GeneratorExit, asyncio.CancelledError):
            if self.finished == before:
                self.cancelled += 1
            raise
        finally:
            self._running.discard(job)
            if not self._running:
                self._idle.set()

    def model_states(self) -> list[ModelState]:
        return [ModelState(info, "float32", resident=True, size_bytes=1000) for info in self.models]

    async def plan(self, task: Task) -> JobPlan:
        self._raise_at("submit")
        self.planned.append(task)
        loras = tuple(
            PlannedLora(one.label, "0" * 64, one.strength, one.text_encoder_strength) for one in task.loras
        )
        steps = task.step_count
        return JobPlan(
            task,
            len(self._running),
            steps,
            steps,
            loras,
            "set" if loras else "",
            wait_seconds=1.5,
            step_seconds=2.5,
        )

    def status(self) -> EngineStatus:
        return EngineStatus(self.ready, len(self._running), 0, 1.0, 0.0, 0, 0, 0, self.finished)

    async def failed(self) -> None:
        await self.failure.wait()

    async def drain(self) -> None:
        self._draining = True
        await self._idle.wait()

    async def close(self) -> None:
        self.closed += 1
        self._draining = True
        self._closing.set()


def _report(lora) -> LoraReport:
    return LoraReport(
        name=lora.label,
        sha256=lora.sha256 or "0" * 64,
        algorithms=("lora",),
        modules={"unet": 3, "text_encoder": 1},
        relative_norm=0.5,
        strength=lora.strength,
        text_encoder_strength=lora.text_encoder_strength,
        unmatched_tensors=2,
        unmatched_examples=("a.b", "c.d"),
        warnings=("half of it is missing",),
    )


def _progress(task: Task, step: int, *, previews: bool = True) -> Progress:
    options = task.output.preview
    made: tuple[Preview, ...] = ()
    due = previews and step < task.step_count and step % options.every_n_steps == 0
    if due and options.kind is not PreviewKind.NONE:
        made = tuple(_preview(task, index) for index in range(task.sampling.image_count))
    left = task.step_count - step
    return Progress(step, task.step_count, 999.0 - step, 0.5 * step, 0.5 * left, made)


def _preview(task: Task, index: int) -> Preview:
    if task.output.preview.kind is PreviewKind.LATENT:
        width, height = task.width // 8, task.height // 8
        return Preview(index, LatentArray(4, height, width, bytes(2 * 4 * height * width)))
    small = Picture(8, 8, 3, colour_of(task.sampling.seed + index) * 64)
    return Preview(index, images.encode(small))


def _image(task: Task, index: int) -> ImageReady:
    seed = task.sampling.seed + index
    picture = Picture(task.width, task.height, 3, colour_of(seed) * (task.width * task.height))
    return ImageReady(
        index, seed, images.encode(picture, task.output.media_type, quality=task.output.quality)
    )
