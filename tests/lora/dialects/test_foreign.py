"""What is not for us at all, by its name."""

from __future__ import annotations

import json

import pytest

from sdgrpc.errors import LoraIncompatible
from sdgrpc.lora.bases import architectures
from sdgrpc.lora.bases.ldm import ldm_names
from sdgrpc.lora.dialects.foreign import reject_foreign
from tests.support.loras import require_shared

UNET = "down_blocks.0.attentions.0"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("lora_unet_double_blocks_0_img_attn_proj.lora_down.weight", "Flux"),
        ("transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight", "Flux"),
        ("lora_unet_distilled_guidance_layer_in_proj.lora_down.weight", "Chroma"),
        ("lora_unet_double_blocks_0_img_mlp_fc1.lora_down.weight", "HunyuanVideo"),
        ("diffusion_model.double_blocks.0.img_attn_qkv.lora_A.weight", "HunyuanVideo"),
        ("lora_unet_blocks_0_attn1_Wqkv.lora_down.weight", "HunyuanDiT"),
        ("lora_unet_joint_blocks_0_x.alpha", "Stable Diffusion 3"),
        ("lora_te3_encoder_block_0.alpha", "Stable Diffusion 3"),
        ("transformer.transformer_blocks.0.attn.add_k_proj.lora_A.weight", "Stable Diffusion 3, Flux or"),
        ("lora_transformer_transformer_blocks_0_attn_to_q.alpha", "Stable Diffusion 3, Flux or"),
        ("transformer.joint_transformer_blocks.0.attn.to_q.lora_A.weight", "AuraFlow"),
        ("lora_unet_transformer_blocks_0_attn_to_k.lokr_w1", "Qwen-Image"),
        ("transformer.transformer_blocks.0.img_mlp.net.2.lora_A.weight", "Qwen-Image"),
        ("diffusion_model.transformer_blocks.0.attn.to_q.lora_A.weight", "Qwen-Image"),
        ("diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight", "LTX-Video, PixArt"),
        ("base_model.model.transformer_blocks.0.attn1.to_q.lora_A.weight", "LTX-Video, PixArt"),
        ("lora_unet_blocks_0_self_attn_k_proj.lora_down.weight", "Wan, Anima"),
        ("diffusion_model.blocks.0.self_attn.k.lora_A.weight", "Wan, Anima"),
        ("transformer.blocks.0.attn1.to_q.lora_A.weight", "Wan, Anima"),
        ("diffusion_model.layers.0.attention.to_q.lora_A.weight", "Lumina or Z-Image"),
        ("lora_unet_context_refiner_0_attention_qkv.alpha", "Lumina or Z-Image"),
        ("diffusion_model.double_stream_blocks.0.block.attn1.to_q.lora_A.weight", "HiDream"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "language model"),
        ("lora_prior_unet_down_blocks_0.alpha", "Cascade"),
        ("unet.down_blocks.1.attentions.0.processor.add_k_proj_lora.down.weight", "DeepFloyd"),
        (f"unet.{UNET}.temporal_transformer_blocks.0.attn1.to_q.lora_A.weight", "Stable Video Diffusion"),
        ("unet.down_blocks.0.temp_attentions.0.proj_in.lora_A.weight", "text-to-video"),
        ("unet.down_blocks.0.motion_modules.0.proj_in.lora.down.weight", "AnimateDiff"),
        ("lllite_unet_input_blocks_4_1.down.0.weight", "LLLite"),
        ("base_model.model.controlnet_cond_embedding.conv_in.lora_A.weight", "ControlNet"),
        ("lora_controlnet", "ControlNet"),
        ("control_model.zero_convs.0.0.weight", "ControlNet"),
    ],
)
def test_other_architectures_are_refused_by_name(key: str, words: str) -> None:
    """The refusal says what the file is for, also beside names that would fit."""
    with pytest.raises(LoraIncompatible, match=f"is for .*{words}") as caught:
        reject_foreign("a", ["lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha", key])
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.x"], "full checkpoint"),
        (["conv_in.weight", f"{UNET}.proj_in.weight"], "U-Net's own weights"),
        (["diffusion_model.input_blocks.0.0.weight"], "U-Net's own weights"),
        (["text_model.encoder.layers.0.mlp.fc1.weight"], "text encoder's own weights"),
        (["vision_model.encoder.layers.0.mlp.fc1.weight"], "image encoder"),
        (["encoder.conv_in.weight", "decoder.up_blocks.0.resnets.0.conv1.weight"], "VAE"),
        (["image_proj.norm.weight", "ip_adapter.1.to_k_ip.weight"], "IP-Adapter"),
        (["image_proj.norm.weight", "ip_adapter.0.to_q_lora.down.weight"], "IP-Adapter"),
        (["adapter.body.0.block1.weight"], "T2I-Adapter"),
        (["params_ema.conv_first.weight"], "upscaler"),
        (["model.1.sub.0.RDB1.conv1.0.weight"], "upscaler"),
        (["768.0.linear.0.weight"], "hypernetwork"),
        ([f"{UNET}.attn2.processor.to_k_custom_diffusion.weight"], "Custom Diffusion"),
        ([f"{UNET}.attn1.to_q.delta"], "SVDiff"),
        (["emb_params"], "textual inversion"),
        (["<s1>", "<s2>"], "textual inversion"),
        (["clip_l", "clip_g"], "textual inversion"),
    ],
)
def test_what_is_no_lora_is_told(keys: list[str], words: str) -> None:
    """The refusal says what the file is instead."""
    with pytest.raises(LoraIncompatible, match=f"is .*{words}.*not a LoRA"):
        reject_foreign("a", keys)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("reject_flux_lora_diffusers_format", "Flux"),
        ("reject_flux_lora_kohya_format", "Flux"),
        ("reject_flux_lora_kohya_with_te1_format", "Flux"),
        ("reject_qwen_image_lora_kohya_format", "Qwen-Image"),
        ("reject_anima_lora_kohya_format", "Anima"),
        ("real_defectdiffusion_ctrl_lora_adapter_model", "ControlNet"),
    ],
)
def test_real_files_of_other_architectures(name: str, words: str) -> None:
    """Keys of published files are refused with the right name."""
    keys = json.loads((require_shared("keys") / f"{name}.json").read_text())
    with pytest.raises(LoraIncompatible, match=words):
        reject_foreign(name, keys)


@pytest.mark.parametrize("base", ["sd15", "sd2", "sdxl"])
@pytest.mark.parametrize(
    "prefix", ["", "lora_unet_", "unet.", "diffusion_model.", "base_model.model.", "lycoris_", "lora_te_"]
)
def test_names_of_our_bases_are_not_refused(base: str, prefix: str) -> None:
    """No module of Stable Diffusion looks as if it were another model's, in diffusers' and LDM's names."""
    for component in architectures.shapes(base).values():
        paths = {name.rpartition(".")[0] for name in component}
        names = [*paths, *(ldm for _, ldm in ldm_names(paths))]
        spelled = [name.replace(".", "_") for name in names] if prefix.endswith("_") else names
        reject_foreign("a", [f"{prefix}{name}.lora_down.weight" for name in spelled])
