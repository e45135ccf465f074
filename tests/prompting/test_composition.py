r"""Prompts that are parted at AND, on a table of strings; what only looks like it keeps its meaning."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdgrpc.prompting.composition import MAX_PARTS, Part, composition_faults, read_parts

PARTED = {
    "a cat AND a dog": (Part("a cat"), Part("a dog")),
    "a cat :1.2 AND a dog :0.6 AND [red:blue:0.5] sky": (
        Part("a cat", 1.2),
        Part("a dog", 0.6),
        Part("[red:blue:0.5] sky"),
    ),
    "a:1.2AND b": (Part("a:1.2AND b"),),
    "a,AND,b": (Part("a,"), Part(",b")),
    "a\nAND\nb : -0.5 \n": (Part("a"), Part("b", -0.5)),
    "a:1. AND b:.5 AND c:+2 AND d:": (Part("a"), Part("b", 0.5), Part("c", 2.0), Part("d:")),
    "a: 1.5 AND b:1,5 AND c:1e2": (Part("a", 1.5), Part("b:1,5"), Part("c:1e2")),
    "(a:1.2) AND [b:0.5] AND (c:1.1):0.7": (Part("(a:1.2)"), Part("[b:0.5]"), Part("(c:1.1)", 0.7)),
    "(a AND b)": (Part("(a"), Part("b)")),
    "[a:b AND c:0.5": (Part("[a:b"), Part("c", 0.5)),
    "[a|b]:2 AND [c:d:1]": (Part("[a|b]", 2.0), Part("[c:d:1]")),
    "a:1:2 AND b": (Part("a:1", 2.0), Part("b")),
    "AND": (Part(""), Part("")),
    ":0.5 AND": (Part("", 0.5), Part("")),
    r"\\AND b": (Part("\\\\"), Part("b")),
    r"at 12\:30 AND b\\:3": (Part(r"at 12\:30"), Part(r"b\\", 3.0)),
    "a BREAK b AND c": (Part("a BREAK b"), Part("c")),
}
WHOLE = [
    *("", "a star", "[word]", "(word:1.2)", "[a:b:0.5]", "[a|b]", r"a cat \AND a dog :2", "a cat and a dog"),
    *("SANDY BRAND ANDES R_AND_D AND1 BANDANA", "BREAK", "a cat :1.2", "a clock at 12:30", " a "),
]


@pytest.mark.parametrize("prompt", PARTED)
def test_parts_and_their_weights(prompt: str) -> None:
    """AND as a word, wherever it stands; a number after a colon at a part's very end."""
    assert read_parts(prompt) == PARTED[prompt]
    assert list(composition_faults(prompt)) == []


@pytest.mark.parametrize("prompt", WHOLE)
def test_what_is_one_part(prompt: str) -> None:
    """Weights of words, editing, alternation and escapes; without AND a number at the end is text."""
    assert read_parts(prompt) == (Part(prompt),)


def test_too_many_parts_and_too_much_weight() -> None:
    """Each with what to do, and without the prompt's words."""
    most = " AND ".join(["s3cret"] * MAX_PARTS)
    assert list(composition_faults(most)) == []
    (many,) = composition_faults(f"{most} AND s3cret")
    assert many.startswith("joins 9 parts by AND; the most is 8. Leave some out")
    assert list(composition_faults("a:10 AND b:-10")) == []
    for weight, said in (("10.5", "10.5"), ("-30", "-30"), ("9" * 400, "inf")):
        (heavy,) = composition_faults(f"s3cret at 12:{weight} AND b")
        assert (
            heavy == rf"weighs a part of AND with {said}; the most is 10. Write \: for a colon that is text"
        )
    assert len(list(composition_faults(f"{most} AND s3cret:11"))) == 2


@given(st.text(st.sampled_from("AND \n:.1-[]()|ab"), max_size=40))
def test_without_backslashes_it_is_the_web_uis_grammar(text: str) -> None:
    """Its two expressions give the same parts, but for blanks at their ends."""
    weight = re.compile(r"^((?:\s|.)*?)(?:\s*:\s*([-+]?(?:\d+\.?|\d*\.\d+)))?\s*$")
    texts = re.split(r"\bAND\b", text)
    expected = []
    for each in texts:
        match = weight.search(each)
        assert match is not None
        expected.append(Part(match[1].strip(), float(match[2] or 1)))
    assert read_parts(text) == (tuple(expected) if len(texts) > 1 else (Part(text),))


@given(st.text(st.sampled_from("AND \\[]:|ab1."), max_size=40))
def test_any_text_is_read(text: str) -> None:
    """Nothing is raised, and without the three letters nothing is parted."""
    assert "AND" in text or read_parts(text) == (Part(text),)
    list(composition_faults(text))
