"""SDXL's smaller relatives, told by which transformer blocks there are.

Each attention of SDXL has 2 or 10 blocks; SSD-1B, Segmind Vega and KOALA left most of them out and trained
the rest as models of their own. A LoRA that was trained on all of such a model fits into SDXL, where it means
nothing. The counts are those of the published configurations.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from sdgrpc.lora.dialects.relatives import KOALA, SSD_1B, VEGA

_BLOCK = re.compile(r"(down|up|mid)_blocks?(?:\.(\d+))?\.attentions\.(\d+)\.transformer_blocks\.(\d+)\.")

Depths = Mapping[str, int]
"""Attention, as `down1.0` is that of down block 1's layer 0 -> how many transformer blocks it has."""


Blocks = Mapping[int | str, tuple[int, ...]]


def _depths(down: Blocks, up: Blocks, mid: int = 0) -> Depths:
    sides: Mapping[str, Blocks] = {"down": down, "up": up, "mid": {} if not mid else {"": (mid,)}}
    return {
        f"{side}{block}.{layer}": depth
        for side, blocks in sides.items()
        for block, depths in blocks.items()
        for layer, depth in enumerate(depths)
    }


SMALLER: tuple[tuple[Depths, str], ...] = (
    (_depths({1: (2, 2), 2: (4, 4)}, {0: (4, 4, 10), 1: (2, 1, 1)}), SSD_1B),
    (_depths({1: (1, 1), 2: (2, 2)}, {0: (2, 2, 2), 1: (1, 1, 1)}), VEGA),
    (_depths({1: (2,), 2: (5,)}, {0: (5, 5), 1: (2, 2)}), KOALA),
    (_depths({1: (2,), 2: (6,)}, {0: (6, 6), 1: (2, 2)}, mid=6), KOALA),
)


def smaller_by_blocks(paths: Iterable[str]) -> str:
    """Return the smaller model whose transformer blocks are just those of a U-Net's modules; nothing if none.

    `paths` are in diffusers' layout.
    """
    found: dict[str, int] = {}
    for path in paths:
        if match := _BLOCK.match(path):
            side, block, layer, index = match.groups()
            name = f"{side}{block or ''}.{layer}"
            found[name] = max(found.get(name, 0), int(index) + 1)
    return next((name for depths, name in SMALLER if depths == found), "")
