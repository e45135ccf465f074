"""LoRA sets through our runner on every architecture, against diffusers' pipelines with the same set fused.

The tolerance is that of the comparisons without LoRAs, 1e-4 of the latents' standard deviation: both sides
add the same product to the same weights in float32 and differ in the order of the sums only (3e-6 where it
was measured, with DDIM, while the set itself moves the latents by more than 0.05).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.cache import PromptCache
from sdgrpc.domain import LoraRef, Scheduler, Task, TaskKind
from sdgrpc.engine.job import Job
from sdgrpc.engine.models.served_model import ServedModel
from sdgrpc.engine.runner import LocalRunner
from sdgrpc.engine.stream import EventStream
from sdgrpc.engine.work import LocalWork, work_of
from sdgrpc.lora.store.library import LoraLibrary
from tests.support.lora_sets import fused_by_diffusers, save_diffusers_lora, save_kohya_lora
from tests.support.oracle import diffusers_errs, diffusers_latents, relative_difference
from tests.support.published import ARCHITECTURES, save_published
from tests.support.tasks import task

TOLERANCE = 1e-4
SET = (LoraRef(0.8, 0.4, name="diffusers"), LoraRef(0.5, 0.9, name="kohya"))
SCHEDULERS = list(Scheduler)
KINDS = list(TaskKind)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@dataclass
class Pair:
    """A model, its set in our cache, and diffusers' copy with the set fused into it."""

    model: Model
    served: ServedModel
    library: LoraLibrary
    fused: Model

    def draw(self, asked: Task) -> torch.Tensor:
        """The final latents of a task by the runner, as the step thread drives it."""
        files = [self.library.find(ref) for ref in asked.loras]
        loop = asyncio.new_event_loop()
        job = Job(0, asked, EventStream(loop), work=LocalWork(lambda: self.served, files))
        runner = LocalRunner(PromptCache(0))
        try:
            done = runner.prepare(job)
            while not done:
                (prediction,) = runner.predict([job], 8)
                done = runner.advance(job, prediction)
            latents = work_of(job).latents
            assert latents is not None
            return latents
        finally:
            job.close()
            self.served.restore()
            loop.close()


Pairs = Callable[[str, bool], Pair]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """A function that makes the pair of an architecture, ordinary or inpainting, once."""
    made: dict[tuple[str, bool], Pair] = {}

    def pair(architecture: str, inpainting: bool) -> Pair:
        key = (architecture, inpainting)
        if key not in made:
            made[key] = make_pair(tmp_path_factory.mktemp("pair"), architecture, inpainting=inpainting)
        return made[key]

    return pair


def make_pair(folder: Path, architecture: str, *, inpainting: bool) -> Pair:
    source = save_published(folder / "model", architecture, inpainting=inpainting)
    model = load("tiny", source, device=torch.device("cpu"), dtype=torch.float32)
    loras = folder / "loras"
    loras.mkdir()
    save_diffusers_lora(model, loras / "diffusers.safetensors")
    save_kohya_lora(model, loras / "kohya.safetensors")
    served = ServedModel.of(model, lora_cache_bytes=1 << 30)
    return Pair(model, served, LoraLibrary([loras]), fused_by_diffusers(model, loras, SET))


def covering(architecture: str) -> list[tuple[Scheduler, TaskKind]]:
    """Every scheduler once, the kinds shifted from architecture to architecture, so that pairs spread."""
    shift = ARCHITECTURES.index(architecture)
    return [(scheduler, KINDS[(at + shift) % 3]) for at, scheduler in enumerate(SCHEDULERS)]


@pytest.mark.parametrize(
    ("architecture", "scheduler", "kind"),
    [(one, scheduler, kind) for one in ARCHITECTURES for scheduler, kind in covering(one)],
)
def test_every_scheduler_on_every_architecture(
    pairs: Pairs, architecture: str, scheduler: Scheduler, kind: TaskKind
) -> None:
    """A set of two LoRAs in two formats, text encoders included, draws what diffusers draws with it fused."""
    pair = pairs(architecture, False)
    asked = task(kind, scheduler=scheduler, steps=3, loras=SET, strength=0.7 if kind in KINDS[1:] else 1.0)
    equal = relative_difference(pair.draw(asked), diffusers_latents(pair.fused, asked)) <= TOLERANCE
    assert equal is not diffusers_errs(pair.fused, asked)


@pytest.mark.parametrize(
    ("architecture", "scheduler"),
    [(one, scheduler) for at, one in enumerate(ARCHITECTURES) for scheduler in SCHEDULERS[at::4]],
)
def test_inpainting_models(pairs: Pairs, architecture: str, scheduler: Scheduler) -> None:
    """So it does on the 9-channel UNet of each architecture; each scheduler comes once."""
    pair = pairs(architecture, True)
    asked = task(TaskKind.INPAINT, scheduler=scheduler, steps=3, loras=SET)
    equal = relative_difference(pair.draw(asked), diffusers_latents(pair.fused, asked)) <= TOLERANCE
    assert equal is not diffusers_errs(pair.fused, asked)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_comparison_can_fail(pairs: Pairs, architecture: str) -> None:
    """Without the set, or with one strength a little off, the latents are far outside the tolerance."""
    pair = pairs(architecture, False)
    theirs = diffusers_latents(pair.fused, task(steps=3))
    assert relative_difference(pair.draw(task(steps=3)), theirs) > 0.05
    off = (SET[0], LoraRef(0.5, 0.8, name="kohya"))
    assert relative_difference(pair.draw(task(steps=3, loras=off)), theirs) > 10 * TOLERANCE
