"""A job whose steps go through sets, against its parts drawn by hand with diffusers' fused models.

Each part has a copy of the model into which diffusers fused its LoRAs, text encoders too, and the loop is a
plain one. The tolerance is that of whole sets (`test_lora_sets_against_diffusers`): 1e-4 of the latents'
deviation.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.cache import PromptCache
from sdgrpc.diffusion.prompts.conditioning import encode
from sdgrpc.diffusion.sampling.schedulers import step_arguments
from sdgrpc.diffusion.sampling.start import start
from sdgrpc.domain import GuidanceInterval, LoraRef, Prepared, Scheduler, StepReuse, Task, TaskKind
from sdgrpc.domain.phases import shown
from sdgrpc.engine.job import Job
from sdgrpc.engine.models.served_model import ServedModel
from sdgrpc.engine.runner import LocalRunner
from sdgrpc.engine.stream import EventStream
from sdgrpc.engine.work import LocalWork, work_of
from sdgrpc.lora.store.library import LoraLibrary
from tests.support.lora_sets import fused_by_diffusers, save_diffusers_lora, save_kohya_lora
from tests.support.models import save_model
from tests.support.oracle import relative_difference
from tests.support.tasks import task

TOLERANCE = 1e-4
ONE = LoraRef(0.8, 0.4, name="diffusers", end=0.6)
TWO = LoraRef(0.5, 0.9, name="kohya", start=0.3)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


class Drawn(NamedTuple):
    """Final latents, the report, the model with its sets, and how many UNet calls there were."""

    latents: torch.Tensor
    report: Prepared
    served: ServedModel
    calls: int


class Bench:
    """A model that is served, and copies of it with LoRAs fused by diffusers."""

    def __init__(self, folder: Path) -> None:
        self.model = load(
            "tiny", save_model(folder / "model"), device=torch.device("cpu"), dtype=torch.float32
        )
        self.loras = folder / "loras"
        self.loras.mkdir()
        save_diffusers_lora(self.model, self.loras / "diffusers.safetensors")
        save_kohya_lora(self.model, self.loras / "kohya.safetensors")
        self.library = LoraLibrary([self.loras])
        self._fused: dict[tuple[LoraRef, ...], Model] = {}

    def fused(self, refs: tuple[LoraRef, ...]) -> Model:
        if refs not in self._fused:
            self._fused[refs] = fused_by_diffusers(self.model, self.loras, refs) if refs else self.model
        return self._fused[refs]

    def draw(self, asked: Task, capacity: int = 1 << 30) -> Drawn:
        """What the runner draws, driven as the engine's threads do."""
        files = [self.library.find(ref) for ref in asked.loras]
        served = ServedModel.of(self.model, lora_cache_bytes=capacity)
        loop = asyncio.new_event_loop()
        job = Job(0, asked, EventStream(loop), work=LocalWork(lambda: served, files))
        runner = LocalRunner(PromptCache(1 << 20))
        try:
            done, calls = runner.prepare(job), 0
            while not done:
                if job.has_next_set:
                    runner.prepare_next(job)
                calls += not job.waits_for_set
                answer = None if job.waits_for_set else runner.predict([job], 8)[0]
                done = runner.advance(job, answer)
            latents = work_of(job).latents
            assert latents is not None
            return Drawn(latents, job.report, served, calls)
        finally:
            job.close()
            served.restore()
            loop.close()

    @torch.inference_mode()
    def by_hand(
        self,
        asked: Task,
        parts: list[tuple[LoraRef, ...]],
        said: list[tuple[str, str]] | None = None,
    ) -> torch.Tensor:
        """A plain loop; `parts` are the LoRAs of each step that runs, `said` what both prompts say then."""
        sampling = asked.sampling
        begun = start(self.model, asked, encode(self.model, "", ""))
        scheduler, latents = begun.scheduler, begun.latents
        arguments = step_arguments(scheduler, begun.generators, begun.eta)
        every = said or [(asked.prompt, asked.negative_prompt)] * len(parts)
        for index, timestep in enumerate(begun.timesteps):
            model = self.fused(parts[index // scheduler.order])
            told = encode(model, *every[index // scheduler.order])
            sample = scheduler.scale_model_input(latents, timestep).float()
            no, yes = (
                model.unet(sample, timestep, side, return_dict=False)[0]
                for side in (told.negative, told.positive)
            )
            predicted = no + sampling.guidance_scale * (yes - no)
            latents = scheduler.step(predicted, timestep, latents, **arguments, return_dict=False)[0]
            if begun.known is not None:
                clean = begun.known.clean
                if index + 1 < len(begun.timesteps):
                    after = begun.timesteps[index + 1 : index + 2]
                    clean = scheduler.add_noise(clean, begun.known.noise, after)
                latents = (1 - begun.known.mask) * clean + begun.known.mask * latents
        return latents.float()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


PARTS = [(ONE,)] * 3 + [(ONE, TWO)] * 3 + [(TWO,)] * 4


@pytest.mark.parametrize(
    "scheduler",
    [Scheduler.EULER, Scheduler.HEUN, Scheduler.DPMPP_2M, Scheduler.EULER_ANCESTRAL, Scheduler.UNIPC],
)
def test_three_phases(bench: Bench, scheduler: Scheduler) -> None:
    """Of one LoRA, both, and the other; multistep schedulers remember predictions of the set before."""
    asked = task(scheduler=scheduler, steps=10, loras=(ONE, TWO))
    drawn, report, *_ = bench.draw(asked)
    assert relative_difference(drawn, bench.by_hand(asked, PARTS)) <= TOLERANCE
    assert [(shown(one.steps), one.start, one.end) for one in report.loras] == [
        ("1 to 6", 0.0, 0.6),
        ("4 to 10", 0.3, 1.0),
    ]
    assert relative_difference(drawn, bench.by_hand(asked, [(ONE, TWO)] * 10)) > 10 * TOLERANCE
    shifted = [(ONE,)] * 2 + [(ONE, TWO)] * 4 + [(TWO,)] * 4
    assert relative_difference(drawn, bench.by_hand(asked, shifted)) > 10 * TOLERANCE


@pytest.mark.parametrize("kind", [TaskKind.TRANSFORM, TaskKind.INPAINT])
def test_pictures_made_of_others(bench: Bench, kind: TaskKind) -> None:
    """The shares are of the whole schedule: of its last seven steps three have the first LoRA."""
    asked = task(kind, steps=10, strength=0.7, loras=(ONE, TWO))
    drawn, report, *_ = bench.draw(asked)
    assert relative_difference(drawn, bench.by_hand(asked, PARTS[3:])) <= TOLERANCE
    assert [shown(one.steps) for one in report.loras] == ["1 to 3", "1 to 7"]


def test_the_first_steps_without(bench: Bench) -> None:
    """Nor has the prompt of these steps anything of the LoRA; its file is read and reported all the same."""
    asked = task(steps=10, loras=(TWO,))
    drawn, report, served, _ = bench.draw(asked)
    assert relative_difference(drawn, bench.by_hand(asked, [()] * 3 + [(TWO,)] * 7)) <= TOLERANCE
    (told,) = report.loras
    _, whole, *_ = bench.draw(task(steps=10, loras=(replace(TWO, start=0.0),)))
    assert told.modules == whole.loras[0].modules
    assert told.relative_norm == pytest.approx(whole.loras[0].relative_norm, rel=1e-6)
    assert report.lora_set_id == ""
    assert served.sets.stats().fuse_count == 1


def test_sets_that_come_again_are_fused_once(bench: Bench) -> None:
    """With room the first set is found when it comes again, without it is made again, to the same bytes."""
    middle = replace(TWO, start=0.3, end=0.6)
    always = replace(ONE, end=1.0)
    asked = task(steps=10, loras=(always, middle))
    drawn, _, served, _ = bench.draw(asked)
    again, _, tight, _ = bench.draw(asked, capacity=0)
    assert served.sets.stats().fuse_count == 2
    assert tight.sets.stats().fuse_count == 3
    assert tight.sets.stats().sets == 0
    assert torch.equal(drawn, again)
    parts = [(always,)] * 3 + [(always, middle)] * 3 + [(always,)] * 4
    assert relative_difference(drawn, bench.by_hand(asked, parts)) <= TOLERANCE


def test_forecasts_begin_anew_with_a_set(bench: Bench) -> None:
    """The first two steps of each phase ask the UNet, as do those of a guidance interval."""
    reuse = {"step_reuse": StepReuse(2), "guidance_interval": GuidanceInterval(0.1, 0.9)}
    asked = task(steps=20, loras=(replace(ONE, end=0.45),), **reuse)
    whole = replace(asked, loras=(replace(ONE, end=1.0),))
    calls = [bench.draw(one).calls for one in (asked, whole)]
    # Of the forecast steps 9 and 11 the first is asked for: the two first of the new set are 9 and 10.
    assert calls[0] == calls[1] + 1


def test_a_lora_without_a_step(bench: Bench) -> None:
    """It is reported with a warning, and changes nothing."""
    asked = task(TaskKind.TRANSFORM, steps=10, strength=0.3, loras=(ONE,))
    drawn, report, served, _ = bench.draw(asked)
    assert relative_difference(drawn, bench.by_hand(asked, [()] * 3)) <= TOLERANCE
    (told,) = report.loras
    assert told.steps == ()
    assert "changes nothing" in told.warnings[-1]
    assert served.sets.stats().fuse_count == 0


def test_all_steps_once_each(bench: Bench) -> None:
    """Phases of a single step, as many as there are steps."""
    loras = tuple(
        replace(ref, name=name, start=low / 5, end=high / 5, strength=0.2 * high, text_encoder_strength=0.0)
        for (low, high), (ref, name) in zip(
            pairwise(range(6)), [(ONE, "diffusers"), (TWO, "kohya")] * 2 + [(ONE, "diffusers")], strict=True
        )
    )
    asked = task(steps=5, loras=loras)
    drawn, report, *_ = bench.draw(asked)
    assert relative_difference(drawn, bench.by_hand(asked, [(one,) for one in loras])) <= TOLERANCE
    assert [shown(one.steps) for one in report.loras] == ["1", "2", "3", "4", "5"]
