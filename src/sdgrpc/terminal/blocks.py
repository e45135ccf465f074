"""Pictures in a terminal: two pixels to a character, as upper half blocks.

That is what textual-image falls back to where a terminal has no graphics protocol; to find out about those it
asks the terminal and reads the answer from the keyboard's stream, which is not a progress bar's to read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.color import Color
from rich.segment import Segment, Segments
from rich.style import Style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

UPPER_HALF_BLOCK = "▀"


def half_blocks(images: Sequence[Image.Image], *, columns: int, lines: int) -> Segments:
    """Draw `images` side by side, scaled to fit `columns` characters by `lines` lines."""
    row = side_by_side(images)
    scale = min(columns / row.width, 2 * lines / row.height)
    width = max(1, round(row.width * scale))
    height = 2 * max(1, round(row.height * scale / 2))
    pixels = row.resize((width, height)).tobytes()
    segments: list[Segment] = []
    for y in range(0, height, 2):
        upper, lower = 3 * width * y, 3 * width * (y + 1)
        segments += [_cell(pixels, upper + 3 * x, lower + 3 * x) for x in range(width)]
        segments.append(Segment.line())
    return Segments(segments)


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Return one RGB picture of pictures of one size, in a row."""
    from PIL import Image

    width, height = images[0].size
    row = Image.new("RGB", (width * len(images), height))
    for index, image in enumerate(images):
        row.paste(image, (index * width, 0))
    return row


def _cell(pixels: bytes, upper: int, lower: int) -> Segment:
    style = Style(
        color=Color.from_rgb(*pixels[upper : upper + 3]), bgcolor=Color.from_rgb(*pixels[lower : lower + 3])
    )
    return Segment(UPPER_HALF_BLOCK, style)
