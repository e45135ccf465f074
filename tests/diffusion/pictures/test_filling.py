"""Holes filled with the colours around them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from sdgrpc.diffusion.pictures.filling import filled


def hole(box: tuple[int, int, int, int], size: int = 64) -> Image.Image:
    mask = Image.new("L", (size, size))
    mask.paste(255, box)
    return mask


def test_what_is_kept_stays_to_the_bit() -> None:
    """Outside of the mask nothing changes, whatever is under it."""
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    result = np.asarray(filled(Image.fromarray(pixels), hole((16, 16, 48, 48))))
    outside = np.asarray(hole((16, 16, 48, 48))) == 0
    assert np.array_equal(result[outside], pixels[outside])
    assert not np.array_equal(result[~outside], pixels[~outside])


def test_one_colour_around_fills_with_it() -> None:
    """Nothing of what was in the hole bleeds into it; eight bits of premultiplied colour round a little."""
    image = Image.new("RGB", (64, 64), (200, 100, 50))
    image.paste((0, 255, 0), (20, 20, 44, 44))
    inside = np.asarray(filled(image, hole((20, 20, 44, 44))))[20:44, 20:44].astype(int)
    assert abs(inside - [200, 100, 50]).max() <= 8


def test_two_sides_meet_in_between() -> None:
    """The colours fall from one side to the other, as a mean weighed by distance in float64 does."""
    image = Image.new("RGB", (64, 64), (0, 0, 0))
    image.paste((240, 240, 240), (32, 0, 64, 64))
    row = np.asarray(filled(image, hole((16, 0, 48, 64))))[32, 16:48, 0].astype(int)
    assert row[0] < 60
    assert row[-1] > 180
    assert 80 < row[15:17].mean() < 160
    assert (np.diff(row) >= -2).all()
