"""The original layout of checkpoints: which model a file holds, read from its tensors' names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP = {"sd15": "cond_stage_model.transformer.", "sdxl": "conditioner.embedders.0.transformer."}
OPEN_CLIP = {"sd2": "cond_stage_model.model.", "sdxl": "conditioner.embedders.1.model."}

# Side of the pictures that each base was trained on, in latent cells, and its VAE's scale.
SAMPLE_SIZES = {"sd15": 64, "sd2": 64, "sdxl": 128}
SD2_V_SAMPLE_SIZE = 96
# Of the 24 layers of SD2's text encoder (ViT-H/14).
SD2_LAYERS = 23
VAE_SCALES = {"sd15": 0.18215, "sd2": 0.18215, "sdxl": 0.13025}

# Width of an attention head in CLIP, in SD2's UNet and in SDXL's; SD1's UNet has 8 heads of any width.
HEAD_WIDTH = 64
SD1_HEADS = 8
TOKENS = 77


@dataclass(frozen=True)
class Layout:
    """Names and shapes of a file's tensors."""

    shapes: Mapping[str, tuple[int, ...]]

    def base(self) -> str | None:
        """`sd15`, `sd2` or `sdxl` by the text encoders; None where the file holds none of the three."""
        if not self._has(UNET) or self._has("conditioner.embedders.0.model."):
            return None
        if self._has(CLIP["sdxl"]) and self._has(OPEN_CLIP["sdxl"]):
            return "sdxl"
        bases = [base for base, prefix in (CLIP | OPEN_CLIP).items() if base != "sdxl" and self._has(prefix)]
        return bases[0] if bases else None

    def names(self, prefix: str) -> list[str]:
        """The tensors under `prefix`."""
        return [name for name in self.shapes if name.startswith(prefix)]

    def _has(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.shapes)

    def _indices(self, pattern: str) -> list[int]:
        """The numbers that `pattern`'s group takes in the names, ascending."""
        found = (re.match(pattern, name) for name in self.shapes)
        return sorted({int(match[1]) for match in found if match})

    def unet(self, base: str) -> dict[str, Any]:
        """The configuration of diffusers' UNet2DConditionModel for the file's tensors.

        Levels end at their downsampling; channels, layers and transformer depths follow from the shapes. A
        KeyError or IndexError says that the tensors are of no UNet of this family.
        """
        levels = self._levels()
        layers = len(levels[0])
        channels = [
            self.shapes[f"{UNET}input_blocks.{level[0]}.0.out_layers.3.weight"][0] for level in levels
        ]
        down = [[self._depth(f"input_blocks.{block}.1") for block in level] for level in levels]
        up = [
            [self._depth(f"output_blocks.{level * (layers + 1) + layer}.1") for layer in range(layers + 1)]
            for level in range(len(levels))
        ]
        config = {
            "sample_size": SAMPLE_SIZES[base],
            "in_channels": self.shapes[f"{UNET}input_blocks.0.0.weight"][1],
            "out_channels": self.shapes[f"{UNET}out.2.weight"][0],
            "layers_per_block": layers,
            "block_out_channels": channels,
            "down_block_types": ["CrossAttnDownBlock2D" if any(one) else "DownBlock2D" for one in down],
            "up_block_types": ["CrossAttnUpBlock2D" if any(one) else "UpBlock2D" for one in up],
            **self._transformers(down, up),
            "cross_attention_dim": self._first("attn2.to_k.weight")[1],
            "use_linear_projection": len(self._first("proj_in.weight")) == 2,
            "attention_head_dim": SD1_HEADS if base == "sd15" else [heads(width) for width in channels],
        }
        return config | (self._added(base) if base == "sdxl" else {})

    def _transformers(self, down: Sequence[list[int]], up: Sequence[list[int]]) -> dict[str, Any]:
        """How many transformer blocks each attention has, on the way down, up and in the middle.

        SSD-1B's and Vega's middle has no attention, and the way up is not the mirror of the way down.
        """
        middle = self._depth("middle_block.1")
        first = [one[0] or 1 for one in down]
        if middle:  # it has the last level's depth, also where that level itself has no transformers
            first[-1] = middle
        found: dict[str, Any] = {"transformer_layers_per_block": first}
        if not middle:
            has_one = self._has(f"{UNET}middle_block.0.")
            found["mid_block_type"] = "UNetMidBlock2D" if has_one else None
        mirrored = [[one[0]] * len(level) for one, level in zip(reversed(down), up, strict=True)]
        if list(up) != mirrored or any(one != [one[0]] * len(one) for one in down):
            found["transformer_layers_per_block"] = [list(map(_at_least_one, one)) for one in down]
            found["reverse_transformer_layers_per_block"] = [list(map(_at_least_one, one)) for one in up]
            if middle:
                raise ValueError("its ways down and up differ, and its middle has transformers")
        return found

    def _first(self, ending: str) -> tuple[int, ...]:
        """The shape of the first of the UNet's attention's tensors that is called so."""
        for name, shape in self.shapes.items():
            if name.startswith(UNET) and name.endswith(ending):
                return shape
        raise KeyError(f"{UNET}….{ending}")

    def _levels(self) -> list[list[int]]:
        """The input blocks of each level, without the downsampling ones."""
        levels: list[list[int]] = [[]]
        for index in self._indices(re.escape(UNET) + r"input_blocks\.(\d+)\.")[1:]:
            if f"{UNET}input_blocks.{index}.0.op.weight" in self.shapes:
                levels.append([])
            else:
                levels[-1].append(index)
        return levels

    def _depth(self, block: str) -> int:
        return len(self._indices(re.escape(f"{UNET}{block}.transformer_blocks.") + r"(\d+)\."))

    def _added(self, base: str) -> dict[str, Any]:
        """SDXL's embeddings of six sizes beside the pooled prompt."""
        width = self.shapes[f"{UNET}label_emb.0.0.weight"][1]
        pooled = self.shapes[f"{OPEN_CLIP[base]}text_projection"][1]
        return {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": (width - pooled) // 6,
            "projection_class_embeddings_input_dim": width,
        }

    def vae(self, scaling_factor: float, sample_size: int) -> dict[str, Any]:
        """The configuration of diffusers' AutoencoderKL."""
        levels = self._indices(re.escape(VAE) + r"encoder\.down\.(\d+)\.block\.")
        channels = [self.shapes[f"{VAE}encoder.down.{level}.block.0.conv2.weight"][0] for level in levels]
        layers = len(self._indices(re.escape(VAE) + r"encoder\.down\.0\.block\.(\d+)\."))
        latent = self.shapes[f"{VAE}decoder.conv_in.weight"][1]
        return vae_config(channels, layers, latent, scaling_factor, sample_size)

    def clip(self, base: str) -> dict[str, Any]:
        """The configuration of OpenAI's CLIP text encoder (ViT-L/14) as transformers names it."""
        prefix = CLIP[base]
        prefix += "text_model." if self._has(f"{prefix}text_model.") else ""
        return _text(
            self.shapes[f"{prefix}embeddings.token_embedding.weight"],
            layers=len(self._indices(re.escape(f"{prefix}encoder.layers.") + r"(\d+)\.")),
            inner=self.shapes[f"{prefix}encoder.layers.0.mlp.fc1.weight"][0],
            activation="quick_gelu",
        )

    def open_clip(self, base: str) -> dict[str, Any]:
        """The configuration of OpenCLIP's text encoder (ViT-H/14, ViT-bigG/14).

        SD2 was trained on the last layer but one, so its last layer is left out, unless the file was made
        from a folder, which lacks it already. SDXL's pools with the last.
        """
        prefix = OPEN_CLIP[base]
        layers = len(self._indices(re.escape(f"{prefix}transformer.resblocks.") + r"(\d+)\."))
        config = _text(
            self.shapes[f"{prefix}token_embedding.weight"],
            layers=layers if base == "sdxl" or layers == SD2_LAYERS else layers - 1,
            inner=self.shapes[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"][0],
            activation="gelu",
        )
        if base == "sdxl":
            config["projection_dim"] = self.shapes[f"{prefix}text_projection"][1]
        return config


def vae_config(
    channels: Sequence[int], layers: int, latent_channels: int, scaling_factor: float, sample_size: int
) -> dict[str, Any]:
    """The configuration of diffusers' AutoencoderKL with `layers` resnets a level on the way down."""
    return {
        "block_out_channels": list(channels),
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "layers_per_block": layers,
        "latent_channels": latent_channels,
        "scaling_factor": scaling_factor,
        "sample_size": sample_size,
    }


def _at_least_one(depth: int) -> int:
    """Where there are none the type of the block says so, and diffusers wants a number all the same."""
    return max(depth, 1)


def heads(width: int) -> int:
    """Attention heads of a layer of `width` channels."""
    return max(1, width // HEAD_WIDTH)


def _text(embeddings: tuple[int, ...], *, layers: int, inner: int, activation: str) -> dict[str, Any]:
    """What the text encoders have in common; `embeddings` is the shape `[vocabulary, width]`."""
    vocabulary, width = embeddings
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads(width),
        "max_position_embeddings": TOKENS,
        "hidden_act": activation,
        # The published configurations' own: pool at the highest token id, which is the end of the text.
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }
