"""What a checkpoint's names and shapes say of its configuration."""

from __future__ import annotations

from typing import Any

import pytest
from accelerate import init_empty_weights
from diffusers import UNet2DConditionModel

from sdgrpc.diffusion.checkpoints.ldm.layout import Layout
from sdgrpc.lora.bases.smaller import smaller_by_blocks
from tests.support.original import original_unet

PUBLISHED = {
    "sd15": ((320, 640, 1280, 1280), 2, (1, 1, 1, 1), 8, 768, False),
    "sd2": ((320, 640, 1280, 1280), 2, (1, 1, 1, 1), (5, 10, 20, 20), 1024, True),
    "sdxl": ((320, 640, 1280), 2, (1, 2, 10), (5, 10, 20), 2048, True),
}


SDXL: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


@pytest.mark.parametrize("base", PUBLISHED)
def test_the_published_configurations(base: str) -> None:
    """From the full-size UNets' names and shapes follow the configurations that they were published with."""
    channels, layers, depths, heads, attended, linear = PUBLISHED[base]
    config: dict[str, Any] = {
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": layers,
        "block_out_channels": list(channels),
        "transformer_layers_per_block": list(depths),
        "attention_head_dim": heads if isinstance(heads, int) else list(heads),  # type: ignore[call-overload]
        "cross_attention_dim": attended,
        "use_linear_projection": linear,
    }
    kinds = ["CrossAttnDownBlock2D"] * len(channels)
    kinds[0 if base == "sdxl" else -1] = "DownBlock2D"
    config["down_block_types"] = kinds
    config["up_block_types"] = [kind.replace("Down", "Up") for kind in reversed(kinds)]
    if base == "sdxl":
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        }
    with init_empty_weights():
        unet = UNet2DConditionModel(**config)
    shapes = {name: tuple(one.shape) for name, one in original_unet(unet.state_dict(), layers)}
    shapes["conditioner.embedders.1.model.text_projection"] = (1280, 1280)
    found = Layout(shapes).unet(base)
    assert found.pop("sample_size") == (128 if base == "sdxl" else 64)
    assert found == config


@pytest.mark.parametrize(("layers", "expected"), [(24, 23), (23, 23), (3, 2)])
def test_the_unused_last_layer_of_stable_diffusion_2(layers: int, expected: int) -> None:
    """It is left out, but a file that was made from a folder has lost it before: 23 are all used."""
    prefix = "cond_stage_model.model."
    shapes: dict[str, tuple[int, ...]] = {f"{prefix}token_embedding.weight": (500, 64)}
    shapes |= {f"{prefix}transformer.resblocks.{at}.mlp.c_fc.weight": (128, 64) for at in range(layers)}
    assert Layout(shapes).open_clip("sd2")["num_hidden_layers"] == expected


SMALLER = {
    "SSD-1B": {
        "transformer_layers_per_block": [[1, 1], [2, 2], [4, 4]],
        "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], [1, 1, 1]],
        "mid_block_type": "UNetMidBlock2D",
    },
    "Segmind Vega": {
        "transformer_layers_per_block": [1, 1, 2],
        "mid_block_type": "UNetMidBlock2D",
    },
    "KOALA-700M": {"transformer_layers_per_block": [1, 2, 5], "layers_per_block": 1, "mid_block_type": None},
    "KOALA-1B": {"transformer_layers_per_block": [1, 2, 6], "layers_per_block": 1},
}


@pytest.mark.parametrize("name", SMALLER)
def test_smaller_relatives_of_sdxl(name: str) -> None:
    """The full-size UNets of the published configurations are built again, tensor by tensor."""
    given = SDXL | SMALLER[name]
    with init_empty_weights():
        unet = UNet2DConditionModel(**given)
    layers = given["layers_per_block"]
    shapes = {key: tuple(one.shape) for key, one in original_unet(unet.state_dict(), layers)}
    shapes["conditioner.embedders.1.model.text_projection"] = (1280, 1280)
    found = Layout(shapes).unet("sdxl")
    with init_empty_weights():
        built = UNet2DConditionModel(**found)
    theirs, ours = unet.state_dict(), built.state_dict()
    assert {key: one.shape for key, one in ours.items()} == {key: one.shape for key, one in theirs.items()}
    assert smaller_by_blocks(ours) == name.partition("-700M")[0].replace("KOALA-1B", "KOALA")
