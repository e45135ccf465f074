"""The names that CompVis's latent-diffusion code gives to the modules of a diffusers U-Net.

SDXL's kohya files use them by default. The numbers follow from the model's own list of modules: the
blocks in the order in which both codes run them, so that any U-Net of this family can be named.
Source: `convert_unet_state_dict` of diffusers' `scripts/convert_diffusers_to_original_stable_diffusion.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

OUTER = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
MIDDLE = {"resnets.0": "middle_block.0", "attentions.0": "middle_block.1", "resnets.1": "middle_block.2"}

_PART = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)(?:\.|$)")
_MIDDLE_PART = re.compile(r"mid_block\.((?:resnets|attentions)\.\d+)\.(.+)")


def ldm_names(modules: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield (diffusers path, LDM path) for every module of a U-Net that has an LDM name.

    `down_blocks.0.attentions.0.proj_in` is `input_blocks.1.1.proj_in`.
    """
    paths = list(modules)
    parts = _number_parts(paths)
    for path in paths:
        if path in OUTER:
            yield path, OUTER[path]
        elif found := _MIDDLE_PART.match(path):
            part, rest = found.groups()
            if part in MIDDLE:
                yield path, f"{MIDDLE[part]}.{_inner(part, rest)}"
        elif (found := _PART.match(path)) and (part := parts.get(found.group().rstrip("."))):
            yield path, f"{part}.{_inner(found.group(3), path[found.end() :])}"


def _inner(part: str, rest: str) -> str:
    if part.startswith("resnets"):
        head, _, tail = rest.partition(".")
        return ".".join(filter(None, (RESNET.get(head, head), tail)))
    return "op" if part == "downsamplers" and rest == "conv" else rest


def _number_parts(paths: Iterable[str]) -> dict[str, str]:
    """Give each resnet, attention and sampler of the down and up blocks its place in LDM's flat lists."""
    kinds: dict[tuple[str, int, str], int] = {}
    for path in paths:
        if found := _PART.match(path):
            direction, block, kind, index = found.groups()
            key = (direction, int(block), kind)
            kinds[key] = max(kinds.get(key, 0), int(index) + 1)
    return {**_number_down(kinds), **_number_up(kinds)}


def _blocks(kinds: dict[tuple[str, int, str], int], direction: str) -> list[int]:
    return sorted({block for way, block, _ in kinds if way == direction})


def _number_down(kinds: dict[tuple[str, int, str], int]) -> dict[str, str]:
    parts: dict[str, str] = {}
    position = 1  # 0 is conv_in
    for block in _blocks(kinds, "down"):
        for layer in range(kinds.get(("down", block, "resnets"), 0)):
            parts[f"down_blocks.{block}.resnets.{layer}"] = f"input_blocks.{position}.0"
            parts[f"down_blocks.{block}.attentions.{layer}"] = f"input_blocks.{position}.1"
            position += 1
        if ("down", block, "downsamplers") in kinds:
            parts[f"down_blocks.{block}.downsamplers.0"] = f"input_blocks.{position}.0"
            position += 1
    return parts


def _number_up(kinds: dict[tuple[str, int, str], int]) -> dict[str, str]:
    parts: dict[str, str] = {}
    position = 0
    for block in _blocks(kinds, "up"):
        for layer in range(kinds.get(("up", block, "resnets"), 0)):
            parts[f"up_blocks.{block}.resnets.{layer}"] = f"output_blocks.{position}.0"
            parts[f"up_blocks.{block}.attentions.{layer}"] = f"output_blocks.{position}.1"
            position += 1
        sampler = 2 if ("up", block, "attentions") in kinds else 1
        parts[f"up_blocks.{block}.upsamplers.0"] = f"output_blocks.{position - 1}.{sampler}"
    return parts
