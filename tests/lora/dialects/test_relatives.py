"""Models of SDXL's shapes that are another, told by what their files say."""

from __future__ import annotations

import json

import pytest
import torch

from sdgrpc.errors import LoraIncompatible
from sdgrpc.lora.dialects.foreign import reject_foreign
from sdgrpc.lora.dialects.keys import parse
from sdgrpc.lora.dialects.peft import METADATA_KEY, PeftConfig
from sdgrpc.lora.files.reading import TensorFile

PLAIN = {"unet.a.lora_A.weight": torch.ones(2, 4), "unet.a.lora_B.weight": torch.ones(3, 2)}
OTHERS = {
    "Kwai-Kolors/Kolors-diffusers": "Kolors",
    "kolors": "Kolors",
    "stable-diffusion-xl-kolors/lora": "Kolors",
    "playgroundai/playground-v2.5-1024px-aesthetic": "Playground",
    "playground_v2": "Playground",
    "PixArt-alpha/PixArt-XL-2-1024-MS": "PixArt",
    "kandinsky-community/kandinsky-2-2-decoder": "Kandinsky",
    "DeepFloyd/IF-I-XL-v1.0": "DeepFloyd",
    "stabilityai/cosxl": "CosXL",
    "warp-ai/wuerstchen": "Stable Cascade",
}
SMALLER = {
    "segmind/SSD-1B": "SSD-1B",
    "ssd_1b.safetensors": "SSD-1B",
    "segmind/Segmind-Vega": "Segmind Vega",
    "etri-vilab/koala-700m": "KOALA",
    "nota-ai/bk-sdm-small": "BK-SDM",
    "segmind/tiny-sd": "BK-SDM",
}
OURS = [
    "stabilityai/stable-diffusion-xl-base-1.0",
    "stable-diffusion-xl-v1-base/lora",
    "sdxl_base_v1-0",
    "stable-diffusion-v1/lora",
    "runwayml/stable-diffusion-v1-5",
    "myKolorsmix.safetensors",
    "vegaStyleXL.safetensors",
    "playground.safetensors",
]


def places(said: str) -> list[tuple[dict[str, str], PeftConfig | None]]:
    """Where a file can say what it is for."""
    return [
        ({"modelspec.architecture": said}, None),
        ({"ss_base_model_version": said}, None),
        ({"ss_sd_model_name": said}, None),
        ({"base_model_name_or_path": said}, None),
        ({METADATA_KEY: json.dumps({"unet.base_model_name_or_path": said})}, None),
        ({}, PeftConfig.from_json(json.dumps({"lora_alpha": 2, "base_model_name_or_path": said}))),
    ]


@pytest.mark.parametrize("said", OTHERS)
def test_another_architecture_is_refused_by_name(said: str) -> None:
    """Wherever the file says it."""
    for metadata, config in places(said):
        with pytest.raises(LoraIncompatible, match=f"is for {OTHERS[said]}"):
            parse(TensorFile("x", "", PLAIN, metadata), config)


@pytest.mark.parametrize("said", SMALLER)
def test_a_smaller_relative_is_kept_for_the_model_to_judge(said: str) -> None:
    """It may be loaded itself."""
    for metadata, config in places(said):
        assert SMALLER[said] in parse(TensorFile("x", "", PLAIN, metadata), config).smaller


@pytest.mark.parametrize("said", OURS)
def test_our_own_bases(said: str) -> None:
    """And names that only sound like another."""
    for metadata, config in places(said):
        assert parse(TensorFile("x", "", PLAIN, metadata), config).smaller == ""


def test_kolors_by_its_projection() -> None:
    """Its U-Net alone, of SDXL's names, projects the text; IP-Adapters have the word too."""
    with pytest.raises(LoraIncompatible, match="is for Kolors"):
        reject_foreign("x", [*PLAIN, "unet.encoder_hid_proj.lora_A.weight"])
    with pytest.raises(LoraIncompatible, match="IP-Adapter"):
        reject_foreign("x", ["encoder_hid_proj.image_projection_layers.0.image_embeds.weight"])
