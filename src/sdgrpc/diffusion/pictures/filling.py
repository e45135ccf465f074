"""The masked part of a picture filled with the colours around it: "fill" of the web UI of AUTOMATIC1111.

The kept pixels are blurred, each weighed by how much of it is kept, and laid over each other from the widest
blur to none: far from the edge the hole has the mean of what is around, near it the colours next to it.
"""

from __future__ import annotations

from PIL import Image, ImageFilter, ImageOps

LAYERS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2))
"""Radius of a blur in pixels, and how often it is laid over the wider ones."""


def filled(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture (RGB) with its masked part (L, white) filled; what is kept stays to the bit."""
    kept = image.convert("RGBA")
    kept.putalpha(ImageOps.invert(mask))
    weighed = kept.convert("RGBa")  # colours times alpha, so that a blur is a weighed mean
    result = Image.new("RGBA", image.size)
    for radius, times in LAYERS:
        blurred = weighed.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            result.alpha_composite(blurred)
    return Image.composite(result.convert("RGB"), image, mask)
