"""The prompt syntax: what docs/prompts.md states, example by example, and what holds for every text."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdgrpc.diffusion.prompts.syntax import Piece, parse

UP, DOWN = 1.1, 1 / 1.1
# Texts with much syntax in them.
MARKS = [
    "(",
    ")",
    "[",
    "]",
    "\\",
    ":",
    ":1.2)",
    ": -.5 )",
    " BREAK ",
    "BREAK",
    "a",
    "red ",
    "1.5",
    " ",
    "\n",
    "é",
]
MARKED = st.lists(st.sampled_from(MARKS), max_size=30).map("".join)


def read(prompt: str) -> list[list[tuple[str, float]]]:
    """The sections of a prompt as (text, weight), weights rounded."""
    return [[(piece.text, round(piece.weight, 6)) for piece in section] for section in parse(prompt)]


def one(*pieces: tuple[str, float]) -> list[list[tuple[str, float]]]:
    """A single section, rounded likewise."""
    return [[(text, round(weight, 6)) for text, weight in pieces]]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", one()),
        ("a red cat", one(("a red cat", 1))),
        ("a (red) cat", one(("a ", 1), ("red", UP), (" cat", 1))),
        ("a [red] cat", one(("a ", 1), ("red", DOWN), (" cat", 1))),
        ("(red:1.4) cat", one(("red", 1.4), (" cat", 1))),
        ("(red : 1.4 )", one(("red ", 1.4))),
        ("(red:.5)", one(("red", 0.5))),
        ("(red:2.)", one(("red", 2))),
        ("(red:+2)", one(("red", 2))),
        ("(red:-0.5)", one(("red", -0.5))),
        ("(red:0)", one(("red", 0))),
        ("((red))", one(("red", UP * UP))),
        ("[[red]]", one(("red", DOWN * DOWN))),
        ("(a (red:2) cat)", one(("a ", UP), ("red", 2 * UP), (" cat", UP))),
        ("(a [red] cat:2)", one(("a ", 2), ("red", 2 * DOWN), (" cat", 2))),
        ("(red)(cat)", one(("redcat", UP))),
        ("()[]", one()),
    ],
)
def test_weights(prompt: str, expected: object) -> None:
    """Round brackets weigh 1.1 or what they say, square ones 1/1.1; brackets in each other multiply."""
    assert read(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (r"a \(red\) cat", "a (red) cat"),
        (r"a \[red\] cat", "a [red] cat"),
        (r"\(red:1.4\)", "(red:1.4)"),
        (r"a \\ b", "a \\ b"),
        (r"C:\new", "C:new"),
        ("a\\", "a"),
    ],
)
def test_escapes(prompt: str, text: str) -> None:
    """A backslash makes a bracket or a backslash text, before anything else it vanishes."""
    assert read(prompt) == one((text, 1))


def test_an_escape_inside_brackets() -> None:
    """It is text of the bracket's weight."""
    assert read(r"(red \(dark\):1.3)") == one(("red (dark)", 1.3))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a (red cat", one(("a ", 1), ("red cat", UP))),
        ("a ((red) cat", one(("a ", 1), ("red", UP * UP), (" cat", UP))),
        ("a [red cat", one(("a ", 1), ("red cat", DOWN))),
        ("a red) cat", one(("a red) cat", 1))),
        ("a red] cat", one(("a red] cat", 1))),
        ("a red:1.2) cat", one(("a red:1.2) cat", 1))),
        ("(a [red) cat]", one(("a ", UP), ("red", 1), (" cat", DOWN))),
        ("[red:1.2)", one(("red:1.2)", DOWN))),
        ("[red:0.5]", one(("red:0.5", DOWN))),
        ("(red:1.2.3)", one(("red:1.2.3", UP))),
        ("(red:)", one(("red:", UP))),
        ("(red:much)", one(("red:much", UP))),
        ("16:9", one(("16:9", 1))),
        (":)", one((":)", 1))),
        ("a | b", one(("a | b", 1))),
    ],
)
def test_what_is_unbalanced_or_no_number(prompt: str, expected: object) -> None:
    """An open bracket weighs the rest, a lone closing one is text, and so is a weight that is no number."""
    assert read(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("red BREAK cat", [[("red", 1)], [("cat", 1)]]),
        ("red\nBREAK\ncat", [[("red", 1)], [("cat", 1)]]),
        ("BREAK red", [[], [("red", 1)]]),
        ("red BREAK", [[("red", 1)], []]),
        ("red BREAK BREAK cat", [[("red", 1)], [], [("cat", 1)]]),
        ("(red BREAK cat:1.3)", [[("red", 1.3)], [("cat", 1.3)]]),
        ("red break cat", one(("red break cat", 1))),
        ("BREAKFAST", one(("BREAKFAST", 1))),
    ],
)
def test_break(prompt: str, expected: object) -> None:
    """In capitals and alone it ends the section, inside brackets too, and takes the spaces with it."""
    assert read(prompt) == expected


@given(MARKED | st.text())
def test_whatever_comes_is_read(prompt: str) -> None:
    """It never raises; pieces are not empty, neighbours differ, their text stands in the prompt in order."""
    sections = parse(prompt)
    assert sections
    for section in sections:
        assert all(piece.text for piece in section)
        assert all(one.weight != other.weight for one, other in itertools.pairwise(section))
    rest = iter(prompt)
    assert all(letter in rest for section in sections for piece in section for letter in piece.text)


@given(MARKED | st.text())
def test_only_syntax_is_left_out(prompt: str) -> None:
    """Without backslashes, what is gone are brackets, their weights, BREAKs and the spaces around them."""
    prompt = prompt.replace("\\", "")
    text = "".join(piece.text for section in parse(prompt) for piece in section)
    bare = re.compile(r"BREAK|[()\[\]:+\-.\s0-9]")
    assert bare.sub("", text) == bare.sub("", prompt)


@given(st.text())
def test_without_marks_a_prompt_is_one_piece(prompt: str) -> None:
    """Plain text reaches the tokenizer as it is."""
    plain = re.sub(r"[()\[\]\\]", "", prompt).replace("BREAK", "break")
    assert parse(plain) == ((Piece(plain),) if plain else (),)


@given(st.text(alphabet="ab ()[]\\:1."))
def test_escaped_text_is_one_piece(text: str) -> None:
    """A backslash before each bracket and backslash gives back the text itself."""
    escaped = re.sub(r"([()\[\]\\])", r"\\\1", text)
    assert parse(escaped) == ((Piece(text),) if text else (),)


def documented() -> list[tuple[str, str]]:
    """The table of docs/prompts.md: what is written, and what it is read as."""
    text = (Path(__file__).parents[3] / "docs/prompts.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(.+?)` \| (`.+` x [0-9.]+) \|$", text, re.MULTILINE)


@pytest.mark.parametrize(("prompt", "expected"), documented())
def test_the_page_is_right(prompt: str, expected: str) -> None:
    """Pieces are separated by commas, sections by semicolons."""
    sections = [
        ", ".join(f"`{piece.text}` x {round(piece.weight, 4):g}" for piece in section)
        for section in parse(prompt)
    ]
    assert "; ".join(sections) == expected


def test_the_page_has_its_table() -> None:
    """The test above reads every line of it."""
    assert len(documented()) == 14
