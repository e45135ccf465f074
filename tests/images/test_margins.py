"""Margins around pictures."""

from __future__ import annotations

import numpy as np

from sdgrpc.domain import Margins, Picture
from sdgrpc.images.margins import with_margins


def test_edges_go_on_into_the_margins() -> None:
    """Each margin has its own width; corners have the corner's colour, and the picture stays."""
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    wide = with_margins(Picture(3, 2, 3, pixels.tobytes()), Margins(1, 2, 3, 4))
    assert (wide.width, wide.height, wide.channels) == (7, 8, 3)
    found = np.frombuffer(wide.data, np.uint8).reshape(8, 7, 3)
    assert np.array_equal(found[2:4, 1:4], pixels)
    assert np.array_equal(found[0, 0], pixels[0, 0])
    assert np.array_equal(found[7, 6], pixels[1, 2])
    assert np.array_equal(found[3, 0], pixels[1, 0])


def test_a_mask_is_white_in_the_margins() -> None:
    """Black stays where the picture is."""
    wide = with_margins(Picture(1, 1, 1, bytes(1)), Margins(right=2), 255)
    assert (wide.width, list(wide.data)) == (3, [0, 255, 255])
