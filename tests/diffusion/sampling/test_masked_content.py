"""What the masked part starts from, and greys as strengths of their own."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.conditioning import encode
from sdgrpc.diffusion.sampling.denoise import Start
from sdgrpc.diffusion.sampling.start import start
from sdgrpc.domain import MaskedContent, MaskOptions, Scheduler, TaskKind
from tests.support.tasks import box_mask, draw, task


def started(model: Model, **changes) -> Start:
    return start(model, task(TaskKind.INPAINT, **changes), encode(model, "a cat", None))


@pytest.mark.parametrize("level", [102, 204])
def test_one_grey_everywhere_is_transform_at_that_strength(model: Model, level: int) -> None:
    """Each step before its share keeps the noised input, so both begin at one noise level from one noise."""
    mask, options = box_mask(box=(0, 0, 64, 64), level=level), MaskOptions(soft=True)
    inpainted = draw(model, task(TaskKind.INPAINT, mask=mask, mask_options=options, steps=10))
    strength = level / 255
    transformed = draw(model, task(TaskKind.TRANSFORM, strength=strength, steps=10))
    assert torch.allclose(inpainted, transformed, atol=1e-5)


def test_soft_white_and_black_are_as_ever(model: Model) -> None:
    """Without greys there is nothing to follow the noise level."""
    hard = draw(model, task(TaskKind.INPAINT))
    assert torch.equal(draw(model, task(TaskKind.INPAINT, mask_options=MaskOptions(soft=True))), hard)


def test_latents_under_the_mask_by_hand(model: Model) -> None:
    """Zeros, or noise drawn last, mixed in by the mask, and all of it noised to the first level."""
    for content in (MaskedContent.NOTHING, MaskedContent.NOISE):
        options = MaskOptions(masked_content=content)
        begun = started(model, mask_options=options, scheduler=Scheduler.EULER, strength=0.6)
        known = begun.known
        assert known is not None
        generator = torch.Generator().manual_seed(7)
        drawn = [torch.randn(known.clean.shape, generator=generator) for _ in range(4)]
        assert torch.equal(known.noise, drawn[1])
        under = drawn[3] if content is MaskedContent.NOISE else torch.zeros_like(known.clean)
        sigma = begun.scheduler.sigmas[begun.scheduler.begin_index or 0]
        expected = (1 - known.mask) * known.clean + known.mask * under + sigma * known.noise
        assert torch.allclose(begun.latents, expected, atol=1e-5)


def test_fill_starts_from_the_colours_around(model: Model) -> None:
    """At a strength of 1 too, where the original's masked part leaves nothing."""
    fill = MaskOptions(masked_content=MaskedContent.FILL)
    plain, filled = started(model), started(model, mask_options=fill)
    assert not torch.equal(plain.latents, filled.latents)
    assert plain.known is not None
    assert filled.known is not None
    assert not torch.equal(plain.known.clean, filled.known.clean)
    assert torch.equal(plain.known.noise, filled.known.noise)
