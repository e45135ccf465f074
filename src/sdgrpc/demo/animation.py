"""The previews of a job as an animated picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

SIDE = 384
FRAME_MS = 120
LAST_MS = 2500


def write_animation(path: Path, frames: Sequence[Image.Image]) -> None:
    """Write an animated WebP of `frames`, the last of which stays for a while; it repeats for ever."""
    large = [frame.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC) for frame in frames]
    durations = [FRAME_MS] * (len(large) - 1) + [LAST_MS]
    large[0].save(
        path, "WEBP", save_all=True, append_images=large[1:], duration=durations, loop=0, quality=85, method=4
    )


def pick_evenly(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` indices below `count`, the first and the last among them."""
    if count <= wanted:
        return list(range(count))
    return [round(position * (count - 1) / (wanted - 1)) for position in range(wanted)]
