"""The previews of a job as an animated picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

SIDE = 256
GAP = 6
COLUMNS = 3
FRAME_MS = 110
LAST_MS = 2500
PAPER = (250, 250, 247)


def write_animation(path: Path, films: Sequence[Sequence[Image.Image]]) -> None:
    """Write an animated WebP of `films`, of one length, side by side; it repeats for ever."""
    large = [_frame(pictures) for pictures in zip(*films, strict=True)]
    durations = [FRAME_MS] * (len(large) - 1) + [LAST_MS]
    large[0].save(
        path, "WEBP", save_all=True, append_images=large[1:], duration=durations, loop=0, quality=85, method=4
    )


def _frame(pictures: Sequence[Image.Image]) -> Image.Image:
    columns = min(COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * (SIDE + GAP) - GAP, rows * (SIDE + GAP) - GAP), PAPER)
    for index, picture in enumerate(pictures):
        shown = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        page.paste(shown, (index % columns * (SIDE + GAP), index // columns * (SIDE + GAP)))
    return page


def pick_evenly(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` indices below `count`, the first and the last among them."""
    if count <= wanted:
        return list(range(count))
    return [round(position * (count - 1) / (wanted - 1)) for position in range(wanted)]
