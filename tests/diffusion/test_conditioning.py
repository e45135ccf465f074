"""Prompts to embeddings: chunks, padding, clip skip."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.diffusion.conditioning import encode, token_chunks
from sdgrpc.diffusion.model import Model
from sdgrpc.errors import InvalidRequest

LONG = " ".join(["cat"] * 80)


def test_shapes(model: Model) -> None:
    """Embeddings are [1, 77, D]; without a negative prompt there is none."""
    both = encode(model, "a red cat", "blue")
    assert both.positive.shape == (1, 77, 32)
    assert both.negative is not None
    assert both.negative.shape == (1, 77, 32)
    assert encode(model, "a red cat", None).negative is None


def test_an_empty_negative_prompt_is_encoded(model: Model) -> None:
    """Empty and none are different: guidance away from nothing in particular still needs its rows."""
    both = encode(model, "a red cat", "")
    assert both.negative is not None
    assert not torch.equal(both.negative, both.positive)


def test_short_prompts_are_one_chunk(model: Model) -> None:
    """75 tokens fit one call of the text encoder, 76 do not."""
    tokenizer = model.tokenizers["tokenizer"]
    assert [len(chunk) for chunk in token_chunks(tokenizer, " ".join(["cat"] * 75))] == [75]
    assert [len(chunk) for chunk in token_chunks(tokenizer, " ".join(["cat"] * 76))] == [75, 1]
    assert token_chunks(tokenizer, "") == [[]]


def test_nothing_is_cut_from_long_prompts(model: Model) -> None:
    """Words beyond the first 75 tokens change the embedding, and only of their own chunk."""
    cat, dog = (encode(model, f"{LONG} {word}", None).positive for word in ("cat", "dog"))
    assert cat.shape == (1, 154, 32)
    assert torch.equal(cat[:, :77], dog[:, :77])
    assert not torch.equal(cat[:, 77:], dog[:, 77:])


def test_each_chunk_stands_alone(model: Model) -> None:
    """A chunk of a long prompt is encoded as a prompt of its own."""
    long = encode(model, LONG, None).positive
    alone = encode(model, " ".join(["cat"] * 5), None).positive
    torch.testing.assert_close(long[:, 77:], alone)


@pytest.mark.parametrize(("prompt", "negative"), [(LONG, "blue"), ("a red cat", LONG)])
def test_the_shorter_prompt_is_filled_with_empty_chunks(model: Model, prompt: str, negative: str) -> None:
    """Positive and negative have one length, so that they can share a UNet call."""
    both = encode(model, prompt, negative)
    assert both.negative is not None
    assert both.positive.shape == both.negative.shape == (1, 154, 32)
    assert both.token_count == 154
    filled = both.negative if prompt == LONG else both.positive
    torch.testing.assert_close(filled[:, 77:], encode(model, "", None).positive)


def test_clip_skip_leaves_out_layers_of_the_positive_prompt(model: Model) -> None:
    """Each skipped layer gives another embedding; the negative prompt keeps all layers, as in diffusers."""
    plain, one, two = (encode(model, "a red cat", "blue", skip) for skip in (0, 1, 2))
    assert not torch.allclose(plain.positive, one.positive)
    assert not torch.allclose(one.positive, two.positive)
    assert plain.negative is not None
    assert one.negative is not None
    assert torch.equal(plain.negative, one.negative)


@pytest.mark.parametrize("skip", [-1, 3])
def test_clip_skip_must_leave_a_layer(model: Model, skip: int) -> None:
    """The violation names the field and the range."""
    with pytest.raises(InvalidRequest, match=rf"sampling.clip_skip: {skip} is not in 0 to 2"):
        encode(model, "a cat", None, skip)


def test_an_attention_mask_where_the_text_encoder_wants_one(model: Model) -> None:
    """Text encoders whose configuration asks for the mask do not attend to the padding."""
    encoder = model.text_encoders["text_encoder"]
    plain = encode(model, "a cat", None).positive
    encoder.config.use_attention_mask = True
    try:
        masked = encode(model, "a cat", None).positive
    finally:
        del encoder.config.use_attention_mask
    # Begin, two tokens and end are used; the causal mask hides the padding from them anyway.
    torch.testing.assert_close(masked[:, :4], plain[:, :4])
    assert not torch.allclose(masked[:, 5:], plain[:, 5:])
