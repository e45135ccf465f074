"""Textual inversions of pictures that are brought back."""

from __future__ import annotations

from sdgrpc.parameters import parameters_text, read_parameters
from sdgrpc.parameters.words import missing_words
from tests.support.engine import make_model
from tests.support.jobs import make_task

FACE, TOY = "ab" * 32, "cd" * 32


def test_words_come_back_with_their_hashes() -> None:
    """The whole hash where the text has it, the web UI's 12 digits else; nothing else is said of them."""
    words = (("face", FACE), ("my: toy", TOY))
    text = parameters_text(make_task(prompt="a face"), make_model(), (), seed=0, embeddings=words)
    found = read_parameters(text)
    assert found.embeddings == (("face", FACE), ("my toy", TOY))
    assert found.notes == ()
    theirs = read_parameters('a\nSteps: 9, Seed: 1, TI hashes: "face: abababababab", Version: v1.10.0')
    assert theirs.embeddings == (("face", FACE[:12]),)
    assert read_parameters("a\nSteps: 9, Seed: 1").embeddings == ()


def test_what_is_not_here_is_said() -> None:
    """By name in upper or lower case, and by hash; what is the same is not mentioned."""
    used = (("Face", FACE[:12]), ("my toy", TOY), ("gone", FACE))
    here = (("face", FACE), ("my, toy", FACE))
    assert list(missing_words(used, here)) == [
        "the textual inversion 'my toy' here is another file than the picture's",
        "the server has no textual inversion 'gone' (abababababab); it is drawn as text",
    ]
