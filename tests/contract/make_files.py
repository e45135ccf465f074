"""Make the small pictures and tensor files that cases.json names: `python -m tests.contract.make_files`."""

from __future__ import annotations

import struct
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from safetensors.torch import save
from torch import Tensor

HERE = Path(__file__).parent
CROSS_ATTENTION = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
SD15_WIDTH, SD15_CONTEXT = 1280, 768
OWN_CONTEXT, LARGE_CONTEXT = 128, 1280


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
    long = wide.resize((300, 20))
    small = right.resize((32, 32))
    return {"disc": disc, "mask": right, "small-mask": small, "wide": wide, "long": long, "clear": clear}


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


def embeddings() -> dict[str, dict[str, Tensor]]:
    """A word of two vectors for the embedded model, and one for SDXL."""
    small = torch.linspace(-0.05, 0.05, 2 * OWN_CONTEXT).reshape(2, OWN_CONTEXT)
    large = {"clip_l": torch.zeros(1, SD15_CONTEXT), "clip_g": torch.zeros(1, LARGE_CONTEXT)}
    every = {"teapot": {"emb_params": small}, "large-teapot": large}
    return {word: {key: rows.half() for key, rows in named.items()} for word, named in every.items()}


def upscalers() -> dict[str, dict[str, Tensor]]:
    """A network of Real-ESRGAN's compact kind that doubles each pixel, and changes it a little."""
    generator = torch.Generator().manual_seed(0)

    def convolution(place: int, inputs: int, outputs: int) -> dict[str, Tensor]:
        weight = torch.randn(outputs, inputs, 3, 3, generator=generator) / 20
        return {f"body.{place}.weight": weight, f"body.{place}.bias": torch.zeros(outputs)}

    slopes = {f"body.{place}.weight": torch.full((4,), 0.25) for place in (1, 3)}
    tensors = {**convolution(0, 3, 4), **convolution(2, 4, 4), **convolution(4, 4, 12), **slopes}
    return {"double": tensors}


def main() -> None:
    """Write them."""
    for folder, files in (("embeddings", embeddings()), ("upscalers", upscalers())):
        (HERE / folder).mkdir(exist_ok=True)
        for name, tensors in files.items():
            (HERE / folder / f"{name}.safetensors").write_bytes(save(tensors))
    for name, picture in pictures().items():
        picture.save(HERE / "images" / f"{name}.png")
    for name, content in lora_files().items():
        (HERE / "loras" / f"{name}.safetensors").write_bytes(content)


if __name__ == "__main__":
    main()
