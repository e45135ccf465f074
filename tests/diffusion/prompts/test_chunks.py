"""Prompts to chunks of 75 tokens."""

from __future__ import annotations

import pytest
from transformers import CLIPTokenizer

from sdgrpc.diffusion.prompts.chunks import Chunk, chunks_of, words_of
from sdgrpc.diffusion.prompts.syntax import parse
from tests.support.models import tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    """Every word of these tests is one token of it."""
    return tiny_tokenizer()


def chunks(tokenizer: CLIPTokenizer, prompt: str, **lengths: int) -> list[Chunk]:
    """The chunks of a prompt, with learned tokens of these lengths."""
    return chunks_of(tokenizer, words_of(parse(prompt), [*lengths]), lengths)


def sizes(tokenizer: CLIPTokenizer, prompt: str, **lengths: int) -> list[int]:
    """How many tokens each chunk has."""
    return [len(chunk.ids) for chunk in chunks(tokenizer, prompt, **lengths)]


def cats(count: int) -> str:
    """That many tokens."""
    return " ".join(["cat"] * count)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", [0]),
        (cats(75), [75]),
        (cats(76), [75, 1]),
        (cats(150), [75, 75]),
        (f"{cats(40)} BREAK {cats(3)}", [40, 3]),
        (f"{cats(75)} BREAK {cats(3)}", [75, 3]),
        (f"{cats(80)} BREAK {cats(3)}", [75, 5, 3]),
        ("BREAK cat", [0, 1]),
        ("cat BREAK", [1]),
        ("cat BREAK BREAK cat", [1, 0, 1]),
        ("BREAK", [0]),
    ],
)
def test_chunks_end_at_75_tokens_and_at_breaks(
    tokenizer: CLIPTokenizer, prompt: str, expected: list[int]
) -> None:
    """Nothing is cut, a full chunk needs no further one, and a BREAK at the end begins none."""
    assert sizes(tokenizer, prompt) == expected


def test_weights_go_with_their_tokens(tokenizer: CLIPTokenizer) -> None:
    """One for each, over the borders of chunks."""
    red, cat = tokenizer("red cat", add_special_tokens=False).input_ids
    (chunk,) = chunks(tokenizer, "red (cat:1.5) red")
    assert (chunk.ids, chunk.weights) == ([red, cat, red], [1, 1.5, 1])
    first, second = chunks(tokenizer, f"{cats(74)} ({cats(3)}:2)")
    assert (first.weights[-2:], second.weights) == ([1, 2], [2, 2])


def test_equal_weights_part_no_word(tokenizer: CLIPTokenizer) -> None:
    """An escape inside of a word is tokenised with it."""
    (escaped,) = chunks(tokenizer, r"cat\(s\)")
    assert escaped.ids == tokenizer("cat(s)", add_special_tokens=False).input_ids


def test_learned_tokens_take_their_length(tokenizer: CLIPTokenizer) -> None:
    """Wherever they stand, with their weight."""
    (chunk,) = chunks(tokenizer, "red (pet:1.3) cat", pet=3)
    assert chunk.learned == [(1, "pet")]
    assert (len(chunk.ids), chunk.weights) == (5, [1, 1.3, 1.3, 1.3, 1])


@pytest.mark.parametrize(("before", "expected"), [(72, [75]), (73, [73, 3]), (75, [75, 3])])
def test_a_learned_token_is_not_cut(tokenizer: CLIPTokenizer, before: int, expected: list[int]) -> None:
    """Where its vectors find no room together they begin the next chunk."""
    assert sizes(tokenizer, f"{cats(before)} pet", pet=3) == expected


def test_the_longest_learned_token(tokenizer: CLIPTokenizer) -> None:
    """It fills a chunk of its own."""
    assert sizes(tokenizer, "cat pet cat", pet=75) == [1, 75, 1]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a pet", ["pet"]),
        ("PET, pet.", ["pet", "pet"]),
        ("petted carpet pet2 pet_", []),
        ("my-pet", ["pet"]),
        ("a big pet", ["big pet"]),
        ("<s1><S1>", ["<s1>", "<s1>"]),
        ("x<s1>y", ["<s1>"]),
        ("pet (pet) [<s1>]", ["pet", "pet", "<s1>"]),
        (r"\(pet\)", ["pet"]),
        (r"v\(2\)", ["v(2)"]),
    ],
)
def test_names_are_whole_words(text: str, found: list[str]) -> None:
    """In upper or lower case, the longest first; a name's own brackets are written as escapes."""
    (words,) = words_of(parse(text), ["pet", "big pet", "<s1>", "v(2)"])
    assert [word.text for word in words if word.is_learned] == found
    assert all(word.text for word in words)


def test_without_names_text_stays_whole() -> None:
    """Nothing is looked for."""
    (words,) = words_of(parse("a pet"), [])
    assert [(word.text, word.is_learned) for word in words] == [("a pet", False)]
