"""What reports say beyond the numbers that the cache's tests compare."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.lora.bases.module_names import NameIndex
from sdgrpc.lora.bases.placement import place
from sdgrpc.lora.dialects.keys import parse
from sdgrpc.lora.dialects.peft import PeftConfig
from sdgrpc.lora.files.reading import read
from sdgrpc.lora.fusing.cache import FusedSets
from sdgrpc.lora.fusing.fuser import Fuser, Member
from sdgrpc.lora.fusing.lora_set import SetMember
from sdgrpc.lora.fusing.placed_file import PlacedFile
from sdgrpc.lora.fusing.reports import report
from sdgrpc.lora.store.contents import FoundLora
from tests.support.loras import (
    CROSS,
    LINEAR,
    every_algorithm,
    kohya,
    kohya_file,
    lora_file,
    ref,
    shape_of,
    small_components,
    small_shapes,
    to_bytes,
)

LDM = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"


def test_a_module_under_two_names_is_mentioned() -> None:
    """The one under LDM's name is left out, and the report says so."""
    tensors = kohya_file(LINEAR)
    twice = tensors | {
        LDM + key.removeprefix("lora_unet_" + LINEAR.replace(".", "_")): t for key, t in tensors.items()
    }
    file = lora_file(twice)
    adapter = file.adapter()
    prepared = PlacedFile.of(adapter, place(adapter, NameIndex(small_shapes())), {})
    weights = {name: dict(module.named_parameters()) for name, module in small_components().items()}
    said = report(SetMember.of(file, ref(0.5)), Member(prepared, 0.5, 0.5), Fuser(weights))
    assert said.modules == {"unet": 1}
    assert said.warnings == (
        "1 modules are there twice, under diffusers' and LDM's names; the latter are left out",
    )


def warned(tensors: dict[str, torch.Tensor], config: str = "") -> tuple[str, ...]:
    """The warnings of a set of one file on the small model."""
    adapter = parse(read(to_bytes(tensors), "a"), PeftConfig.from_json(config))
    cache = FusedSets(small_components(), base="embedded", capacity_bytes=1 << 20)
    with cache.acquire([(FoundLora("a", adapter.sha256, lambda: adapter), ref())]) as lease:
        return lease.reports[0].warnings


ZERO = "alpha is 0 in 2 of 2 modules, which therefore change nothing"
ABSENT = "alpha is missing in 2 of 2 modules, which are applied with a scale of 1"
INTEGER = "alpha is stored as an integer in 2 of 2 modules and used as it is"
NOTHING = "2 of 2 modules hold only zeros and change nothing"


def spelled(down: str, up: str) -> dict[str, torch.Tensor]:
    """A LoRA without alpha on two modules in another dialect, `{}` standing for a module's path."""
    endings = {".lora_down.weight": down, ".lora_up.weight": up}
    return {
        name.format(path): kohya_file(path, alpha=None)[kohya(path) + ending]
        for path in (LINEAR, CROSS)
        for ending, name in endings.items()
    }


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (None, (ABSENT,)),
        (torch.tensor(0.0), (ZERO,)),
        (torch.tensor(0), (ZERO,)),
        (torch.tensor(4), (INTEGER,)),
        (torch.tensor([4]), (INTEGER,)),
        (torch.tensor(4.0), ()),
        (torch.tensor(0.5).half(), ()),
    ],
)
def test_an_alpha_out_of_the_ordinary_is_mentioned(
    alpha: torch.Tensor | None, expected: tuple[str, ...]
) -> None:
    """Zero, absent, an integer: each has its sentence; a plain number has none."""
    tensors = kohya_file(LINEAR, CROSS, alpha=None)
    if alpha is not None:
        tensors |= {f"{kohya(path)}.alpha": alpha for path in (LINEAR, CROSS)}
    assert warned(tensors) == expected


def test_factors_of_zeros_are_mentioned() -> None:
    """An up that was never trained changes nothing, whatever its alpha."""
    tensors = {
        key: torch.zeros_like(tensor) if "lora_up" in key else tensor
        for key, tensor in kohya_file(LINEAR, CROSS).items()
    }
    assert warned(tensors) == (NOTHING,)


@pytest.mark.parametrize(
    ("down", "up", "expected"),
    [
        ("unet.{}.lora.down.weight", "unet.{}.lora.up.weight", ()),
        ("unet.{}.lora_A.weight", "unet.{}.lora_B.weight", ()),
        ("{}_lora.down.weight", "{}_lora.up.weight", ()),
        ("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight", (ABSENT,)),
    ],
)
def test_a_format_that_has_no_alpha_misses_none(down: str, up: str, expected: tuple[str, ...]) -> None:
    """In diffusers' own names the factors are all there is; PEFT's alpha stands in a configuration."""
    tensors = spelled(down, up)
    assert warned(tensors) == expected
    assert warned(tensors, '{"lora_alpha": 2}') == ()


def test_other_algorithms_miss_their_alpha_too() -> None:
    """LoHa and GLoRA are scaled by it; OFT's is a bound, and `.scale` says all."""
    algorithms = every_algorithm(shape_of(LINEAR))
    for label, missing in (("loha", True), ("glora", True), ("oft", False), ("ia3", False), ("full", False)):
        tensors = {kohya(LINEAR) + ending: tensor for ending, tensor in algorithms[label].items()}
        tensors.pop(f"{kohya(LINEAR)}.alpha", None)
        assert any("alpha is missing" in words for words in warned(tensors)) == missing, label
        tensors[f"{kohya(LINEAR)}.scale"] = torch.tensor(1.0)
        assert warned(tensors) == (), label


def test_only_a_few_examples_are_named() -> None:
    """All unmatched tensors are counted."""
    file = lora_file(kohya_file(LINEAR) | {f"stray{n}": torch.ones(1) for n in range(9)})
    adapter = file.adapter()
    prepared = PlacedFile.of(adapter, place(adapter, NameIndex(small_shapes())), {})
    weights = {name: dict(module.named_parameters()) for name, module in small_components().items()}
    said = report(SetMember.of(file, ref()), Member(prepared, 1.0, 1.0), Fuser(weights))
    assert said.unmatched_tensors == 9
    assert said.unmatched_examples == ("stray0", "stray1", "stray2", "stray3", "stray4")
