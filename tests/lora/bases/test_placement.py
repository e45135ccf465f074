"""Where a file's modules go."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.lora.bases import architectures
from sdgrpc.lora.bases.module_names import NameIndex
from sdgrpc.lora.bases.placement import place
from sdgrpc.lora.fusing.changes import weight_change
from tests.support.loras import adapter_of

UP, DOWN = torch.ones(320, 1), torch.ones(1, 320)
DIFFUSERS = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
LDM = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"


def pair(spelling: str, up: torch.Tensor = UP, down: torch.Tensor = DOWN) -> dict[str, torch.Tensor]:
    return {f"{spelling}.lora_up.weight": up, f"{spelling}.lora_down.weight": down}


def test_a_module_under_both_names_is_applied_once() -> None:
    """Diffusers' name goes before LDM's, whichever comes first in the file."""
    adapter = adapter_of({**pair(LDM, UP * 2), **pair(DIFFUSERS)})
    placement = place(adapter, architectures.index("sd15"))
    (placed,) = placement.placed
    assert placed.source.spelling == DIFFUSERS
    assert [module.spelling for module in placement.repeated] == [LDM]
    assert placement.complete
    assert placement.share == 1.0


def test_text_encoders_of_one_spelling_are_told_apart_by_shape() -> None:
    """Without a prefix, `q_proj` is in both of SDXL's text encoders; the widths differ."""
    spelling = "text_model.encoder.layers.0.self_attn.q_proj"
    for width, component in ((768, "text_encoder"), (1280, "text_encoder_2")):
        file = adapter_of(pair(spelling, torch.ones(width, 1), torch.ones(1, width)))
        (placed,) = place(file, architectures.index("sdxl")).placed
        assert placed.target.component == component


@pytest.mark.parametrize("inputs", [5, 8, 9])
def test_the_first_convolution_of_a_variant(inputs: int) -> None:
    """Of an inpainting, depth or editing LoRA it fits the base's variant; a plain model takes the rest."""
    convolution = pair("lora_unet_conv_in", torch.ones(320, 1, 1, 1), torch.ones(1, inputs, 3, 3))
    file = adapter_of({**pair(DIFFUSERS), **convolution})
    placement = place(file, architectures.index("sd15"))
    assert placement.complete
    assert {placed.target.weight for placed in placement.placed} == {(320, 320), (320, inputs, 3, 3)}
    plain = place(file, NameIndex(architectures.shapes("sd15")))
    assert [module.spelling for module in plain.unplaced] == ["lora_unet_conv_in"]
    assert not plain.misfits


def test_a_first_convolution_of_no_variant_is_a_misfit() -> None:
    """Seven inputs are a fault of the file."""
    convolution = pair("lora_unet_conv_in", torch.ones(320, 1, 1, 1), torch.ones(1, 7, 3, 3))
    placement = place(adapter_of(convolution), NameIndex(architectures.shapes("sd15")))
    assert len(placement.misfits) == 1


def test_nothing_is_lost() -> None:
    """Every key of the file is either placed or unmatched."""
    file = adapter_of(
        {
            **pair(DIFFUSERS),
            **pair("lora_unet_unknown"),
            **pair("lora_unet_mid_block_attentions_0_proj_in"),
            "stray": torch.ones(1),
        }
    )
    placement = place(file, architectures.index("sd15"))
    assert [placed.target.path for placed in placement.misfits] == ["mid_block.attentions.0.proj_in"]
    assert placement.unmatched(file) == [
        "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight",
        "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight",
        "lora_unet_unknown.lora_down.weight",
        "lora_unet_unknown.lora_up.weight",
        "stray",
    ]
    assert placement.share == 1 / 3


def test_square_weights_are_never_transposed() -> None:
    """Up goes to the rows and down to the columns even where both would fit."""
    adapter = adapter_of(pair(DIFFUSERS, torch.arange(320.0).view(320, 1), DOWN))
    (placed,) = place(adapter, architectures.index("sd15")).placed
    assert placed.source.tensors["up"].shape == (320, 1)
    wrong = adapter_of(
        pair("lora_unet_mid_block_attentions_0_proj_in", torch.ones(640, 1), torch.ones(1, 1280))
    )
    assert not place(wrong, architectures.index("sd15")).placed


def test_the_same_module_twice_is_applied_once() -> None:
    """Two spellings that are not each other's twins: the first counts, the second is reported."""
    other = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    file = adapter_of({**pair(DIFFUSERS), f"{other}.lora_B.weight": UP * 2, f"{other}.lora_A.weight": DOWN})
    placement = place(file, architectures.index("sd15"))
    assert [placed.source.spelling for placed in placement.placed] == [DIFFUSERS]
    assert placement.unmatched(file) == [f"{other}.lora_A.weight", f"{other}.lora_B.weight"]


def test_a_bias_for_a_module_that_has_none_is_homeless() -> None:
    """Nothing is counted as changed that is not."""
    file = adapter_of({f"{DIFFUSERS}.diff_b": torch.ones(320)})
    placement = place(file, architectures.index("sd15"))
    assert placement.placed == ()
    assert placement.unmatched(file) == [f"{DIFFUSERS}.diff_b"]


@pytest.mark.parametrize("inputs", [4, 9])
def test_conv_in_fits_inpainting_models_too(inputs: int) -> None:
    """A file for four inputs changes the first four of nine, and nothing else."""
    index = NameIndex({"unet": {"conv_in.weight": (8, inputs, 3, 3), "conv_in.bias": (8,)}})
    file = adapter_of(pair("lora_unet_conv_in", torch.ones(8, 2, 1, 1), torch.ones(2, 4, 3, 3)))
    (placed,) = place(file, index).placed
    change = weight_change(placed.source, None, (8, inputs, 3, 3), torch.float32).view(8, inputs, 3, 3)
    assert torch.equal(change[:, :4], torch.full((8, 4, 3, 3), 2.0))
    assert not change[:, 4:].any()
    five = NameIndex({"unet": {"conv_in.weight": (8, 5, 3, 3)}})
    assert not place(file, five).placed
