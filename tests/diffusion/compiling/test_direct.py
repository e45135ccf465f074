"""diffusers' blocks without what changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from benchmarks.layout import lay_out
from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.compiling.calls import call_unet, example_inputs
from sdgrpc.diffusion.compiling.direct import (
    DIRECT,
    DirectPictureAttention,
    DirectResnetBlock,
    make_direct,
    make_usual,
)
from tests.support.models import save_model, save_sdxl_model

TOKENS, CHANNELS = 24, 32
EVERY = {direct for kinds in DIRECT.values() for direct in kinds}


def filled(block: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Give a block weights that none of its sums comes out 0 with."""
    for weight in block.parameters():
        nn.init.normal_(weight, std=0.2)
    return block.to(dtype).requires_grad_(False).eval()


def picture(channels: int = CHANNELS) -> Tensor:
    return torch.randn(2, channels, 6, 4).to(memory_format=torch.channels_last)


def both(block: nn.Module, *given: Tensor | None, **named: Tensor) -> tuple[Tensor, Tensor]:
    """What a block answers before and after it is made direct; neither changes what it is given."""
    copies = [None if one is None else one.clone() for one in given]
    with torch.inference_mode():
        before = block(*given, **named)
        make_direct(block)
        assert type(block) in EVERY
        after = block(*given, **named)
    assert all(one is None or torch.equal(one, copy) for one, copy in zip(given, copies, strict=True))
    return (before, after) if isinstance(before, Tensor) else (before.sample, after.sample)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_give_equal_bits(dtype: torch.dtype) -> None:
    """Attention among them and to a prompt, gates, and the whole block."""
    torch.manual_seed(0)
    states, told = torch.randn(2, TOKENS, CHANNELS).to(dtype), torch.randn(2, 7, 16).to(dtype)
    cases: tuple[tuple[nn.Module, tuple[Tensor, ...]], ...] = (
        (Attention(CHANNELS, heads=4, dim_head=8), (states,)),
        (Attention(CHANNELS, 16, heads=4, dim_head=8), (states, told)),
        (GEGLU(CHANNELS, 48), (states,)),
    )
    for block, given in cases:
        assert torch.equal(*both(filled(block, dtype), *given))
    block = BasicTransformerBlock(CHANNELS, 4, 8, cross_attention_dim=16, activation_fn="geglu")
    assert torch.equal(*both(filled(block, dtype), states, encoder_hidden_states=told))


