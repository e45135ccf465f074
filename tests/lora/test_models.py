"""Sets on real models of diffusers and transformers, of a few thousand random weights."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdgrpc.lora.fusing.cache import FusedSets, OverlaySwitch
from tests.support.loras import lora_file, ref


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    model = UNet2DConditionModel(
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=12,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    return model.eval().requires_grad_(requires_grad=False)


def encoder(kind: type) -> nn.Module:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=50,
        hidden_size=12,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        projection_dim=10,
        bos_token_id=0,
        eos_token_id=49,
    )
    return kind(config).eval().requires_grad_(requires_grad=False)


def predict(model: UNet2DConditionModel) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    sample, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 5, 12, generator=generator)
    with torch.inference_mode():
        return model(sample, torch.tensor([7, 500]), encoder_hidden_states=text).sample


def diffusers_file(model: nn.Module) -> dict[str, Tensor]:
    """A LoRA in diffusers' names on every attention projection, feed-forward and convolution."""
    generator = torch.Generator().manual_seed(4)
    tensors = {}
    for path, layer in model.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            out, inner, *kernel = layer.weight.shape
            down = torch.randn(3, inner, *kernel, generator=generator) / 3
            up = torch.randn(out, 3, *(1 for _ in kernel), generator=generator) / 3
            tensors |= {f"unet.{path}.lora_A.weight": down, f"unet.{path}.lora_B.weight": up}
    return tensors


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_a_fused_unet_predicts_what_diffusers_does(unet: UNet2DConditionModel, strength: float) -> None:
    """The prediction with the overlay is that of diffusers with the adapter loaded beside the weights."""
    tensors = diffusers_file(unet)
    cache = FusedSets({"unet": unet}, base="embedded", capacity_bytes=1 << 24)
    switch = OverlaySwitch(unet)
    base = predict(unet)
    with cache.acquire([(lora_file(tensors), ref(strength))]) as lease:
        assert lease.reports[0].unmatched_tensors == 0
        switch.use(lease.overlay.tensors.get("unet", {}))
        ours = predict(unet)
        switch.use({})
    assert torch.equal(predict(unet), base)
    assert torch.equal(ours, base) == (strength == 0)
    unet.load_lora_adapter(tensors, prefix="unet", adapter_name="oracle")
    try:
        unet.set_adapters(["oracle"], [strength])
        theirs = predict(unet)
    finally:
        unet.unload_lora()
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.std()


def test_first_one_then_another_then_none(unet: UNet2DConditionModel) -> None:
    """The base's prediction is the same bit for bit after any number of sets."""
    cache = FusedSets({"unet": unet}, base="embedded", capacity_bytes=1)
    switch = OverlaySwitch(unet)
    base = predict(unet)
    seen = []
    for factor in (1.0, 2.0, 1.0):
        tensors = {key: tensor * factor for key, tensor in diffusers_file(unet).items()}
        with cache.acquire([(lora_file(tensors), ref())]) as lease:
            switch.use(lease.overlay.tensors["unet"])
            seen.append(predict(unet))
    switch.use({})
    assert torch.equal(predict(unet), base)
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(
    ("kind", "component", "prefix"),
    [
        (CLIPTextModel, "text_encoder", "lora_te"),
        (CLIPTextModel, "text_encoder", "lora_te1"),
        (CLIPTextModelWithProjection, "text_encoder_2", "lora_te2"),
    ],
)
def test_text_encoders_of_both_layouts(kind: type, component: str, prefix: str) -> None:
    """Kohya's names reach transformers' modules with and without the `text_model.` level."""
    model = encoder(kind)
    names = ["text_model_encoder_layers_1_self_attn_v_proj", "text_model_encoder_layers_0_mlp_fc2"]
    if kind is CLIPTextModelWithProjection:
        names.append("text_projection")
    shapes = {"v_proj": (12, 12), "fc2": (12, 24), "projection": (10, 12)}
    tensors = {}
    for name in names:
        out, inner = next(shape for leaf, shape in shapes.items() if name.endswith(leaf))
        tensors[f"{prefix}_{name}.lora_up.weight"] = torch.ones(out, 1)
        tensors[f"{prefix}_{name}.lora_down.weight"] = torch.ones(1, inner)
    cache = FusedSets({component: model}, base="embedded", capacity_bytes=1 << 24)
    tokens = torch.tensor([[0, 5, 6, 49]])
    with torch.inference_mode():
        base = model(tokens)[0]
    with cache.acquire([(lora_file(tensors), ref(strict=True))]) as lease:
        assert lease.reports[0].modules == {component: len(names)}
        OverlaySwitch(model).use(lease.overlay.tensors[component])
        with torch.inference_mode():
            assert not torch.allclose(model(tokens)[0], base)
