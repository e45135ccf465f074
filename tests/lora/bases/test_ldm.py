"""LDM's names for diffusers' modules."""

from __future__ import annotations

import pytest

from sdgrpc.lora.bases import architectures
from sdgrpc.lora.bases.ldm import ldm_names


def names(base: str) -> dict[str, str]:
    shapes = architectures.shapes(base)["unet"]
    return dict(ldm_names(name.removesuffix(".weight") for name in shapes if name.endswith(".weight")))


@pytest.mark.parametrize("base", ["sd15", "sd2", "sdxl"])
def test_every_module_has_one_name_of_its_own(base: str) -> None:
    """No module is left out and no two share a name."""
    shapes = architectures.shapes(base)["unet"]
    modules = {name.rpartition(".")[0] for name in shapes}
    found = names(base)
    assert found.keys() == modules
    assert len(set(found.values())) == len(modules)


@pytest.mark.parametrize(
    ("base", "diffusers", "ldm"),
    [
        ("sd15", "conv_in", "input_blocks.0.0"),
        ("sd15", "time_embedding.linear_2", "time_embed.2"),
        ("sd15", "down_blocks.0.resnets.0.conv1", "input_blocks.1.0.in_layers.2"),
        ("sd15", "down_blocks.0.resnets.1.time_emb_proj", "input_blocks.2.0.emb_layers.1"),
        ("sd15", "down_blocks.0.attentions.1.proj_in", "input_blocks.2.1.proj_in"),
        ("sd15", "down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("sd15", "down_blocks.3.resnets.1.conv2", "input_blocks.11.0.out_layers.3"),
        ("sd15", "mid_block.attentions.0.proj_out", "middle_block.1.proj_out"),
        ("sd15", "mid_block.resnets.1.norm1", "middle_block.2.in_layers.0"),
        ("sd15", "up_blocks.0.resnets.2.conv_shortcut", "output_blocks.2.0.skip_connection"),
        ("sd15", "up_blocks.0.upsamplers.0.conv", "output_blocks.2.1.conv"),
        ("sd15", "up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"),
        ("sd15", "up_blocks.3.attentions.2.proj_in", "output_blocks.11.1.proj_in"),
        ("sd15", "conv_norm_out", "out.0"),
        ("sd15", "conv_out", "out.2"),
        ("sdxl", "add_embedding.linear_1", "label_emb.0.0"),
        (
            "sdxl",
            "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_out.0",
            "input_blocks.4.1.transformer_blocks.1.attn2.to_out.0",
        ),
        ("sdxl", "down_blocks.2.resnets.1.conv1", "input_blocks.8.0.in_layers.2"),
        ("sdxl", "up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"),
        ("sdxl", "up_blocks.2.resnets.2.norm2", "output_blocks.8.0.out_layers.0"),
    ],
)
def test_known_names(base: str, diffusers: str, ldm: str) -> None:
    """Names as CompVis's and Stability's checkpoints have them."""
    assert names(base)[diffusers] == ldm
