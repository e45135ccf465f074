"""The vocabulary is a CLIP tokenizer's, and knows the captions' words whole."""

import pytest

from tools.tiny_model.models import Run, make_tokenizer, tokenize
from tools.tiny_model.tokenizer import byte_alphabet, learn_merges


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(Run(tmp_path_factory.mktemp("run")))


def test_a_caption_becomes_one_token_a_word(tokenizer):
    words = ["a", "large", "red", "star", "on", "a", "blue", "background"]
    assert tokenizer.tokenize(" ".join(words)) == [f"{word}</w>" for word in words]


def test_any_text_survives_the_round_trip(tokenizer):
    ids = tokenizer("Ünïcode, 42 cats!").input_ids
    assert tokenizer.unk_token_id not in ids[1:-1]
    assert tokenizer.decode(ids, skip_special_tokens=True).split() == ["ünïcode", ",", "4", "2", "cats", "!"]


def test_padding_fills_77_places_with_the_end_token(tokenizer):
    tokens = tokenize(tokenizer, ["a star", ""])
    assert tokens.shape == (2, 77)
    assert (tokens[0, 3:] == tokenizer.eos_token_id).all()
    assert (tokens[1, 1:] == tokenizer.eos_token_id).all()


def test_the_alphabet_has_a_character_for_every_byte():
    assert len(set(byte_alphabet())) == 256


def test_the_most_frequent_pair_is_merged_first():
    assert learn_merges({"ab": 1, "cd": 5}, 1) == [("c", "d</w>")]
