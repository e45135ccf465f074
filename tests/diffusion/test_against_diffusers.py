"""Our latents are those of diffusers' pipelines, within 1e-4 of the latents' standard deviation."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
import torch

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.sampling.schedulers import scheduler_class
from sdgrpc.domain import SUPPORTED_SPACINGS, Scheduler, SigmaSpacing, Task, TaskKind
from sdgrpc.embedded import EMBEDDED
from tests.support.oracle import diffusers_errs, diffusers_latents, relative_difference
from tests.support.tasks import box_mask, draw, gradient, task

TOLERANCE = 1e-4

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def scheduler_options(scheduler: Scheduler) -> frozenset[str]:
    return frozenset(inspect.signature(scheduler_class(scheduler).__init__).parameters)


def assert_equal(model: Model, asked: Task) -> None:
    """Ours and diffusers' latents are equal, but where diffusers errs."""
    equal = relative_difference(draw(model, asked), diffusers_latents(model, asked)) <= TOLERANCE
    assert equal is not diffusers_errs(model, asked)


@pytest.mark.parametrize("kind", TaskKind)
@pytest.mark.parametrize("scheduler", Scheduler)
def test_every_scheduler_in_every_kind_of_call(model: Model, scheduler: Scheduler, kind: TaskKind) -> None:
    """Text-to-image, image-to-image and inpainting agree for every scheduler."""
    assert_equal(model, task(kind, scheduler=scheduler))


@pytest.mark.parametrize(
    ("scheduler", "spacing"),
    [
        (scheduler, spacing)
        for scheduler in Scheduler
        for spacing in SigmaSpacing
        if spacing in SUPPORTED_SPACINGS[scheduler] and spacing is not SigmaSpacing.DEFAULT
    ],
)
def test_every_spacing(model: Model, scheduler: Scheduler, spacing: SigmaSpacing) -> None:
    """Text-to-image agrees for every spacing that a scheduler supports."""
    assert_equal(model, task(scheduler=scheduler, sigma_spacing=spacing, steps=4))


@pytest.mark.parametrize("kind", TaskKind)
@pytest.mark.parametrize("scheduler", Scheduler)
def test_v_prediction(v_model: Model, scheduler: Scheduler, kind: TaskKind) -> None:
    """A v-prediction model agrees in every kind of call, at an odd number of steps."""
    assert_equal(v_model, task(kind, scheduler=scheduler, steps=3))


@pytest.mark.parametrize(
    "scheduler", [each for each in Scheduler if "rescale_betas_zero_snr" in scheduler_options(each)]
)
def test_zero_terminal_snr(v_model: Model, scheduler: Scheduler) -> None:
    """A schedule that ends without signal, counted from its end, agrees, where diffusers' class knows of it.

    All are compared with their formulas in sampling/test_against_formulas.py.
    """
    changed = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    model = replace(v_model, scheduler_config=v_model.scheduler_config | changed)
    asked = task(scheduler=scheduler, steps=4)
    assert_equal(model, asked)
    assert not torch.equal(draw(model, asked), draw(v_model, asked))


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("scheduler", [Scheduler.EULER_ANCESTRAL, Scheduler.DDIM, Scheduler.DPMPP_2M_SDE])
def test_inpainting_model(inpainting_model: Model, scheduler: Scheduler, strength: float) -> None:
    """A UNet of 9 channels is shown the mask and the masked image as diffusers shows them."""
    assert_equal(inpainting_model, task(TaskKind.INPAINT, scheduler=scheduler, strength=strength))


@pytest.mark.parametrize("scheduler", [Scheduler.HEUN, Scheduler.KDPM2_ANCESTRAL, Scheduler.PNDM])
@pytest.mark.parametrize("strength", [1.0, 0.75, 0.25])
@pytest.mark.parametrize("kind", [TaskKind.TRANSFORM, TaskKind.INPAINT])
def test_strengths(model: Model, kind: TaskKind, strength: float, scheduler: Scheduler) -> None:
    """The share of the steps that runs is diffusers', for schedulers that evaluate twice too."""
    assert_equal(model, task(kind, strength=strength, scheduler=scheduler))


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance_scale": 1.0},
        {"guidance_scale": 12.5},
        {"negative_prompt": ""},
        {"clip_skip": 1},
        {"clip_skip": 2},
        {"image_count": 3},
        {"width": 96, "height": 32},
        {"prompt": "a red cat, " * 8},
    ],
    ids=str,
)
def test_sampling_options(model: Model, changes: dict[str, object]) -> None:
    """Guidance, negative prompt, clip skip, several images and other sizes agree."""
    assert_equal(model, task(**changes))


@pytest.mark.parametrize("kind", [TaskKind.TRANSFORM, TaskKind.INPAINT])
def test_several_images_from_one_input(model: Model, kind: TaskKind) -> None:
    """Image i of an edit is the one that diffusers draws from seed + i, a scheduler's own noise included."""
    assert_equal(model, task(kind, image_count=2, scheduler=Scheduler.EULER_ANCESTRAL))


def test_a_mask_beside_the_latent_grid(model: Model) -> None:
    """A mask whose edges lie between latent cells is sampled as diffusers samples it."""
    mask = box_mask(box=(11, 3, 45, 50))
    assert_equal(model, task(TaskKind.INPAINT, mask=mask))


def test_the_comparison_can_fail(model: Model) -> None:
    """Another seed is far outside the tolerance."""
    assert relative_difference(draw(model, task(seed=8)), diffusers_latents(model, task())) > 0.1


@pytest.mark.parametrize("kind", TaskKind)
def test_the_embedded_model(kind: TaskKind) -> None:
    """The packaged model, with trained weights, draws what diffusers draws with it."""
    embedded = load("embedded", EMBEDDED, device=torch.device("cpu"), dtype=None)
    side = embedded.info.width
    asked = task(kind, scheduler=Scheduler.DPMPP_2M, width=side, height=side, prompt="a red circle")
    if kind is not TaskKind.GENERATE:
        asked = replace(asked, image=gradient(side, side))
    if kind is TaskKind.INPAINT:
        asked = replace(asked, mask=box_mask(side, side))
    assert_equal(embedded, asked)
