"""Previews: the linear map, their size, and latents as they travel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures.previews import PUBLISHED_FACTORS, fitted, latent_array, preview_pictures
from tests.support.tasks import gradient, pixels_of


def test_the_map_is_the_models_own(model: Model) -> None:
    """Each channel adds its colour, the bias is added once, and [-1, 1] becomes 0 to 255."""
    latents = torch.zeros(2, 4, 3, 5)
    latents[1, 0] = 1.0
    plain, red = (pixels_of(one) for one in preview_pictures(model, latents, 0))
    assert plain.shape == (3, 5, 3)
    # sdgrpc.json of the tiny model: bias (0, 0.1, -0.1), first channel (0.3, 0, 0).
    assert plain[0, 0].tolist() == [128, 140, 115]
    assert red[0, 0].tolist() == [166, 140, 115]


@pytest.mark.parametrize(("max_side", "size"), [(0, (5, 3)), (20, (20, 12)), (10_000, (40, 24)), (1, (1, 1))])
def test_the_longer_side(model: Model, max_side: int, size: tuple[int, int]) -> None:
    """0 is the latents' size; no preview is larger than the image."""
    picture = preview_pictures(model, torch.zeros(1, 4, 3, 5), max_side)[0]
    assert (picture.width, picture.height) == size
    assert len(picture.data) == 3 * size[0] * size[1]


def test_half_precision_latents_are_welcome(model: Model) -> None:
    """A preview does not care what the model runs in."""
    latents = torch.randn(1, 4, 2, 2)
    exact = pixels_of(preview_pictures(model, latents, 0)[0]).astype(int)
    rounded = pixels_of(preview_pictures(model, latents.bfloat16(), 0)[0])
    assert abs(exact - rounded).max() <= 2


def test_latents_travel_as_little_endian_float16() -> None:
    """Channels first, row-major."""
    latents = torch.arange(24, dtype=torch.float32).view(2, 3, 4) / 7
    sent = latent_array(latents)
    assert (sent.channels, sent.height, sent.width) == (2, 3, 4)
    read = np.frombuffer(sent.data, "<f2").reshape(2, 3, 4)
    assert np.array_equal(read, latents.half().numpy())


def test_a_view_of_a_batch_travels_too() -> None:
    """Memory order does not matter."""
    latents = torch.randn(2, 4, 3, 5).to(memory_format=torch.channels_last)
    assert np.array_equal(
        np.frombuffer(latent_array(latents[1]).data, "<f2"), latents[1].half().numpy().flatten()
    )


def test_published_factors_cover_the_published_bases(model: Model) -> None:
    """Four channels of three colours each; white latents of SD1 are not black."""
    assert set(PUBLISHED_FACTORS) == {"sd15", "sd2", "sdxl"}
    for factors, bias in PUBLISHED_FACTORS.values():
        assert np.asarray(factors).shape == (4, 3)
        assert len(bias) == 3
    sd1 = replace(
        model.info, latent_rgb_factors=PUBLISHED_FACTORS["sd15"][0], latent_rgb_bias=(0.0, 0.0, 0.0)
    )
    # What SD1's VAE gives for a white picture, scaled: the first two channels high, the last two low.
    white = torch.tensor([1.6, 0.6, -0.1, -1.0]).view(1, 4, 1, 1)
    picture = preview_pictures(replace(model, info=sd1), white, 0)[0]
    assert min(picture.data) > 200


def test_fitting_keeps_proportions() -> None:
    """A wide picture stays wide, and the own size is left alone."""
    wide = gradient(60, 20)
    assert (fitted(wide, 30).width, fitted(wide, 30).height) == (30, 10)
    assert fitted(wide, 60) is wide
