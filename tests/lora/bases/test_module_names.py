"""The index of every spelling of every module."""

from __future__ import annotations

import pytest

from sdgrpc.lora.bases import architectures
from sdgrpc.lora.bases.module_names import PREFIXES, NameIndex

TO_Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
TO_OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
Q_PROJ = "encoder.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("base", "spelling", "component", "path"),
    [
        ("sd15", "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", "unet", TO_Q),
        ("sd15", "lora_unet_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", "unet", TO_Q),
        ("sd15", "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q", "unet", TO_Q),
        ("sd15", "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_out_0", "unet", TO_OUT),
        ("sd15", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q", "unet", TO_Q),
        ("sd15", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out", "unet", TO_OUT),
        ("sd15", f"unet.{TO_Q}", "unet", TO_Q),
        (
            "sd15",
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out",
            "unet",
            TO_OUT,
        ),
        ("sd15", f"base_model.model.{TO_OUT}", "unet", TO_OUT),
        ("sd15", f"base_model.model.base_model.model.{TO_OUT}", "unet", TO_OUT),
        ("sd15", f"unet.base_model.model.{TO_OUT}", "unet", TO_OUT),
        ("sd15", TO_OUT, "unet", TO_OUT),
        ("sd15", "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_out.0", "unet", TO_OUT),
        ("sd15", "diffusion_model_input_blocks_1_1_transformer_blocks_0_attn1_to_q", "unet", TO_Q),
        ("sd15", "lycoris_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", "unet", TO_Q),
        ("sd15", "lora_te_text_model_encoder_layers_0_self_attn_q_proj", "text_encoder", Q_PROJ),
        ("sd15", "lycoris_text_model_encoder_layers_0_self_attn_q_proj", "text_encoder", Q_PROJ),
        ("sd15", "lora_te1_text_model_encoder_layers_0_self_attn_q_proj", "text_encoder", Q_PROJ),
        ("sd15", "text_encoder.text_model.encoder.layers.0.self_attn.q_proj", "text_encoder", Q_PROJ),
        ("sd15", "text_encoder.encoder.layers.0.self_attn.q_proj", "text_encoder", Q_PROJ),
        ("sd15", "text_encoder.text_model.encoder.layers.0.self_attn.to_q", "text_encoder", Q_PROJ),
        (
            "sd15",
            "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj",
            "text_encoder",
            Q_PROJ,
        ),
        ("sdxl", "lora_te1_text_model_encoder_layers_0_self_attn_q_proj", "text_encoder", Q_PROJ),
        (
            "sdxl",
            "lora_te2_text_model_encoder_layers_31_mlp_fc2",
            "text_encoder_2",
            "text_model.encoder.layers.31.mlp.fc2",
        ),
        ("sdxl", "lora_te2_text_projection", "text_encoder_2", "text_projection"),
        (
            "sdxl",
            "text_encoder_2.text_model.final_layer_norm",
            "text_encoder_2",
            "text_model.final_layer_norm",
        ),
        ("sdxl", "lora_unet_input_blocks_3_0_op", "unet", "down_blocks.0.downsamplers.0.conv"),
        ("sdxl", "lora_unet_label_emb_0_2", "unet", "add_embedding.linear_2"),
    ],
)
def test_spellings_in_the_wild(base: str, spelling: str, component: str, path: str) -> None:
    """Literal names of published files find their module."""
    found = architectures.index(base).find(spelling)
    assert [(module.component, module.path) for module in found] == [(component, path)]


@pytest.mark.parametrize("level", ["", "text_model."])
def test_both_layouts_of_text_models(level: str) -> None:
    """Files name text modules with and without `text_model.`, and so do models: all four meet."""
    index = NameIndex({"text_encoder": {f"{level}encoder.layers.0.mlp.fc1.weight": (8, 2)}})
    for spelling in ("text_model_encoder_layers_0_mlp_fc1", "encoder_layers_0_mlp_fc1"):
        (module,) = index.find(f"lora_te_{spelling}")
        assert module.path == f"{level}encoder.layers.0.mlp.fc1"


@pytest.mark.parametrize("base", ["sd15", "sd2", "sdxl", "embedded"])
def test_one_spelling_means_one_module_of_a_component(base: str) -> None:
    """Only names without any prefix are shared, and only by the two text encoders."""
    index = architectures.index(base)
    assert index._spellings
    for modules in index._spellings.values():
        paths = {(module.component, module.path) for module in modules}
        components = sorted(component for component, _ in paths)
        assert len(set(components)) == len(components)
        assert len(components) == 1 or components == ["text_encoder", "text_encoder_2"]


@pytest.mark.parametrize("spelling", ["", "lora_unet_", "lora_unet_down", "double_blocks.0", "lora_te3_x"])
def test_what_no_module_is_called(spelling: str) -> None:
    """Nothing is guessed."""
    assert architectures.index("sd15").find(spelling) == []


def test_the_order_of_modules_is_the_models() -> None:
    """Modules are listed in the order of the model's parameters, with their shapes."""
    index = NameIndex({"unet": {"b.weight": (3, 2), "b.bias": (3,), "a.weight": (2,)}})
    assert index.paths("unet") == ["b", "a"]
    assert index.modules["unet", "b"].bias == (3,)
    assert index.modules["unet", "a"].bias is None
    assert index.cross_attention_width == 0


def test_prefixes_cover_every_component() -> None:
    """Each component can be named without any prefix too."""
    assert all("" in prefixes for prefixes in PREFIXES.values())
