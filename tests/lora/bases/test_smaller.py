"""SDXL's smaller relatives, and files that are for several bases at once."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.errors import LoraIncompatible
from sdgrpc.lora.bases.architectures import index, shapes
from sdgrpc.lora.bases.detect import base_of, check, no_base, place_or_refuse
from sdgrpc.lora.bases.module_names import UNET, NameIndex, Shape
from sdgrpc.lora.bases.smaller import SMALLER, smaller_by_blocks
from sdgrpc.lora.dialects.adapter import Adapter
from tests.support.loras import adapter_of

KINDS = [(name, depths) for depths, name in SMALLER]


def attended(named: dict[str, Shape]) -> dict[str, Shape]:
    """The shapes of the attention's query projections."""
    return {name: shape for name, shape in named.items() if name.endswith("attn1.to_q.weight")}


def part_of_sdxl(depths: dict[str, int]) -> dict[str, Shape]:
    """The query projections of the transformer blocks that a smaller relative has."""
    kept = {}
    for name, shape in attended(shapes("sdxl")[UNET]).items():
        side, _, rest = name.partition("_block")
        numbers = [part for part in rest.split(".") if part.isdigit()]
        block, layer, number = numbers if side != "mid" else ("", *numbers)
        if int(number) < depths.get(f"{side}{block}.{layer}", 0):
            kept[name] = shape
    return kept


def lora_of(named: dict[str, Shape], metadata: dict[str, str] | None = None) -> Adapter:
    tensors = {}
    for name, (rows, columns) in named.items():
        path = "unet." + name.removesuffix(".weight")
        tensors |= {
            f"{path}.lora_A.weight": torch.ones(1, columns),
            f"{path}.lora_B.weight": torch.ones(rows, 1),
        }
    return adapter_of(tensors, metadata)


@pytest.mark.parametrize(("name", "depths"), KINDS)
def test_a_file_for_all_of_a_smaller_model(name: str, depths: dict[str, int]) -> None:
    """It fits SDXL, and is refused by name all the same; on its own model it is applied."""
    named = part_of_sdxl(depths)
    assert sum(depths.values()) == len(named)
    adapter = lora_of(named)
    with pytest.raises(LoraIncompatible, match=f"is for {name}"):
        place_or_refuse(adapter, index("sdxl"), "sdxl")
    own = NameIndex({UNET: named})
    assert place_or_refuse(adapter, own, "sdxl").complete


def test_a_file_for_sdxl() -> None:
    """All of SDXL, or some of it, is no smaller model's."""
    named = attended(shapes("sdxl")[UNET])
    assert place_or_refuse(lora_of(named), index("sdxl"), "sdxl").complete
    some = {name: shape for name, shape in named.items() if "transformer_blocks.0." in name}
    assert place_or_refuse(lora_of(some), index("sdxl"), "sdxl").complete


@pytest.mark.parametrize("said", ["segmind/SSD-1B", "segmind/Segmind-Vega"])
def test_a_file_that_says_so(said: str) -> None:
    """Also where only a few blocks were trained; without a model too."""
    few = dict(list(part_of_sdxl(dict(SMALLER[0][0])).items())[:3])
    adapter = lora_of(few, {"base_model_name_or_path": said})
    found = base_of(adapter)
    assert found is not None
    for names in (index("sdxl"), index(found[0])):
        with pytest.raises(LoraIncompatible, match=f"is for {said.rpartition('/')[2].replace('-V', ' V')}"):
            check(adapter, found[1], names)


def test_an_sdxl_file_on_a_smaller_model() -> None:
    """The message names the smaller model."""
    own = NameIndex({UNET: part_of_sdxl(dict(SMALLER[0][0]))})
    with pytest.raises(LoraIncompatible, match=r"fits the loaded model \(SSD-1B\) only in 34 of 70 modules"):
        place_or_refuse(lora_of(attended(shapes("sdxl")[UNET])), own, "sdxl")


def test_names_without_transformers() -> None:
    """Are no smaller model."""
    assert smaller_by_blocks(["conv_in", "down_blocks.0.resnets.0.conv1"]) == ""


def mixed() -> Adapter:
    keys = {}
    for spelling, width in (
        ("down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k", 768),
        ("down_blocks_2_attentions_0_transformer_blocks_9_attn2_to_k", 2048),
    ):
        rows = 640 if width == 768 else 1280
        keys |= {
            f"lora_unet_{spelling}.lora_down.weight": torch.ones(1, width),
            f"lora_unet_{spelling}.lora_up.weight": torch.ones(rows, 1),
        }
    return adapter_of(keys)


def test_a_mixed_file() -> None:
    """The refusal says which half is for which base, with a module of each."""
    said = no_base(mixed())
    assert "1 of 2 modules are for SD1.5 ('lora_unet_down_blocks_1_" in said
    assert "1 of 2 modules are for SDXL ('lora_unet_down_blocks_2_" in said
    with pytest.raises(
        LoraIncompatible, match=r"only in 1 of 2 modules; 1 of 2 modules are for SD1\.5 .* SDXL"
    ):
        place_or_refuse(mixed(), index("sd15"), "sd15")
