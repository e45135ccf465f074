"""The denoising generator: what it yields, how it counts steps, what inpainting keeps."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.conditioning import Conditioning, encode
from sdgrpc.diffusion.sampling.denoise import KnownLatents, ModelInput, StepResult
from sdgrpc.diffusion.sampling.start import prepare, start
from sdgrpc.domain import Scheduler, TaskKind
from tests.support.tasks import draw, task

TWICE = {Scheduler.HEUN, Scheduler.KDPM2, Scheduler.KDPM2_ANCESTRAL}


def run(model: Model, asked) -> tuple[list[ModelInput], list[StepResult], torch.Tensor]:
    """Run a task with a made-up prediction; what it wanted, its steps and its result."""
    wanted: list[ModelInput] = []
    steps: list[StepResult] = []
    job = prepare(model, asked, encode(model, "a cat", ""), steps.append)
    prediction = None
    while True:
        try:
            wanted.append(job.send(prediction))
        except StopIteration as stop:
            return wanted, steps, stop.value
        prediction = wanted[-1].sample[:, :4] * 0.5


@pytest.mark.parametrize("kind", [TaskKind.GENERATE, TaskKind.TRANSFORM])
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("scheduler", Scheduler)
def test_steps_are_counted_without_gaps(
    model: Model, scheduler: Scheduler, steps: int, kind: TaskKind
) -> None:
    """Every scheduler reports exactly the task's step count, whatever it evaluates per step."""
    asked = task(kind, scheduler=scheduler, steps=steps, strength=0.8 if kind is TaskKind.TRANSFORM else 1.0)
    _, done, result = run(model, asked)
    assert [one.step for one in done] == list(range(1, asked.step_count + 1))
    assert {one.step_count for one in done} <= {asked.step_count}
    assert all(0 <= one.timestep <= 999 for one in done)
    assert result.shape == (1, 4, 8, 8)


def test_what_is_kept_and_what_is_redrawn() -> None:
    """1 in the mask takes the job's latents, 0 the known ones, greys as much of each as they say."""
    shape = (2, 4, 1, 3)
    latents, clean = torch.full(shape, 7.0), torch.full(shape, -1.0)
    known = KnownLatents(clean, torch.zeros(shape), torch.tensor([0.0, 1.0, 0.25]).view(1, 1, 1, 3))
    assert known.keep(latents, clean, 0.5)[1, 2].tolist() == [[-1.0, 7.0, 1.0]]


def test_evaluations_per_step(model: Model) -> None:
    """Schedulers of second order evaluate twice per step but the last, PNDM once more, the others once."""
    for scheduler in Scheduler:
        wanted, _, _ = run(model, task(scheduler=scheduler, steps=4))
        expected = 7 if scheduler in TWICE else 5 if scheduler is Scheduler.PNDM else 4
        assert len(wanted) == expected, scheduler


def test_the_inputs_are_what_the_unet_takes(model: Model, inpainting_model: Model) -> None:
    """Samples are float32 with the UNet's channels and one row per image; timesteps are plain numbers."""
    wanted, _, _ = run(model, task(image_count=3))
    assert wanted[0].sample.shape == (3, 4, 8, 8)
    assert wanted[0].sample.dtype is torch.float32
    assert wanted[0].timestep.ndim == 0
    assert wanted[0].rows == 6
    nine, _, _ = run(inpainting_model, task(TaskKind.INPAINT, image_count=2))
    assert nine[0].sample.shape == (2, 9, 8, 8)


def test_nothing_runs_before_the_first_send(model: Model) -> None:
    """A prepared job that is closed has done no step."""
    done: list[StepResult] = []
    job = prepare(model, task(), encode(model, "a cat", None), done.append)
    job.close()
    assert done == []


def test_closing_in_the_middle_ends_it(model: Model) -> None:
    """A job that is dropped between steps reports no more of them."""
    done: list[StepResult] = []
    job = prepare(model, task(steps=5), encode(model, "a cat", None), done.append)
    job.send(job.send(None).sample)
    job.close()
    assert [one.step for one in done] == [1]


def test_guidance_needs_a_scale_above_one_and_a_negative() -> None:
    """Without either the negative rows are saved."""
    sample, timestep, row = torch.zeros(2, 4, 8, 8), torch.tensor(1), torch.zeros(1, 77, 8)
    both = Conditioning(row, row)
    assert ModelInput(sample, timestep, both, 1.5).guided
    assert not ModelInput(sample, timestep, both, 1.0).guided
    assert not ModelInput(sample, timestep, Conditioning(row), 7.5).guided
    assert ModelInput(sample, timestep, both, 1.0).rows == 2


def test_inference_mode_does_not_leak(model: Model) -> None:
    """A job that waits for its prediction leaves the caller's autograd mode alone."""
    job = prepare(model, task(), encode(model, "a cat", None), lambda _: None)
    next(job)
    assert not torch.is_inference_mode_enabled()
    job.close()


def test_known_latents_come_back_clean(model: Model) -> None:
    """Around the mask the final latents are the input's, and the previews show them so."""
    asked = task(TaskKind.INPAINT, scheduler=Scheduler.EULER_ANCESTRAL)
    begun = start(model, asked, encode(model, "a cat", None))
    assert begun.known is not None
    around = (begun.known.mask == 0).expand_as(begun.known.clean)
    steps: list[StepResult] = []
    final = draw(model, asked, steps)
    assert around.any()
    assert not around.all()
    assert torch.equal(final[around], begun.known.clean[around])
    assert torch.equal(steps[0].predict_clean()[around], begun.known.clean[around])
