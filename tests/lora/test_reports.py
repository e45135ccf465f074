"""What reports say beyond the numbers that the cache's tests compare."""

from __future__ import annotations

import torch

from sdgrpc.lora.fusing import Fuser, Member, Prepared
from sdgrpc.lora.names import NameIndex
from sdgrpc.lora.placement import place
from sdgrpc.lora.reports import report
from tests.support.loras import LINEAR, kohya_file, lora_file, ref, small_components, small_shapes

LDM = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"


def test_a_module_under_two_names_is_mentioned() -> None:
    """The one under LDM's name is left out, and the report says so."""
    tensors = kohya_file(LINEAR)
    twice = tensors | {
        LDM + key.removeprefix("lora_unet_" + LINEAR.replace(".", "_")): t for key, t in tensors.items()
    }
    file = lora_file(twice)
    adapter = file.adapter()
    prepared = Prepared.of(adapter, place(adapter, NameIndex(small_shapes())), {})
    weights = {name: dict(module.named_parameters()) for name, module in small_components().items()}
    said = report(file, ref(0.5), Member(prepared, 0.5, 0.5), Fuser(weights))
    assert said.modules == {"unet": 1}
    assert said.warnings == (
        "1 modules are there twice, under diffusers' and LDM's names; the latter are left out",
    )


def test_only_a_few_examples_are_named() -> None:
    """All unmatched tensors are counted."""
    file = lora_file(kohya_file(LINEAR) | {f"stray{n}": torch.ones(1) for n in range(9)})
    adapter = file.adapter()
    prepared = Prepared.of(adapter, place(adapter, NameIndex(small_shapes())), {})
    weights = {name: dict(module.named_parameters()) for name, module in small_components().items()}
    said = report(file, ref(), Member(prepared, 1.0, 1.0), Fuser(weights))
    assert said.unmatched_tensors == 9
    assert said.unmatched_examples == ("stray0", "stray1", "stray2", "stray3", "stray4")
