r"""Syntax that is not drawn is refused by its name; what only looks like it keeps its meaning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdgrpc.prompting.refused import COMPOSITION, refused_syntax

REFUSED = [
    "a cat AND a dog",
    "a cat AND a dog :1.2",
    "(a AND b)",
    "AND",
    "a,AND,b",
    r"\\AND b",
    "[a:b:1] AND [c|d]",
]
DRAWN = [
    *("", "a star", "[word]", "(word:1.2)", "[a:b:0.5]", "[a|b]", r"a cat \AND a dog", "a cat and a dog"),
    *("SANDY BRAND ANDES R_AND_D AND1 BANDANA", "BREAK"),
]


@pytest.mark.parametrize("prompt", REFUSED)
def test_what_is_not_drawn(prompt: str) -> None:
    """AND as a word, wherever it stands; once."""
    assert list(refused_syntax(prompt)) == [COMPOSITION]


@pytest.mark.parametrize("prompt", DRAWN)
def test_what_is_drawn(prompt: str) -> None:
    """Weights, editing, alternation and escapes, and words that only contain it."""
    assert list(refused_syntax(prompt)) == []


@given(st.text(st.sampled_from("AND \\[]:|ab"), max_size=40))
def test_any_text_is_judged(text: str) -> None:
    """Nothing is raised, and without the three letters nothing is refused."""
    refused = list(refused_syntax(text))
    assert refused in ([], [COMPOSITION])
    assert "AND" in text or not refused
