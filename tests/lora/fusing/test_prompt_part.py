"""What a set means for prompts, as its lease says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdgrpc.domain import LoraRef
from sdgrpc.errors import LoraIncompatible
from sdgrpc.lora.fusing.cache import FusedSets
from sdgrpc.lora.fusing.prompt_part import PromptPart
from sdgrpc.lora.store.contents import FoundLora
from tests.support.loras import LINEAR, TEXT_LINEAR, kohya_file, lora_file, ref, small_components, tree

WIDTH = 12
PET = torch.arange(float(WIDTH))


@pytest.fixture(scope="module")
def sets() -> FusedSets:
    """Sets of the small model, its text encoder with an embedding of tokens."""
    components = small_components()
    components["text_encoder"].add_module(
        "embeddings", tree({"token_embedding.weight": (20, WIDTH), "position_embedding.weight": (77, WIDTH)})
    )
    return FusedSets(components, base="sd15", capacity_bytes=1 << 20)


def part(sets: FusedSets, *members: tuple[FoundLora, LoraRef]) -> PromptPart:
    """What a set of these members means for prompts."""
    with sets.acquire(members) as lease:
        return lease.prompt_part


def file(name: str, *paths: str, tokens: dict[str, Tensor] | None = None, seed: int = 1) -> FoundLora:
    """A file that changes these modules and brings these tokens."""
    bundle = {f"bundle_emb.{token}.string_to_param.*": rows for token, rows in (tokens or {}).items()}
    return lora_file(kohya_file(*paths, seed=seed) | bundle, name)


def test_without_loras_prompts_mean_what_they_mean(sets: FusedSets) -> None:
    """No LoRA, none with a strength, and those that change the U-Net alone share one key."""
    unet = file("unet", LINEAR)
    both = file("both", LINEAR, TEXT_LINEAR)
    for members in ([], [(both, ref(0.0))], [(unet, ref(0.5))], [(both, ref(0.5, 0.0))]):
        found = part(sets, *members)
        assert (found.text_encoders, dict(found.tokens)) == ("", {})


def test_sets_that_differ_in_the_unet_alone_share_their_prompts(sets: FusedSets) -> None:
    """The key is of the text encoders' files and strengths, in any order; the U-Net's do not count."""
    one, two = file("one", LINEAR, TEXT_LINEAR), file("two", TEXT_LINEAR, seed=2)
    unet = file("unet", LINEAR, seed=3)
    key = part(sets, (one, ref(0.5, 0.8)), (two, ref(1.0))).text_encoders
    assert key
    assert part(sets, (two, ref(0.1, 1.0)), (unet, ref(1.0)), (one, ref(0.9, 0.8))).text_encoders == key
    others = [[(one, ref(0.5, 0.7)), (two, ref(1.0))], [(one, ref(0.5, 0.8))], [(two, ref(1.0))]]
    assert len({key, *(part(sets, *members).text_encoders for members in others)}) == 4


def test_tokens_come_with_their_file(sets: FusedSets) -> None:
    """Whole at any strength, of the second lease of a set too; a file without any strength brings none."""
    pet = file("pet", LINEAR, tokens={"pet": PET})
    for members in ([(pet, ref(0.25))], [(pet, ref(0.25))], [(pet, ref(0.0, 1.0))]):
        found = part(sets, *members)
        assert found.tokens["pet"]["text_encoder"].tolist() == [PET.tolist()]
        assert found.text_encoders == ""
    assert dict(part(sets, (pet, ref(0.0))).tokens) == {}


def test_a_token_of_two_files_must_mean_the_same(sets: FusedSets) -> None:
    """Equal vectors are one token; others are disputed, since the order of LoRAs has no meaning."""
    pet = file("pet", LINEAR, tokens={"pet": PET, "car": PET})
    same = file("same", LINEAR, tokens={"pet": PET}, seed=2)
    other = file("other", LINEAR, tokens={"pet": PET + 1}, seed=3)
    several = file("several", LINEAR, tokens={"pet": PET.expand(2, -1)}, seed=4)
    agreed = part(sets, (pet, ref()), (same, ref()))
    assert (sorted(agreed.tokens), agreed.disputed) == (["car", "pet"], frozenset())
    for rival in (other, several):
        for members in ([(pet, ref()), (rival, ref())], [(rival, ref()), (pet, ref())]):
            found = part(sets, *members)
            assert (sorted(found.tokens), found.disputed) == (["car"], {"pet"})


def test_a_token_of_another_width_is_reported_and_strictly_refused(sets: FusedSets) -> None:
    """The LoRA works without it; whoever asks for every tensor gets an error that names the key."""
    wide = file("wide", LINEAR, tokens={"pet": torch.ones(5)})
    with sets.acquire([(wide, ref())]) as lease:
        assert lease.reports[0].warnings == (
            "the token 'pet' cannot be used: its shape is [5]; text_encoder takes vectors of 12",
        )
        assert lease.reports[0].unmatched_examples == ("bundle_emb.pet.string_to_param.*",)
        assert dict(lease.prompt_part.tokens) == {}
    with pytest.raises(LoraIncompatible, match=r"1 tensors find no place .*bundle_emb\.pet"):
        sets.acquire([(wide, ref(strict=True))])
