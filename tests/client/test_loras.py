"""The ways to name a LoRA."""

from __future__ import annotations

import pytest

from sdgrpc.client import Lora


@pytest.mark.parametrize(
    ("text", "name", "strength"),
    [
        ("postcard", "postcard", None),
        ("postcard:0.8", "postcard", 0.8),
        ("styles/postcard:-1", "styles/postcard", -1.0),
        ("odd:name", "odd:name", None),
        ("odd:name:.5", "odd:name", 0.5),
        ("a:1e-1", "a", 0.1),
        ("nan:nan", "nan:nan", None),
    ],
)
def test_lora_text_is_split_at_the_last_number(text: str, name: str, strength: float | None) -> None:
    """A strength is what follows the last colon if it is a number; else the colon belongs to the name."""
    assert Lora.parse(text) == Lora(name, strength)


@pytest.mark.parametrize("text", ["", ":0.5", "postcard:", ":"])
def test_lora_text_without_name_or_strength_is_refused(text: str) -> None:
    """Half a LoRA is an error that shows how it should look."""
    with pytest.raises(ValueError, match=r"NAME:STRENGTH"):
        Lora.parse(text)
