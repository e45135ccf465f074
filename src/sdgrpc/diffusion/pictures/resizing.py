"""Pictures to another size, in one of three ways.

CROP and PAD are the "crop and resize" and "resize and fill" of the web UI of AUTOMATIC1111, and diffusers'
`resize_mode` "crop" and "fill": the scaled picture lies in the middle, and what PAD leaves free is filled
with the colours of the picture's edges.
"""

from __future__ import annotations

from PIL import Image

from sdgrpc.domain import ResizeMode


def resized(
    image: Image.Image,
    width: int,
    height: int,
    mode: ResizeMode = ResizeMode.STRETCH,
    resample: Image.Resampling = Image.Resampling.LANCZOS,
) -> Image.Image:
    """The image at that size in pixels; Lanczos resampling is what diffusers' image processor uses."""
    if image.size == (width, height):
        return image
    if mode is ResizeMode.STRETCH:
        return image.resize((width, height), resample)
    if mode is ResizeMode.CROP:
        return image.resize((width, height), resample, box=_covered(image, width, height))
    return _padded(image, width, height, resample)


def covering(width: int, height: int, wide: int, high: int) -> tuple[int, int]:
    """The width and height, in the proportions of the first two, that just cover the others."""
    scale = max(wide / width, high / height)
    return max(round(width * scale), wide), max(round(height * scale), high)


def _covered(image: Image.Image, width: int, height: int) -> tuple[float, float, float, float]:
    """The largest part in the middle of the image with the proportions `width`:`height`, in its pixels."""
    scale = max(width / image.width, height / image.height)
    part_width, part_height = min(width / scale, image.width), min(height / scale, image.height)
    left, top = (image.width - part_width) / 2, (image.height - part_height) / 2
    return left, top, left + part_width, top + part_height


def _padded(image: Image.Image, width: int, height: int, resample: Image.Resampling) -> Image.Image:
    scale = min(width / image.width, height / image.height)
    inner_width = min(max(round(image.width * scale), 1), width)
    inner_height = min(max(round(image.height * scale), 1), height)
    inner = image.resize((inner_width, inner_height), resample)
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    right, bottom = width - left - inner_width, height - top - inner_height
    filled = Image.new(image.mode, (width, height))
    filled.paste(inner, (left, top))
    # Each bar repeats the column or row that it touches: those at the sides first, then those across.
    end, foot = left + inner_width, top + inner_height
    for size, box, at in (
        ((left, inner_height), (left, top, left + 1, foot), (0, top)),
        ((right, inner_height), (end - 1, top, end, foot), (end, top)),
        ((width, top), (0, top, width, top + 1), (0, 0)),
        ((width, bottom), (0, foot - 1, width, foot), (0, foot)),
    ):
        if min(size):
            filled.paste(filled.crop(box).resize(size, Image.Resampling.NEAREST), at)
    return filled
