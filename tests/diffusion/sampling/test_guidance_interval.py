"""Steps that are not guided, beside diffusers' guider with the same interval."""

from __future__ import annotations

import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance
from hypothesis import given
from hypothesis import strategies as st

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.conditioning import encode
from sdgrpc.diffusion.sampling.start import prepare, start
from sdgrpc.domain import GuidanceInterval, Scheduler, TaskKind
from tests.support.tasks import draw, task

shares = st.integers(0, 100).map(lambda percent: percent / 100)


@given(st.integers(1, 150), shares, shares)
def test_the_same_steps_as_diffusers_guider(steps: int, start: float, end: float) -> None:
    """Rounded alike, whatever the shares."""
    if start >= end:
        return
    guider, interval = ClassifierFreeGuidance(5.0, start=start, stop=end), GuidanceInterval(start, end)
    guided = []
    for step in range(steps):
        guider.set_state(step, steps, torch.tensor(0))
        guided.append(guider.num_conditions == 2)
    assert [interval.holds(step, steps) for step in range(steps)] == guided
    assert interval.is_empty(steps) is not any(guided)


def with_diffusers_guider(model: Model, asked) -> torch.Tensor:
    """A plain loop as diffusers' modular pipelines run it, one row a call."""
    sampling, interval = asked.sampling, asked.sampling.guidance_interval
    begun = start(model, asked, encode(model, asked.prompt, asked.negative_prompt))
    guider = ClassifierFreeGuidance(
        sampling.guidance_scale, sampling.guidance_rescale, start=interval.start, stop=interval.end
    )
    scheduler, latents, told = begun.scheduler, begun.latents, begun.conditioning(0)
    assert told is not None
    for index, timestep in enumerate(begun.timesteps):
        step = sampling.steps - asked.step_count + index // scheduler.order
        guider.set_state(step, sampling.steps, timestep)
        sample = scheduler.scale_model_input(latents, timestep)
        sides = (told.positive, told.negative)[: guider.num_conditions]
        answers = [model.unet(sample, timestep, side, return_dict=False)[0] for side in sides]
        predicted = guider.forward(*answers).pred
        latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
    return latents


@pytest.mark.parametrize(
    "changes",
    [
        {"scheduler": Scheduler.EULER, "steps": 10},
        {"scheduler": Scheduler.HEUN, "steps": 10, "guidance_rescale": 0.7},
        {"scheduler": Scheduler.DPMPP_2M, "steps": 10, "guidance_rescale": 0.3},
        {"kind": TaskKind.TRANSFORM, "scheduler": Scheduler.EULER, "steps": 10, "strength": 0.5},
    ],
    ids=["euler", "heun", "dpmpp_2m", "transform"],
)
@torch.inference_mode()
def test_equal_to_a_loop_with_diffusers_guider(model: Model, changes: dict) -> None:
    """Both evaluations of Heun's steps belong to them; a transform's steps have the schedule's numbers."""
    asked = task(**changes, guidance_interval=GuidanceInterval(0.2, 0.7))
    expected = with_diffusers_guider(model, asked)
    torch.testing.assert_close(draw(model, asked), expected, rtol=1e-3, atol=1e-4)
    everywhere = task(**changes)
    assert not torch.allclose(draw(model, everywhere), expected, atol=1e-2)


def test_half_the_rows_outside(model: Model) -> None:
    """What the UNet is asked step by step."""
    asked = task(steps=10, image_count=2, guidance_interval=GuidanceInterval(0.2, 0.7))
    job = prepare(model, asked, encode(model, "a cat", "a dog"), lambda _: None)
    rows, prediction = [], None
    for _ in range(10):
        wanted = job.send(prediction)
        rows.append(wanted.rows)
        prediction = wanted.sample * 0.5
    job.close()
    assert rows == [2] * 2 + [4] * 5 + [2] * 3


def test_what_is_known_stays_known(model: Model) -> None:
    """Inpainting keeps what is black in the mask."""
    asked = task(TaskKind.INPAINT, steps=10, guidance_interval=GuidanceInterval(0.2, 0.7))
    begun = start(model, asked, encode(model, asked.prompt, asked.negative_prompt))
    assert begun.known is not None
    around = (begun.known.mask == 0).expand_as(begun.known.clean)
    assert torch.equal(draw(model, asked)[around], begun.known.clean[around])
