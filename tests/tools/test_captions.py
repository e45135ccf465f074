"""The captions say what they claim, and nothing that is held out is trained on."""

import numpy as np

from tools.tiny_model.captions import (
    HELD_OUT_PAIRS,
    WORDS,
    caption,
    held_out_combinations,
    held_out_prompts,
    tidy,
    training_specs,
)


def test_no_held_out_combination_is_trained_on():
    trained = {(s.shape, s.fill, s.background) for s in training_specs()}
    assert not trained & held_out_combinations()
    assert not {c[:2] for c in trained} & HELD_OUT_PAIRS


def test_every_word_of_the_vocabulary_is_trained_on():
    for attribute, words in WORDS.items():
        assert {getattr(s, attribute) for s in training_specs()} == set(words)


def test_a_share_of_all_combinations_is_held_out():
    held = len(held_out_combinations())
    trained = len({(s.shape, s.fill, s.background) for s in training_specs()})
    assert 0.1 < held / (held + trained) < 0.25


def test_the_prompts_are_held_out_name_every_attribute_and_stay_the_same():
    prompts = held_out_prompts(64)
    assert prompts == held_out_prompts(64)
    for prompt in prompts:
        assert (prompt.shape, prompt.fill, prompt.background) in held_out_combinations()
        assert any(word in prompt.text for word in WORDS["shape"][prompt.shape])
        assert any(word in prompt.text for word in WORDS["fill"][prompt.fill])


def test_phrasings_vary():
    rng, spec = np.random.default_rng(0), training_specs()[0]
    assert len({caption(spec, rng).text for _ in range(200)}) > 100


def test_gaps_and_articles_are_tidied():
    assert tidy("a  orange star ,  on  blue , ") == "an orange star, on blue"
