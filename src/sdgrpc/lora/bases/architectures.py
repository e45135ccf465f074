"""The parameter names and shapes of the bases that files are made for, computed from a few numbers each.

They let a file be placed, and a wrong base be named, without any model at hand. The U-Nets are diffusers'
UNet2DConditionModel, the text encoders transformers' CLIPTextModel (no `text_model.` level) and
CLIPTextModelWithProjection (with it). The tests compare these lists with those of real state dicts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sdgrpc.domain.bases import OWN, SD2, SD15, SDXL
from sdgrpc.embedded import embedded_folder
from sdgrpc.errors import LoraError
from sdgrpc.lora.bases.module_names import TEXT_ENCODER, TEXT_ENCODER_2, UNET, NameIndex, Shape
from sdgrpc.lora.files.reading import read_shapes

Shapes = dict[str, Shape]
Named = Iterator[tuple[str, Shape]]


@dataclass(frozen=True, slots=True)
class UNetPlan:
    """A UNet2DConditionModel's dimensions; `depths[i]` transformer blocks per attention of down block i."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    cross_attention_width: int
    linear_projection: bool
    added_width: int = 0
    layers: int = 2

    def shapes(self) -> Shapes:
        """Name every parameter with its shape."""
        return dict(self._named())

    def _named(self) -> Named:
        first, last, time = self.channels[0], self.channels[-1], self.channels[0] * 4
        yield from _conv("conv_in", first, 4)
        yield from _linear("time_embedding.linear_1", time, first)
        yield from _linear("time_embedding.linear_2", time, time)
        if self.added_width:
            yield from _linear("add_embedding.linear_1", time, self.added_width)
            yield from _linear("add_embedding.linear_2", time, time)
        for block in range(len(self.channels)):
            yield from self._down(block)
        for index in range(2):
            yield from self._resnet(f"mid_block.resnets.{index}", last, last)
        # Where the lowest block has no attention (SD1, SD2) the middle has one of depth 1.
        yield from self._attention("mid_block.attentions.0", last, self.depths[-1] or 1)
        for block in range(len(self.channels)):
            yield from self._up(block)
        yield from _norm("conv_norm_out", first)
        yield from _conv("conv_out", 4, first)

    def _down(self, block: int) -> Named:
        out, prefix = self.channels[block], f"down_blocks.{block}"
        inner = self.channels[max(block - 1, 0)]
        for layer in range(self.layers):
            yield from self._resnet(f"{prefix}.resnets.{layer}", out, inner if layer == 0 else out)
            if self.depths[block]:
                yield from self._attention(f"{prefix}.attentions.{layer}", out, self.depths[block])
        if block < len(self.channels) - 1:
            yield from _conv(f"{prefix}.downsamplers.0.conv", out, out)

    def _up(self, block: int) -> Named:
        widths, depths = self.channels[::-1], self.depths[::-1]
        out, prefix = widths[block], f"up_blocks.{block}"
        before, below = widths[max(block - 1, 0)], widths[min(block + 1, len(widths) - 1)]
        for layer in range(self.layers + 1):
            hidden = before if layer == 0 else out
            skip = below if layer == self.layers else out
            yield from self._resnet(f"{prefix}.resnets.{layer}", out, hidden + skip)
            if depths[block]:
                yield from self._attention(f"{prefix}.attentions.{layer}", out, depths[block])
        if block < len(widths) - 1:
            yield from _conv(f"{prefix}.upsamplers.0.conv", out, out)

    def _resnet(self, prefix: str, out: int, inner: int) -> Named:
        yield from _norm(f"{prefix}.norm1", inner)
        yield from _conv(f"{prefix}.conv1", out, inner)
        yield from _linear(f"{prefix}.time_emb_proj", out, self.channels[0] * 4)
        yield from _norm(f"{prefix}.norm2", out)
        yield from _conv(f"{prefix}.conv2", out, out)
        if out != inner:
            yield from _conv(f"{prefix}.conv_shortcut", out, inner, kernel=1)

    def _attention(self, prefix: str, width: int, depth: int) -> Named:
        yield from _norm(f"{prefix}.norm", width)
        for projection in ("proj_in", "proj_out"):
            if self.linear_projection:
                yield from _linear(f"{prefix}.{projection}", width, width)
            else:
                yield from _conv(f"{prefix}.{projection}", width, width, kernel=1)
        for index in range(depth):
            block = f"{prefix}.transformer_blocks.{index}"
            for norm in ("norm1", "norm2", "norm3"):
                yield from _norm(f"{block}.{norm}", width)
            for attention, context in (("attn1", width), ("attn2", self.cross_attention_width)):
                yield f"{block}.{attention}.to_q.weight", (width, width)
                yield f"{block}.{attention}.to_k.weight", (width, context)
                yield f"{block}.{attention}.to_v.weight", (width, context)
                yield from _linear(f"{block}.{attention}.to_out.0", width, width)
            yield from _linear(f"{block}.ff.net.0.proj", width * 8, width)  # GEGLU: twice 4 x width
            yield from _linear(f"{block}.ff.net.2", width, width * 4)