def test_a_mask_is_heard() -> None:
    """Attention with a mask is diffusers' own."""
    torch.manual_seed(0)
    states, mask = torch.randn(2, TOKENS, CHANNELS), torch.zeros(2, 1, TOKENS)
    block = filled(Attention(CHANNELS, heads=4, dim_head=8))
    plain, _ = both(block, states)
    mask[:, :, TOKENS // 2 :] = -10_000.0
    with torch.inference_mode():
        masked = block(states, attention_mask=mask)
        make_usual(block)
        assert torch.equal(masked, block(states, attention_mask=mask))
    assert not torch.allclose(masked, plain)


@pytest.mark.parametrize("out", [CHANNELS, 64])
@pytest.mark.parametrize("timed", [True, False])
def test_residual_blocks_agree(out: int, timed: bool) -> None:
    """With the timestep and without, as in a VAE; the answer stays channels last."""
    torch.manual_seed(0)
    block = ResnetBlock2D(
        in_channels=CHANNELS, out_channels=out, temb_channels=16 if timed else None, groups=8
    )
    block = lay_out(filled(block), torch.channels_last)
    before, after = both(block, picture(), torch.randn(2, 16) if timed else None)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    assert after.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("linear", [True, False])
def test_transformers_agree(linear: bool) -> None:
    """With projections that are linear layers, or convolutions of one pixel; the layout stays."""
    torch.manual_seed(0)
    block = Transformer2DModel(
        4, 8, CHANNELS, norm_num_groups=8, cross_attention_dim=16, use_linear_projection=linear
    )
    block = lay_out(filled(block), torch.channels_last)
    before, after = both(block, picture(), torch.randn(2, 7, 16))
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    assert after.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("save", [save_model, save_sdxl_model], ids=["sd15", "sdxl"])
def test_a_whole_network_predicts_the_same(save: Callable[[Path], Path], tmp_path: Path) -> None:
    """And its blocks are diffusers' again afterwards, with equal bits."""
    unet = load("tiny", save(tmp_path), device=torch.device("cpu"), dtype=torch.float32).unet
    lay_out(unet, torch.channels_last)
    example = example_inputs(unet, 2, 8, 8)
    drawn = torch.Generator().manual_seed(0)
    inputs = example.each(lambda one: torch.randn(one.shape, generator=drawn).abs())
    kinds = [type(module) for module in unet.modules()]
    with torch.inference_mode():
        expected = call_unet(unet, inputs)
        make_direct(unet)
        assert {type(module) for module in unet.modules()} >= EVERY - {DirectPictureAttention}
        torch.testing.assert_close(call_unet(unet, inputs), expected, rtol=1e-4, atol=1e-4)
        make_usual(unet)
        assert torch.equal(call_unet(unet, inputs), expected)
    assert [type(module) for module in unet.modules()] == kinds


def test_what_is_set_up_otherwise_keeps_its_class() -> None:
    """Blocks that scale, resize, norm or mask in ways that would be left out."""
    sizes = {"in_channels": CHANNELS, "temb_channels": None, "groups": 8}
    attention = {"heads": 4, "dim_head": 8}
    for block in (
        ResnetBlock2D(**sizes, up=True),
        ResnetBlock2D(**sizes, output_scale_factor=2.0),
        ResnetBlock2D(**sizes, non_linearity="relu"),
        Attention(CHANNELS, **attention, residual_connection=True),
        Attention(CHANNELS, **attention, norm_num_groups=4),
        Attention(CHANNELS, **attention, rescale_output_factor=2.0),
        Attention(CHANNELS, **attention, qk_norm="layer_norm"),
        BasicTransformerBlock(CHANNELS, 4, 8, attention_type="gated", cross_attention_dim=16),
        BasicTransformerBlock(CHANNELS, 4, 8, norm_type="ada_norm_zero", num_embeds_ada_norm=4),
        BasicTransformerBlock(CHANNELS, 4, 8, only_cross_attention=True, cross_attention_dim=16),
    ):
        kind = type(block)
        make_direct(block)
        assert type(block) is kind


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pixels_attend_to_each_other(dtype: torch.dtype) -> None:
    """After a group norm, and added to the picture, as in the middle of a VAE."""
    torch.manual_seed(0)
    block = Attention(
        CHANNELS, heads=1, dim_head=CHANNELS, norm_num_groups=8, bias=True, residual_connection=True
    )
    before, after = both(filled(block, dtype), picture().to(dtype))
    assert type(block) is DirectPictureAttention
    near = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(after, before, rtol=near, atol=near)


def test_a_vae_decodes_and_encodes_the_same(tmp_path: Path) -> None:
    """Its middle attends to all pixels; afterwards its blocks are diffusers' again, with equal bits."""
    vae = load("tiny", save_model(tmp_path), device=torch.device("cpu"), dtype=torch.float32).vae
    lay_out(vae, torch.channels_last)
    torch.manual_seed(0)
    latents, pixels = torch.randn(1, 4, 6, 4), torch.randn(1, 3, 48, 32)
    with torch.inference_mode():
        decoded, encoded = vae.decode(latents).sample, vae.encode(pixels).latent_dist.mean
        make_direct(vae)
        kinds = {type(module) for module in vae.modules()}
        assert kinds >= {DirectResnetBlock, DirectPictureAttention}
        torch.testing.assert_close(vae.decode(latents).sample, decoded, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(vae.encode(pixels).latent_dist.mean, encoded, rtol=1e-4, atol=1e-4)
        make_usual(vae)
        assert torch.equal(vae.decode(latents).sample, decoded)
