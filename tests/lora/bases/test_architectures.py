"""The computed lists of parameters, against the models themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdgrpc.embedded import embedded_folder
from sdgrpc.lora.bases import architectures
from sdgrpc.lora.bases.architectures import TextPlan, UNetPlan
from tests.support.loras import require_shared


def diffusers_unet(plan: UNetPlan) -> UNet2DConditionModel:
    cross = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in plan.depths]
    added = {}
    if plan.added_width:
        added = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": plan.added_width,
        }
    with torch.device("meta"):
        return UNet2DConditionModel(
            block_out_channels=plan.channels,
            down_block_types=cross,
            up_block_types=[name.replace("Down", "Up") for name in reversed(cross)],
            layers_per_block=plan.layers,
            cross_attention_dim=plan.cross_attention_width,
            transformer_layers_per_block=[depth or 1 for depth in plan.depths],
            use_linear_projection=plan.linear_projection,
            attention_head_dim=8,
            **added,
        )


@pytest.mark.parametrize("base", ["sd15", "sd2", "sdxl"])
def test_unets_are_those_of_diffusers(base: str) -> None:
    """Every parameter of diffusers' U-Net is listed with its shape, and no other."""
    plan = architectures.PLANS[base]["unet"]
    model = diffusers_unet(plan)
    assert plan.shapes() == {name: tuple(p.shape) for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("plan", "kind"),
    [
        (architectures.CLIP_L, CLIPTextModel),
        (architectures.CLIP_H, CLIPTextModel),
        (architectures.CLIP_G, CLIPTextModelWithProjection),
    ],
)
def test_text_encoders_are_those_of_transformers(plan: TextPlan, kind: type) -> None:
    """The same for the text encoders, with the level `text_model.` where transformers has it."""
    config = CLIPTextConfig(
        hidden_size=plan.width,
        intermediate_size=plan.width * 4,
        num_hidden_layers=plan.layers,
        projection_dim=plan.width,
    )
    with torch.device("meta"):
        model = kind(config)
    assert plan.shapes() == {name: tuple(p.shape) for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("base", "component", "file"),
    [
        ("sd15", "unet", "base_sd15_unet"),
        ("sd15", "text_encoder", "base_sd15_te"),
        ("sd2", "unet", "base_sd2_unet"),
        ("sd2", "text_encoder", "base_sd2_te"),
        ("sdxl", "unet", "base_sdxl_unet"),
        ("sdxl", "text_encoder", "base_sd15_te"),
        ("sdxl", "text_encoder_2", "base_sdxl_te2"),
    ],
)
def test_published_bases(base: str, component: str, file: str) -> None:
    """The lists equal the state dicts of the published models."""
    published = json.loads((require_shared("keys") / f"{file}.json").read_text())
    assert architectures.shapes(base)[component] == {key: tuple(shape) for key, shape in published.items()}


def test_the_embedded_model_is_read_from_its_folder() -> None:
    """The package's own model is a base like the others, told apart by its width."""
    assert architectures.known_bases()[:3] == ["sd15", "sd2", "sdxl"]
    folder = embedded_folder()
    config = json.loads((folder / "unet" / "config.json").read_text())
    index = architectures.index("embedded")
    assert index.cross_attention_width == config["cross_attention_dim"]
    assert {component for component, _ in index.modules} == {"unet", "text_encoder"}


def test_without_the_embedded_model_the_published_bases_remain(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A package without its model, or with a broken one, still tells the others apart."""
    monkeypatch.setattr(architectures, "embedded_folder", lambda: tmp_path)
    assert architectures.known_bases() == ["sd15", "sd2", "sdxl"]
    broken = tmp_path / "broken"
    (broken / "unet").mkdir(parents=True)
    (broken / "unet" / "model.safetensors").write_bytes(b"broken")
    monkeypatch.setattr(architectures, "embedded_folder", lambda: broken)
    assert architectures.known_bases() == ["sd15", "sd2", "sdxl"]
