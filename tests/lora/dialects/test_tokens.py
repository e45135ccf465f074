"""Textual inversions inside LoRA files, before anything is done with them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdgrpc.errors import LoraMalformed
from sdgrpc.lora.dialects.tokens import Bundled, Vocabulary, bundled, embedding_widths

SD1 = {"text_encoder": 4}
SDXL = {"text_encoder": 4, "text_encoder_2": 6}


def token(name: str = "pet", **parts: Tensor) -> Bundled:
    """A token with these parts; `only` is the part without a name."""
    named = {"" if part == "only" else part: tensor for part, tensor in parts.items()}
    return Bundled(name, named, {part: f"bundle_emb.{name}.{part or 'emb'}" for part in named})


@pytest.mark.parametrize(
    ("key", "name", "part"),
    [
        ("<s1>", "<s1>", ""),
        ("bundle_emb.pet.string_to_param.*", "pet", ""),
        ("bundle_emb.pet.emb_params", "pet", ""),
        ("bundle_emb.pet.emb", "pet", ""),
        ("bundle_emb.my.pet v1.2.clip_l", "my.pet v1.2", "clip_l"),
        ("bundle_emb.pet.clip_g", "pet", "clip_g"),
    ],
)
def test_names_in_keys(key: str, name: str, part: str) -> None:
    """Whatever stands between the marks is the word, dots and spaces included."""
    (found,) = bundled("file", {key: torch.ones(4)}, [key])
    assert (found.name, dict(found.keys)) == (name, {part: key})


@pytest.mark.parametrize("key", ["bundle_emb.pet.clip_l_out", "bundle_emb..emb", "bundle_emb. .emb", "s1"])
def test_other_keys_are_no_tokens(key: str) -> None:
    """Vectors for the encoder's output, empty names, and what only looks alike."""
    assert bundled("file", {key: torch.ones(4)}, [key]) == ()


def test_parts_of_a_token_belong_together() -> None:
    """SDXL's two encoders have a key each; tokens come in the order of their names."""
    keys = ["bundle_emb.pet.clip_g", "<s1>", "bundle_emb.pet.clip_l"]
    found = bundled("file", dict.fromkeys(keys, torch.ones(4)), keys)
    assert [(each.name, sorted(each.tensors)) for each in found] == [
        ("<s1>", [""]),
        ("pet", ["clip_g", "clip_l"]),
    ]


def test_a_part_that_is_there_twice_is_named() -> None:
    """Which of them is meant cannot be said."""
    keys = ["bundle_emb.pet.emb", "bundle_emb.pet.emb_params"]
    with pytest.raises(LoraMalformed, match=r"'bundle_emb.pet.emb' and 'bundle_emb.pet.emb_params'"):
        bundled("file", dict.fromkeys(keys, torch.ones(4)), keys)


def test_one_vector_or_several() -> None:
    """A vector of the width, or rows of it."""
    one = token(only=torch.arange(4.0)).vectors(SD1)
    several = token(only=torch.arange(8.0).view(2, 4)).vectors(SD1)
    assert not isinstance(one, str)
    assert not isinstance(several, str)
    assert one["text_encoder"].tolist() == [[0, 1, 2, 3]]
    assert several["text_encoder"].shape == (2, 4)


def test_sdxl_takes_a_part_for_each_text_encoder() -> None:
    """CLIP-L's for the first, OpenCLIP-G's for the second."""
    found = token(clip_l=torch.ones(2, 4), clip_g=torch.zeros(2, 6)).vectors(SDXL)
    assert not isinstance(found, str)
    assert {name: tuple(rows.shape) for name, rows in found.items()} == {
        "text_encoder": (2, 4),
        "text_encoder_2": (2, 6),
    }


@pytest.mark.parametrize(
    ("parts", "widths", "why"),
    [
        ({"only": torch.ones(6)}, SD1, "its shape is [6]; text_encoder takes vectors of 4"),
        ({"only": torch.ones(1, 1, 4)}, SD1, "its shape is [1, 1, 4]; text_encoder takes vectors of 4"),
        ({"only": torch.ones(0, 4)}, SD1, "its shape is [0, 4]; text_encoder takes vectors of 4"),
        ({"only": torch.tensor(1.0)}, SD1, "its shape is []; text_encoder takes vectors of 4"),
        ({"only": torch.ones(4)}, SDXL, "the file has no vectors for text_encoder_2"),
        ({"clip_g": torch.ones(6)}, SDXL, "the file has no vectors for text_encoder"),
        ({"clip_l": torch.ones(4), "clip_g": torch.ones(2, 6)}, SDXL, "it has 1 and 2 vectors"),
        ({"only": torch.ones(76, 4)}, SD1, "it has 76 vectors; a chunk of the prompt holds 75"),
        ({"only": torch.ones(4)}, {}, "the model has no text encoder for it"),
    ],
)
def test_what_cannot_be_used_says_why(parts: dict[str, Tensor], widths: dict[str, int], why: str) -> None:
    """Another width, a missing part, too many vectors."""
    assert token(**parts).vectors(widths) == why


def test_a_vocabulary_sorts_tokens_by_their_use() -> None:
    """Usable ones with their vectors, the others with the reason; their keys count as unmatched."""
    tokens = [
        token("pet", only=torch.ones(2, 4)),
        token("car", only=torch.ones(4)),
        token("bad", only=torch.ones(9)),
    ]
    vocabulary = Vocabulary.of(tokens, SD1)
    assert sorted(vocabulary.usable) == ["car", "pet"]
    assert vocabulary.unmatched == ("bundle_emb.bad.emb",)
    assert vocabulary.warnings() == [
        "brings the token 'pet' for the prompt (2 vectors)",
        "brings the token 'car' for the prompt (1 vector)",
        "the token 'bad' cannot be used: its shape is [9]; text_encoder takes vectors of 4",
    ]


def test_widths_are_those_of_the_token_embeddings() -> None:
    """However the text model is wrapped; a U-Net has none."""
    weights = {
        "unet": {"time_embedding.linear_1.weight": torch.ones(2, 3)},
        "text_encoder": {"embeddings.token_embedding.weight": torch.ones(9, 4)},
        "text_encoder_2": {"text_model.embeddings.token_embedding.weight": torch.ones(9, 6)},
    }
    assert embedding_widths(weights) == SDXL
