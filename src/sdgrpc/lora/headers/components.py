"""Which part of a model a module's spelling names, as far as the spelling alone tells it."""

from __future__ import annotations

import re

UNET, TEXT_ENCODER, TEXT_ENCODER_2 = "unet.", "text_encoder.", "text_encoder_2."
COMPONENTS = (TEXT_ENCODER_2, TEXT_ENCODER, UNET)
"""How diffusers' and PEFT's names begin; the longer before the shorter."""

_TOOL = r"(?:base_model[._]model[._]|lora_|oft_|lycoris_)*"
_BEGINNINGS = (
    (re.compile(_TOOL + r"(?:te2|text_encoder_2|text_encoders[._]clip_g|clip_g)[._:]"), TEXT_ENCODER_2),
    (re.compile(_TOOL + r"(?:te1?|text_encoder|text_encoders[._]clip_[lh]|clip_[lh])[._:]"), TEXT_ENCODER),
    (re.compile(_TOOL + r"(?:unet|diffusion_model)[._:]"), UNET),
    (
        re.compile(_TOOL + r"(?:(?:down|up)_blocks|mid_block|input_blocks|output_blocks|middle_block)[._]"),
        UNET,
    ),
    (re.compile(_TOOL + r"(?:text_model|encoder[._]layers)[._]"), TEXT_ENCODER),
)


def component_of(spelling: str) -> str:
    """Return `unet.`, `text_encoder.` or `text_encoder_2.`; nothing where the spelling does not say."""
    return next((component for begins, component in _BEGINNINGS if begins.match(spelling)), "")
