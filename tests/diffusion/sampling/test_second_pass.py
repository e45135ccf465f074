"""Second passes against Transforms of the first picture, and against a loop written by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures.autoencoder import decode
from sdgrpc.diffusion.prompts.conditioning import encode
from sdgrpc.diffusion.sampling.noise import generator
from sdgrpc.diffusion.sampling.predict import predict
from sdgrpc.diffusion.sampling.second_pass import enlarged, follow
from sdgrpc.domain import ResizeMode, Scheduler, SecondPass, SecondPassMode, Task, TaskKind, Variation
from tests.support.tasks import draw, task

SIDE = 64
PIXEL = SecondPassMode.PIXEL


def asked(second: SecondPass, **changes) -> Task:
    plain = task(**changes)
    return task(**changes, second_pass=second.resolved(plain.width, plain.height, plain.sampling.steps))


def draw_both(model: Model, both: Task, check=lambda: None) -> torch.Tensor:
    """The final latents of both passes, without an engine."""
    first, _ = both.passes
    conditioning = encode(model, both.prompt, both.negative_prompt, both.sampling.clip_skip)
    latents, prediction = draw(model, first), None
    job = follow(model, both, conditioning, lambda _: None, latents, check=check)
    while True:
        try:
            wanted = job.send(prediction)
        except StopIteration as stop:
            return stop.value
        prediction = predict(model, [wanted], max_rows=8)[0]


def bilinear(latents: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear interpolation between the cells' middles, in float64, the edges repeated."""
    rows, columns = latents.shape[-2:]

    def weights(old: int, new: int) -> np.ndarray:
        found = np.zeros((new, old))
        for index in range(new):
            at = max((index + 0.5) * old / new - 0.5, 0.0)
            low = min(int(at), old - 1)
            found[index, low] += 1 - (at - low)
            found[index, min(low + 1, old - 1)] += at - low
        return found

    return np.einsum("yr,nkrc,xc->nkyx", weights(rows, height), latents, weights(columns, width))


def transformed(model: Model, first: Task) -> torch.Tensor:
    """The latents of a Transform of the picture that a task draws alone."""
    again = task(
        TaskKind.TRANSFORM,
        scheduler=first.sampling.scheduler,
        seed=first.sampling.seed,
        image=decode(model, draw(model, first))[0],
        width=96,
        height=80,
        strength=0.5,
        steps=6,
        resize_mode=ResizeMode.CROP,
    )
    return draw(model, again)


AT_96X80 = SecondPass(width=96, height=80, strength=0.5, steps=6, mode=PIXEL)


@pytest.mark.parametrize("scheduler", [Scheduler.DDIM, Scheduler.EULER_ANCESTRAL, Scheduler.HEUN])
def test_pixel_is_a_transform_of_the_first_picture(model: Model, scheduler) -> None:
    """To the bit, since both have that picture in 8 bits."""
    expected = transformed(model, task(scheduler=scheduler))
    assert torch.equal(draw_both(model, asked(AT_96X80, scheduler=scheduler)), expected)


def test_each_image_has_its_own_second_pass(model: Model) -> None:
    """Image i is the Transform of picture i at seed + i.

    A call of four rows sums in another order than one of two, which moves some pixels by one of 255.
    """
    found = draw_both(model, asked(AT_96X80, image_count=2))
    for index in range(2):
        expected = transformed(model, task(seed=7 + index))
        assert (found[index : index + 1] - expected).abs().max() < 0.01
    assert (found[:1] - found[1:]).abs().max() > 1


def test_latent_is_a_loop_by_hand(model: Model) -> None:
    """Enlarged in float64, noised and denoised by the formulas of DDIM with guidance."""
    both = asked(SecondPass(scale=1.5, strength=0.6), steps=10)
    first, second = both.passes
    assert (second.width, second.height, second.step_count) == (96, 96, 6)
    latents = bilinear(draw(model, first).double().numpy(), 12, 12)
    alphas = model_alphas(model)
    steps = [int(index * (1000 // 10)) + 1 for index in range(10)][::-1][4:]
    noise = torch.randn((1, 4, 12, 12), generator=generator(7)).double().numpy()
    sample = math.sqrt(alphas[steps[0]]) * latents + math.sqrt(1 - alphas[steps[0]]) * noise
    told = encode(model, both.prompt, both.negative_prompt, 0)
    for step in steps:
        row = torch.from_numpy(sample).float()
        negative, positive = (
            model.unet(row, step, encoder_hidden_states=side).sample.detach().double().numpy()
            for side in (told.negative, told.positive)
        )
        guided = negative + 3.0 * (positive - negative)
        now, after = alphas[step], alphas[step - 100] if step > 100 else alphas[0]
        clean = (sample - math.sqrt(1 - now) * guided) / math.sqrt(now)
        sample = math.sqrt(after) * clean + math.sqrt(1 - after) * guided
    found = draw_both(model, both).double().numpy()
    assert np.abs(found - sample).max() < 1e-3 * np.abs(sample).max()


def model_alphas(model: Model) -> list[float]:
    """The cumulative products of 1 - beta of the model's schedule, in float64."""
    config = model.scheduler_config
    assert (config["beta_schedule"], config["steps_offset"]) == ("scaled_linear", 1)
    betas = np.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, 1000) ** 2
    return list(np.cumprod(1 - betas))


def test_other_proportions_are_covered_and_cut_on_both_sides() -> None:
    """Latents of 8 by 8 for 16 by 8: twice as large, and the middle of it."""
    latents = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    whole = bilinear(latents.double().numpy(), 16, 16)
    assert np.allclose(enlarged(latents, 8, 16).numpy(), whole[:, :, 4:12], atol=1e-6)
    assert torch.equal(enlarged(latents, 8, 8), latents)


def test_no_strength_only_enlarges(model: Model) -> None:
    """With strength 0 no step runs, and the enlarged latents are the result."""
    both = asked(SecondPass(scale=2, strength=0))
    assert both.step_count == both.sampling.steps
    assert torch.equal(draw_both(model, both), enlarged(draw(model, both.passes[0]), 16, 16))


def test_variations_vary_in_both_passes(model: Model) -> None:
    """The second noise is varied as the first: at strength 1 it is the other seed's."""
    second = SecondPass(scale=1.5, strength=0.5)
    varied = asked(second, variation=Variation(1.0, 40))
    assert torch.allclose(draw_both(model, varied), draw_both(model, asked(second, seed=40)), atol=1e-4)


def test_work_between_passes_stops_where_nobody_waits(model: Model) -> None:
    """What `check` raises ends it before the next picture is decoded."""
    seen = []

    def check() -> None:
        seen.append(len(seen))
        if len(seen) == 2:
            raise RuntimeError("nobody waits")

    with pytest.raises(RuntimeError, match="nobody waits"):
        draw_both(model, asked(SecondPass(scale=1.5, mode=PIXEL), image_count=3), check)
    assert seen == [0, 1]
