"""cloneofsimo's layout: modules by number, `unet:0:up`, `text_encoder:12:down`.

The number counts the linear layers inside attention (and GEGLU) in the order in which PyTorch walks the
model: of the U-Net the down blocks, the up blocks and the middle last. Whether a block's feed-forward
projection comes between its attentions (diffusers of that time), after them (today's), or not at all is told
by the shapes.
Source: https://github.com/cloneofsimo/lora, `lora_diffusion/lora.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from sdgrpc.lora.algorithms.tensors import Size

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = "ff.net.0.proj"
ORDERS: Mapping[str, tuple[str, ...]] = {
    "ff-between:": (*(f"attn1.{p}" for p in ATTENTION), FEED_FORWARD, *(f"attn2.{p}" for p in ATTENTION)),
    "ff-last:": (*(f"attn1.{p}" for p in ATTENTION), *(f"attn2.{p}" for p in ATTENTION), FEED_FORWARD),
    "ff-none:": tuple(f"{attention}.{p}" for attention in ("attn1", "attn2") for p in ATTENTION),
}
"""What stands before a numbered spelling -> the layers of one transformer block in their order."""

TEXT_ORDER = ("k_proj", "v_proj", "q_proj", "out_proj")

_NUMBERED = re.compile(r"(unet|text_encoder):(\d{1,4})$")
_BLOCK = re.compile(r"((down|up|mid)_block.*?\.transformer_blocks\.\d+)\.attn1\.to_q$")
_LAYER = re.compile(r"(.*encoder\.layers\.\d+\.self_attn)\.q_proj$")


def numbered_order(sizes: Mapping[str, Size]) -> str:
    """Return what tells the orders apart, to be put before the spellings; nothing if none is numbered.

    A GEGLU has eight rows per column (two halves of four times the width), which no attention has.
    """
    found = {spelling: match for spelling in sizes if (match := _NUMBERED.match(spelling))}
    if not found or len(found) != len(sizes):
        return ""
    count = sum(match.group(1) == "unet" for match in found.values())
    for order, place in (("ff-between:", 4), ("ff-last:", 8)):
        size = sizes.get(f"unet:{place}")
        if count % 9 == 0 and size and size.rows and size.columns and size.rows == 8 * size.columns:
            return order
    return "ff-none:"


def numbered_names(component: str, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (spelling, path) for every module that has a number, in each order."""
    if component == "unet":
        rank = {"down": 0, "up": 1, "mid": 2}
        found = sorted(
            (match for path in paths if (match := _BLOCK.match(path))),
            key=lambda match: (rank[match.group(2)], [int(n) for n in re.findall(r"\d+", match.group(1))]),
        )
        layers = {
            order: [f"{block.group(1)}.{name}" for block in found for name in names]
            for order, names in ORDERS.items()
        }
    else:
        blocks = sorted(
            (match.group(1) for path in paths if (match := _LAYER.match(path))),
            key=lambda block: [int(n) for n in re.findall(r"\d+", block)],
        )
        layers = {order: [f"{block}.{name}" for block in blocks for name in TEXT_ORDER] for order in ORDERS}
    known = set(paths)
    for order, names in layers.items():
        for number, path in enumerate(names):
            if path in known:
                yield f"{order}{component}:{number}", path
