"""The start of a job: noise per image, encoded inputs, strength."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures.autoencoder import decode
from sdgrpc.diffusion.prompts.conditioning import encode
from sdgrpc.diffusion.sampling.start import prepare, start
from sdgrpc.domain import Scheduler, Task, TaskKind
from sdgrpc.errors import ModelError
from tests.support.tasks import draw, gradient, pixels_of, task


def start_of(model: Model, asked: Task) -> torch.Tensor:
    return start(model, asked, encode(model, "a cat", None)).latents


@pytest.mark.parametrize("kind", TaskKind)
@pytest.mark.parametrize("scheduler", [Scheduler.EULER, Scheduler.EULER_ANCESTRAL, Scheduler.DPMPP_2M_SDE])
def test_image_i_is_the_single_image_of_seed_plus_i(
    model: Model, kind: TaskKind, scheduler: Scheduler
) -> None:
    """Within a step of 8-bit colour, also where the scheduler draws noise of its own."""
    asked = task(kind, scheduler=scheduler, image_count=3, seed=40)
    together = decode(model, draw(model, asked))
    for index, picture in enumerate(together):
        alone = task(kind, scheduler=scheduler, seed=40 + index)
        difference = pixels_of(picture).astype(int) - pixels_of(decode(model, draw(model, alone))[0])
        assert abs(difference).max() <= 1


def test_the_same_request_gives_the_same_bytes(model: Model) -> None:
    """Nothing random is left to the process."""
    asked = task(TaskKind.INPAINT, scheduler=Scheduler.DDPM, image_count=2)
    first = decode(model, draw(model, asked))
    torch.manual_seed(99)
    assert decode(model, draw(model, asked)) == first


def test_seeds_of_63_bits_differ(model: Model) -> None:
    """Neither half of a seed is dropped."""
    drawn = [start_of(model, task(seed=seed)) for seed in (0, 7, 2**32, 2**32 + 7, 2**62, 2**63 - 1)]
    for index, one in enumerate(drawn):
        assert not any(torch.equal(one, other) for other in drawn[:index])


@pytest.mark.parametrize("seed", [0, 2**63 - 1, -5])
def test_any_64_bit_seed_draws(model: Model, seed: int) -> None:
    """Seeds at the ends of their range are no special case, nor is the image after them."""
    drawn = start_of(model, task(seed=seed, image_count=2))
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("kind", [TaskKind.TRANSFORM, TaskKind.INPAINT])
def test_a_strength_without_steps_returns_the_input(model: Model, kind: TaskKind) -> None:
    """Strength 0 evaluates nothing and gives the encoded input."""
    asked = task(kind, strength=0.0, steps=5)
    assert asked.step_count == 0
    job = prepare(model, asked, encode(model, "a cat", None), lambda _: pytest.fail("no step runs"))
    with pytest.raises(StopIteration) as stop:
        next(job)
    assert torch.equal(stop.value.value, start_of(model, asked))


def test_more_strength_starts_further_from_the_input(model: Model) -> None:
    """The first latents lose the input as the strength grows."""
    clean = start_of(model, task(TaskKind.TRANSFORM, strength=0.0)).flatten()
    kept = [
        torch.corrcoef(
            torch.stack([start_of(model, task(TaskKind.TRANSFORM, strength=s, steps=10)).flatten(), clean])
        )[0, 1]
        for s in (0.2, 0.5, 0.9)
    ]
    assert kept[0] > kept[1] > kept[2]


def test_an_input_of_another_size_is_resized(model: Model) -> None:
    """The latents have the task's size whatever the input's."""
    asked = task(TaskKind.TRANSFORM, image=gradient(100, 37), width=96, height=40)
    assert start_of(model, asked).shape == (1, 4, 5, 12)


def test_inpainting_with_strength_1_starts_from_pure_noise(model: Model) -> None:
    """The input has no part in the first latents; below 1 it has."""
    other = gradient(64, 64)
    inverted = replace(other, data=bytes(255 - value for value in other.data))
    for strength, equal in ((1.0, True), (0.9, False)):
        first = start_of(model, task(TaskKind.INPAINT, strength=strength))
        second = start_of(model, task(TaskKind.INPAINT, strength=strength, image=inverted))
        assert torch.equal(first, second) is equal


def test_the_mask_and_the_masked_image_are_extra_channels(inpainting_model: Model) -> None:
    """An inpainting UNet is shown a binary mask, the same for all images, and the masked image's latents."""
    asked = task(TaskKind.INPAINT, image_count=2)
    begun = start(inpainting_model, asked, encode(inpainting_model, "a cat", None))
    assert begun.known is None
    assert begun.extra_channels is not None
    assert begun.extra_channels.shape == (2, 5, 8, 8)
    assert torch.equal(begun.extra_channels[0, 0], begun.extra_channels[1, 0])
    assert begun.extra_channels[:, 0].unique().tolist() == [0.0, 1.0]
    # What is under the mask is not shown.
    hidden = replace(asked, image=_painted_in_the_box(asked))
    other = start(inpainting_model, hidden, encode(inpainting_model, "a cat", None)).extra_channels
    assert torch.equal(begun.extra_channels, other)


def _painted_in_the_box(asked: Task):
    pixels = pixels_of(asked.image).copy()
    pixels[16:48, 16:48] = 200
    return replace(asked.image, data=pixels.tobytes())


@pytest.mark.parametrize("kind", [TaskKind.GENERATE, TaskKind.TRANSFORM])
def test_an_inpainting_model_only_inpaints(inpainting_model: Model, kind: TaskKind) -> None:
    """Other calls say so before anything runs."""
    with pytest.raises(ModelError, match="'tiny-inpainting' is an inpainting model"):
        prepare(inpainting_model, task(kind), encode(inpainting_model, "a cat", None), lambda _: None)


def test_a_half_precision_model_draws_nearly_the_same(folder: Path, model: Model) -> None:
    """Noise and latents are float32 whatever the model runs in, so only the predictions are rounded."""
    half = load("half", folder, device=torch.device("cpu"), dtype=torch.bfloat16)
    asked = task(scheduler=Scheduler.EULER_ANCESTRAL, image_count=2)
    exact, rounded = draw(model, asked), draw(half, asked)
    assert rounded.dtype is torch.float32
    assert (exact - rounded).std() < 0.1 * exact.std()