@dataclass(frozen=True, slots=True)
class TextPlan:
    """A CLIP text model's dimensions; with a projection it has the level `text_model.`."""

    width: int
    layers: int
    projection: bool = False

    def shapes(self) -> Shapes:
        """Name every parameter with its shape."""
        level = "text_model." if self.projection else ""
        named = {f"{level}{name}": shape for name, shape in self._named()}
        if self.projection:
            named["text_projection.weight"] = (self.width, self.width)
        return named

    def _named(self) -> Named:
        yield "embeddings.token_embedding.weight", (49408, self.width)
        yield "embeddings.position_embedding.weight", (77, self.width)
        for index in range(self.layers):
            layer = f"encoder.layers.{index}"
            for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                yield from _linear(f"{layer}.self_attn.{projection}", self.width, self.width)
            yield from _norm(f"{layer}.layer_norm1", self.width)
            yield from _norm(f"{layer}.layer_norm2", self.width)
            yield from _linear(f"{layer}.mlp.fc1", self.width * 4, self.width)
            yield from _linear(f"{layer}.mlp.fc2", self.width, self.width * 4)
        yield from _norm("final_layer_norm", self.width)


def _linear(path: str, out: int, inner: int) -> Named:
    yield f"{path}.weight", (out, inner)
    yield f"{path}.bias", (out,)


def _conv(path: str, out: int, inner: int, kernel: int = 3) -> Named:
    yield f"{path}.weight", (out, inner, kernel, kernel)
    yield f"{path}.bias", (out,)


def _norm(path: str, width: int) -> Named:
    yield f"{path}.weight", (width,)
    yield f"{path}.bias", (width,)


SD1_CHANNELS = (320, 640, 1280, 1280)
CLIP_L, CLIP_H, CLIP_G = TextPlan(768, 12), TextPlan(1024, 23), TextPlan(1280, 32, projection=True)
PLANS: dict[str, dict[str, UNetPlan | TextPlan]] = {
    SD15: {
        UNET: UNetPlan(SD1_CHANNELS, (1, 1, 1, 0), 768, linear_projection=False),
        TEXT_ENCODER: CLIP_L,
    },
    SD2: {
        UNET: UNetPlan(SD1_CHANNELS, (1, 1, 1, 0), 1024, linear_projection=True),
        TEXT_ENCODER: CLIP_H,
    },
    SDXL: {
        UNET: UNetPlan((320, 640, 1280), (0, 2, 10), 2048, linear_projection=True, added_width=2816),
        TEXT_ENCODER: CLIP_L,
        TEXT_ENCODER_2: CLIP_G,
    },
}
VARIANT_INPUTS = (5, 8, 9)
"""Inputs of `conv_in` where the base was trained further for depth, for editing and for inpainting."""


def shapes(base: str) -> dict[str, Shapes]:
    """Return a published base's parameters per component. `base` is `sd15`, `sd2` or `sdxl`."""
    return {component: plan.shapes() for component, plan in PLANS[base].items()}


def model_folder_shapes(folder: Path) -> dict[str, Shapes]:
    """Return the parameters per component of a diffusers folder, read from its safetensors headers."""
    found: dict[str, Shapes] = {}
    for component in (UNET, TEXT_ENCODER, TEXT_ENCODER_2):
        for file in sorted((folder / component).glob("*.safetensors")):
            found.setdefault(component, {}).update(read_shapes(file.resolve()))
    return found


@lru_cache(maxsize=8)
def index(base: str) -> NameIndex:
    """Return the names of a base: a published one with variants, or `embedded` for this package's model."""
    if base == OWN:
        return NameIndex(model_folder_shapes(embedded_folder()))
    return NameIndex(shapes(base), VARIANT_INPUTS)


def known_bases() -> list[str]:
    """Return the bases that files can be told apart by; `embedded` only where the package has its model."""
    return [*PLANS, OWN] if _holds_model(embedded_folder()) else list(PLANS)


@lru_cache(maxsize=8)
def _holds_model(folder: Path) -> bool:
    try:
        return bool(model_folder_shapes(folder))
    except (OSError, LoraError):
        return False
