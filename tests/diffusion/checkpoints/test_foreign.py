"""What files are called that are no checkpoints."""

from __future__ import annotations

import pytest

from sdgrpc.diffusion.checkpoints.foreign import describe

UNET = "model.diffusion_model."


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["lora_unet_down_blocks_0.lora_up.weight"], "a LoRA;"),
        (["lora_te1_text_model_encoder.alpha"], "a LoRA;"),
        (["lycoris_down_blocks_0.lokr_w1"], "a LoRA;"),
        (["unet.down_blocks.0.attentions.0.proj_in.lora_A.weight"], "a LoRA;"),
        (["unet.down_blocks.0.attn1.processor.to_q_lora.down.weight"], "a LoRA;"),
        (["base_model.model.down_blocks.0.proj_in.lora_B.default.weight"], "a LoRA;"),
        (["down_blocks.0.attentions.0.proj_in.lora_A.weight"], "a LoRA;"),
        (["diffusion_model.input_blocks.1.1.proj_in.hada_w1_a"], "a LoRA;"),
        (["emb_params"], "a textual inversion"),
        (["clip_g", "clip_l"], "a textual inversion"),
        (["ip_adapter.1.to_k_ip.weight"], "an IP-Adapter"),
        (["down_blocks.0.motion_modules.0.norm.bias"], "a motion module"),
        (["control_model.time_embed.0.weight"], "a ControlNet"),
        (["controlnet_cond_embedding.conv_in.weight", "down_blocks.0.x"], "a ControlNet"),
        (["conditioner.embedders.0.model.ln_final.bias", f"{UNET}label_emb.0.0.bias"], "the SDXL refiner"),
        (["double_blocks.0.img_mod.lin.bias"], "a Flux checkpoint"),
        ([f"{UNET}double_blocks.0.img_mod.lin.bias", "vae.decoder.conv_in.bias"], "a Flux checkpoint"),
        (["single_transformer_blocks.0.attn.to_q.bias"], "a model of another architecture (a transformer"),
        (["joint_blocks.0.x_block.mlp.fc1.bias"], "an SD3 checkpoint"),
        (["first_stage_model.decoder.conv_in.bias", f"{UNET}joint_blocks.0.x"], "an SD3 checkpoint"),
        ([f"{UNET}blocks.0.self_attn.q.bias"], "a model of another architecture"),
        (
            ["first_stage_model.decoder.conv_in.bias", f"{UNET}input_blocks.0.0.bias"],
            "a checkpoint without a",
        ),
        ([f"{UNET}input_blocks.0.0.bias", f"{UNET}label_emb.0.0.bias"], "an SDXL checkpoint without both"),
        (["input_blocks.0.0.weight"], "a UNet alone;"),
        (["down_blocks.0.resnets.0.norm1.bias"], "a UNet alone;"),
        (["first_stage_model.encoder.conv_in.weight"], "a VAE alone;"),
        (["encoder.down.0.block.0.norm1.bias"], "a VAE alone;"),
        (["decoder.mid_block.attentions.0.to_q.bias"], "a VAE alone;"),
        (["text_model.encoder.layers.0.layer_norm1.bias"], "a text encoder alone;"),
        (["cond_stage_model.model.ln_final.bias"], "a text encoder alone;"),
        (["anything"], "no checkpoint that is known here"),
        ([], "a file without tensors"),
    ],
)
def test_every_kind_is_named(names: list[str], expected: str) -> None:
    """By how its tensors are called, whatever else the file holds."""
    assert describe(names).startswith(expected)
