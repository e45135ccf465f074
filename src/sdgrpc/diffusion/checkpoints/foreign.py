"""What a file is that is no Stable Diffusion checkpoint, for the sentence that refuses it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

WHOLE = "give the folder or the file that holds the whole model"
ANOTHER = "a model of another architecture"

# How the tensors of each kind are called; the first that fits names the file.
KINDS: Sequence[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"lora_unet_|lora_te|lycoris_", "a LoRA; put it in a LoRA folder"),
        (
            r".*[._](lora_[AB]|lora_(up|down)|lora\.(up|down)|hada_w1_a|lokr_w1)\b",
            "a LoRA; put it in a LoRA folder",
        ),
        (r"(emb_params|string_to_param|clip_[lg]|<.+>)$", "a textual inversion, which is no model"),
        (r"(ip_adapter|image_proj)\.", "an IP-Adapter, which is no model"),
        (r".*motion_modules?\.", "a motion module, which is no model"),
        (r"control_model\.|controlnet_|input_hint_block\.", "a ControlNet, which is no model"),
        (r"conditioner\.embedders\.0\.model\.", "the SDXL refiner"),
        (r"(model\.diffusion_model\.)?double_blocks\.", "a Flux checkpoint"),
        (r"(model\.diffusion_model\.)?joint_blocks\.", "an SD3 checkpoint"),
        (r"(single_)?transformer_blocks\.", f"{ANOTHER} (a transformer, such as Flux or SD3)"),
        (
            r"model\.diffusion_model\.label_emb\.",
            "an SDXL checkpoint without both of its text encoders; use a file that holds them",
        ),
        (
            r"model\.diffusion_model\.input_blocks\.",
            "a checkpoint without a text encoder; use a file that holds one",
        ),
        (r"model\.diffusion_model\.", ANOTHER),
        (r"input_blocks\.|(down|mid|up)_blocks?\.", f"a UNet alone; {WHOLE}"),
        (r"(first_stage_model\.)?(en|de)coder\.(down|mid|up|conv_in)", f"a VAE alone; {WHOLE}"),
        (
            r"(cond_stage_model\.|conditioner\.|text_model\.|embeddings\.token_embedding\.|transformer\.resblocks\.)",
            f"a text encoder alone; {WHOLE}",
        ),
    )
]


def describe(names: Iterable[str]) -> str:
    """What a file with tensors of these names seems to be."""
    known = list(names)
    for pattern, kind in KINDS:
        if any(pattern.match(name) for name in known):
            return kind
    return "no checkpoint that is known here" if known else "a file without tensors"
