"""A tensor of a module that is known, which says something that is not understood."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.errors import LoraUnsupported
from sdgrpc.lora.bases.architectures import index
from sdgrpc.lora.bases.detect import base_of, check, place_or_refuse
from sdgrpc.lora.bases.module_names import NameIndex
from sdgrpc.lora.fusing.cache import FusedSets
from tests.support.loras import (
    CROSS,
    LINEAR,
    TEXT_LINEAR,
    adapter_of,
    kohya,
    kohya_file,
    lora_file,
    ref,
    small_components,
    small_shapes,
)

INDEX = NameIndex(small_shapes())
OLD = LINEAR.replace(".to_q", ".processor.to_q")
OWN = [
    "{}.mystery",
    "{}.lora_mid_2.weight",
    "{}.lora_up.bias",
    "{}.oft_R.cans_oft",
    "{}.weight",
    "{}.lora_down.default.x",
]


@pytest.mark.parametrize("ending", OWN)
def test_beside_tensors_that_are_known(ending: str) -> None:
    """The file is refused, naming the key: the rest would be applied wrongly."""
    key = ending.format(kohya(LINEAR))
    with pytest.raises(LoraUnsupported, match="is of no kind that is known") as caught:
        adapter_of(kohya_file(LINEAR, CROSS) | {key: torch.ones(2)})
    assert caught.value.key == key
    assert repr(key) in caught.value.message


@pytest.mark.parametrize(
    "key",
    [
        f"{kohya(TEXT_LINEAR)}.mystery",
        f"{kohya(TEXT_LINEAR)}.lora_C.weight",
        f"text_encoder.text_model.{TEXT_LINEAR}.modules_to_save.weight",
        f"unet.{CROSS}.weight",
        f"base_model.model.{CROSS}.lora_C.default.weight",
        f"{OLD}_lora.side.weight",
    ],
)
def test_of_a_module_that_only_the_model_knows(key: str) -> None:
    """Where the file has nothing else of that module, the model's names tell that it is one."""
    adapter = (
        adapter_of(kohya_file(LINEAR) | {key: torch.ones(2)})
        if OLD not in key
        else adapter_of(kohya_file(CROSS) | {key: torch.ones(2)})
    )
    assert adapter.unmatched == (key,)
    with pytest.raises(LoraUnsupported, match="is of no kind that is known") as caught:
        place_or_refuse(adapter, INDEX, "embedded")
    assert caught.value.key == key


@pytest.mark.parametrize(
    "key", ["whatever", "lora_unet_extra.mystery", "lora_unet_extra.lora_C.weight", "a.b.c.d"]
)
def test_of_a_module_that_the_model_has_not(key: str) -> None:
    """That is reported as unmatched, and the rest is applied."""
    adapter = adapter_of(kohya_file(LINEAR) | {key: torch.ones(2)})
    placement = place_or_refuse(adapter, INDEX, "embedded")
    assert placement.unmatched(adapter) == [key]


def test_without_a_model() -> None:
    """The base's own names tell it as well."""
    down, up = "lora_unet_mid_block_attentions_0_proj_in.lora_{}.weight", "lora_unet_conv_out.mystery"
    tensors = {down.format("down"): torch.ones(1, 1280), down.format("up"): torch.ones(1280, 1)}
    adapter = adapter_of(tensors | {up: torch.ones(1)})
    found = base_of(adapter)
    assert found is not None
    with pytest.raises(LoraUnsupported, match=r"'lora_unet_conv_out\.mystery'"):
        check(adapter, found[1], index(found[0]))


def test_a_set_with_such_a_file_is_refused() -> None:
    """A job gets the sentence, not a picture of half the file."""
    sets = FusedSets(small_components(), base="embedded", capacity_bytes=1 << 20)
    file = lora_file(kohya_file(LINEAR) | {f"{kohya(CROSS)}.mystery": torch.ones(2)})
    with pytest.raises(LoraUnsupported, match="mystery"), sets.acquire([(file, ref())]):
        pass


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("initial_norm", "DoRA of rotations"),
        ("randlora_lambda", "RandLoRA"),
        ("adamss_A.0", "AdaMSS"),
        ("psoft_R.default", "PSOFT"),
        ("lily_A.weight", "Lily"),
        ("pvera_lambda_b", "PVeRA"),
        ("trainable_tokens_delta", "trainable tokens"),
        ("vblora_logits_A_topk_indices", "VB-LoRA"),
        ("glora_A.layer.weight", "GLoRA as PEFT"),
        ("lora_diag", "KaSA"),
        ("tinylora_A", "TinyLoRA"),
        ("unilora_indices.A", "Uni-LoRA"),
    ],
)
def test_newer_methods_are_named(ending: str, words: str) -> None:
    """Those of PEFT that are not applied are refused by their own names."""
    with pytest.raises(LoraUnsupported, match=f"uses {words}"):
        adapter_of({f"base_model.model.{LINEAR}.{ending}": torch.ones(2)})
