r"""Syntax that is not drawn is refused by its name; what only looks like it keeps its meaning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdgrpc.prompting.refused import ALTERNATION, COMPOSITION, EDITING, refused_syntax


@pytest.mark.parametrize(
    ("prompt", "sentences"),
    [
        ("[a:b:0.5]", [EDITING]),
        ("a [red:blue:10] star", [EDITING]),
        ("[red:0.5]", [EDITING]),
        ("[red::0.5]", [EDITING]),
        ("[:red: 5 ]", [EDITING]),
        ("[a:b:-1]", [EDITING]),
        ("[a:b:1e1]", [EDITING]),
        ("[a:b:.5]", [EDITING]),
        ("[(a:1.2):(b:0.8):0.5]", [EDITING]),
        ("([a:b:0.5]:1.2)", [EDITING]),
        ("[[a:b:0.5]]", [EDITING]),
        ("[a [b:c:0.5]", [EDITING]),
        ("[a\n:b:0.5]", [EDITING]),
        ("[a|b]", [ALTERNATION]),
        ("a [red|blue|] star", [ALTERNATION]),
        ("[(a:1.2)|b]", [ALTERNATION]),
        ("[a|b:0.5]", [ALTERNATION]),
        ("[[a|b]:c:0.5]", [EDITING, ALTERNATION]),
        ("a cat AND a dog", [COMPOSITION]),
        ("a cat AND a dog :1.2", [COMPOSITION]),
        ("(a AND b)", [COMPOSITION]),
        ("AND", [COMPOSITION]),
        ("a,AND,b", [COMPOSITION]),
        (r"\\AND b", [COMPOSITION]),
        ("[a:b:0.5] AND [c|d]", [EDITING, ALTERNATION, COMPOSITION]),
    ],
)
def test_what_is_not_drawn(prompt: str, sentences: list[str]) -> None:
    """As the web UI's grammar has it, at any depth; each kind once."""
    assert list(refused_syntax(prompt)) == sentences


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a star",
        "[word]",
        "[[word]]",
        "(word:1.2)",
        "[(word:1.2)]",
        "([word]:0.5)",
        "[a, b:c]",
        "[a:b]",
        "[a:b:c]",
        "[a:b:0.5:c]",
        "[a:b:c:0.5]",
        "[a:b:0.5",
        "a:b:0.5]",
        "(a:b:0.5)",
        "(a|b)",
        "[(a|b)]",
        "a | b",
        "[a|b",
        "a|b]",
        r"\[a:b:0.5\]",
        r"\[a|b\]",
        r"[a\|b]",
        r"[a\:b\:0.5]",
        r"[a:b\:0.5]",
        r"a cat \AND a dog",
        "a cat and a dog",
        "SANDY BRAND ANDES R_AND_D AND1 BANDANA",
        "time 12:30:45, ratio 16:9",
        "BREAK",
    ],
)
def test_what_keeps_its_meaning(prompt: str) -> None:
    """Weights, text, what is escaped, and what is open."""
    assert list(refused_syntax(prompt)) == []


def test_a_negative_prompt_does_not_compose() -> None:
    """The web UI reads AND in the prompt alone, and the rest in both."""
    assert list(refused_syntax("a AND b [c|d]", composes=False)) == [ALTERNATION]


@given(st.text(alphabet="ab:.05 |[]()\\AND", max_size=60))
def test_escaping_makes_text(text: str) -> None:
    """Nothing raises, and with a backslash before each mark nothing is refused."""
    list(refused_syntax(text))
    escaped = "".join(f"\\{sign}" if sign in "[]()|:\\" else sign for sign in text)
    assert not list(refused_syntax(escaped, composes=False))
