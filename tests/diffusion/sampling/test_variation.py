"""Pictures between two seeds, and pictures whose edges fit."""

from __future__ import annotations

import math

import numpy as np
import torch

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures.autoencoder import decode
from sdgrpc.diffusion.prompts.conditioning import encode
from sdgrpc.diffusion.sampling import start as starting
from sdgrpc.diffusion.sampling.noise import generator, slerp
from sdgrpc.domain import TaskKind, Tiling, Variation
from tests.support.tasks import draw, pixels_of, task


def noise_of(seed: int, rows: int = 8, columns: int = 8) -> torch.Tensor:
    return torch.randn((1, 4, rows, columns), generator=generator(seed))


def test_columns_turn_towards_the_other_noise_in_float64() -> None:
    """One vector of rows at a time, by the angle between the two."""
    one, other, share = noise_of(1), noise_of(2), 0.3
    found = slerp(one, other, share).double()
    for channel in range(4):
        for column in range(8):
            a, b = one[0, channel, :, column].double(), other[0, channel, :, column].double()
            angle = math.acos(float(a @ b / (a.norm() * b.norm())))
            expected = (math.sin((1 - share) * angle) * a + math.sin(share * angle) * b) / math.sin(angle)
            assert torch.allclose(found[0, channel, :, column], expected, atol=1e-4)


def test_the_ends_are_the_two_noises() -> None:
    """And noises that are nearly parallel are mixed plainly, where the angle is no number."""
    one, other = noise_of(1), noise_of(2)
    assert torch.allclose(slerp(one, other, 0.0), one, atol=1e-5)
    assert torch.allclose(slerp(one, other, 1.0), other, atol=1e-5)
    assert torch.allclose(slerp(one, one, 0.5), one)


def test_images_share_the_seed_and_vary_towards_others(model: Model) -> None:
    """Image i goes towards the variation's seed + i; at strength 1 it begins as that seed does."""
    asked = task(seed=7, image_count=2, variation=Variation(1.0, 40))
    begun = starting.start(model, asked, encode(model, "a cat", None)).latents
    for index in range(2):
        alone = starting.start(model, task(seed=40 + index), encode(model, "a cat", None)).latents
        assert torch.allclose(begun[index : index + 1], alone, atol=1e-5)
    nothing = task(seed=7, variation=Variation(0.0, 40))
    assert torch.equal(draw(model, nothing), draw(model, task(seed=7)))
    assert not torch.equal(draw(model, task(variation=Variation(0.1, 40))), draw(model, task()))
    assert torch.isfinite(draw(model, task(TaskKind.INPAINT, variation=Variation(0.5, 3)))).all()


def test_a_tiled_picture_moves_with_its_noise(model: Model, monkeypatch) -> None:
    """Noise that is shifted around the edge gives the same picture, shifted: there is no edge."""
    plain = starting._noise
    asked = task(tiling=Tiling(True, True))
    whole = decode(model, draw(model, asked), Tiling(True, True))[0]
    monkeypatch.setattr(starting, "_noise", lambda *arguments: plain(*arguments).roll((4, 4), (2, 3)))
    moved = decode(model, draw(model, asked), Tiling(True, True))[0]
    shifted = np.roll(pixels_of(whole), (32, 32), (0, 1)).astype(int)
    assert abs(shifted - pixels_of(moved)).max() <= 2
    with_edges = decode(model, draw(model, task()))[0]
    assert abs(np.roll(pixels_of(with_edges), (32, 32), (0, 1)).astype(int) - pixels_of(moved)).max() > 2
