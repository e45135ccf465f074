"""The ways to name a LoRA."""

from __future__ import annotations

import pytest

from sdgrpc.client import Lora


@pytest.mark.parametrize(
    ("text", "name", "strengths"),
    [
        ("postcard", "postcard", ()),
        ("postcard:0.8", "postcard", (0.8,)),
        ("postcard:0.8:0.4", "postcard", (0.8, 0.4)),
        ("styles/postcard:-1", "styles/postcard", (-1.0,)),
        ("odd:name:1", "odd:name", (1.0,)),
        ("odd:name:.5:0", "odd:name", (0.5, 0.0)),
        ("odd:1:2:3", "odd:1", (2.0, 3.0)),
        ("a:1e-1", "a", (0.1,)),
        ("a:b/c", "a:b/c", ()),
    ],
)
def test_lora_text_ends_in_at_most_two_numbers(text: str, name: str, strengths: tuple[float, ...]) -> None:
    """The strength and that in the text encoder; other colons belong to the name."""
    assert Lora.parse(text) == Lora(name, *strengths)


@pytest.mark.parametrize("text", ["", ":0.5", ":0.5:1"])
def test_lora_text_without_a_name_is_refused(text: str) -> None:
    """Half a LoRA is an error that shows how it should look."""
    with pytest.raises(ValueError, match=r"is not NAME, NAME:STRENGTH or NAME:STRENGTH:TEXT"):
        Lora.parse(text)


@pytest.mark.parametrize(
    ("text", "strength"),
    [
        ("postcard:O.8", "O.8"),
        ("postcard:0,8", "0,8"),
        ("a:0.8:x", "x"),
        ("a:nan", "nan"),
        ("a:", ""),
        (":", ""),
    ],
)
def test_a_strength_that_is_no_number_is_said(text: str, strength: str) -> None:
    """A slip in the number is not taken for a part of the name."""
    with pytest.raises(ValueError, match=f"the strength '{strength}' is no number; write"):
        Lora.parse(text)
