"""Make the small pictures and LoRA files that cases.json names: `python -m tests.contract.make_files`."""

from __future__ import annotations

import struct
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from safetensors.torch import save

HERE = Path(__file__).parent
CROSS_ATTENTION = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
SD15_WIDTH, SD15_CONTEXT = 1280, 768


def pictures() -> dict[str, Image.Image]:
    """A red disc on white, and masks of its right half, one of them too small; two bars side by side.

    In `clear` the mask is where painting programs put it: in the alpha channel of the disc.
    """
    disc = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(disc).ellipse((16, 16, 47, 47), fill="red")
    right = Image.new("L", (64, 64), 0)
    ImageDraw.Draw(right).rectangle((32, 0, 63, 63), fill=255)
    clear = disc.copy()
    clear.putalpha(right)
    wide = Image.new("RGB", (200, 100), "blue")
    ImageDraw.Draw(wide).rectangle((0, 0, 99, 99), fill="red")
    return {"disc": disc, "mask": right, "small-mask": right.resize((32, 32)), "wide": wide, "clear": clear}


def lora_files() -> dict[str, bytes]:
    """A LoRA for another base, and one whose end is missing."""
    tensors = {
        f"{CROSS_ATTENTION}.lora_down.weight": torch.ones(1, SD15_CONTEXT, dtype=torch.float16) / 64,
        f"{CROSS_ATTENTION}.lora_up.weight": torch.ones(SD15_WIDTH, 1, dtype=torch.float16) / 64,
        f"{CROSS_ATTENTION}.alpha": torch.tensor(1.0),
    }
    whole = save(tensors)
    header = struct.unpack("<Q", whole[:8])[0]
    return {"for-sd15": whole, "truncated": whole[: 8 + header + 100]}


def main() -> None:
    """Write them."""
    for name, picture in pictures().items():
        picture.save(HERE / "images" / f"{name}.png")
    for name, content in lora_files().items():
        (HERE / "loras" / f"{name}.safetensors").write_bytes(content)


if __name__ == "__main__":
    main()
