"""Prompts to embeddings: chunks, weights, padding, clip skip."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.conditioning import encode
from sdgrpc.errors import InvalidRequest
from tests.support.oracle import diffusers_conditioning
from tests.support.tasks import task

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


PLAIN = ["a red cat", "", "  a  red\tcat, blue: dog!  ", "cat " * 75, "a break | 16:9 :)", "Ünïcode 猫"]


@pytest.mark.parametrize("clip_skip", [0, 1, 2])
@pytest.mark.parametrize("prompt", PLAIN)
@pytest.mark.parametrize("name", ["model", "sdxl_model"])
def test_plain_prompts_are_diffusers_to_the_bit(
    name: str, prompt: str, clip_skip: int, request: pytest.FixtureRequest
) -> None:
    """Without brackets, backslashes and BREAK, both prompts and what is pooled are exactly theirs."""
    model = request.getfixturevalue(name)
    asked = task(prompt=prompt, negative_prompt=prompt or "blue", clip_skip=clip_skip)
    ours = encode(model, asked.prompt, asked.negative_prompt, clip_skip)
    theirs = diffusers_conditioning(model, asked)
    for field in fields(ours):
        one, other = getattr(ours, field.name), getattr(theirs, field.name)
        assert (one is None) == (other is None)
        assert one is None or field.name == "weights" or torch.equal(one, other)


@pytest.mark.parametrize("clip_skip", [0, 1])
@pytest.mark.parametrize("name", ["model", "sdxl_model"])
def test_each_chunk_is_what_diffusers_makes_of_it(
    name: str, clip_skip: int, request: pytest.FixtureRequest
) -> None:
    """With clip skip too, of which the negative prompt knows nothing; the first chunk is pooled."""
    model = request.getfixturevalue(name)
    parts = ["cat " * 75, "red " * 75, "dog"]
    ours = encode(model, " ".join(parts), "blue BREAK dog BREAK", clip_skip)
    singles = [
        diffusers_conditioning(model, task(prompt=part, negative_prompt=negative, clip_skip=clip_skip))
        for part, negative in zip(parts, ["blue", "dog", " "], strict=True)
    ]
    torch.testing.assert_close(ours.positive, torch.cat([one.positive for one in singles], dim=1))
    assert ours.negative is not None
    torch.testing.assert_close(ours.negative, torch.cat([one.negative for one in singles], dim=1))  # type: ignore[misc]
    if model.is_sdxl:
        torch.testing.assert_close(ours.pooled, singles[0].pooled)
        torch.testing.assert_close(ours.negative_pooled, singles[0].negative_pooled)


def test_break_begins_a_chunk(model: Model) -> None:
    """What stands around it is encoded apart, each like a prompt of its own."""
    broken = encode(model, "a red cat BREAK a dog", None).positive
    alone = [encode(model, prompt, None).positive for prompt in ("a red cat", "a dog")]
    torch.testing.assert_close(broken, torch.cat(alone, dim=1))


@pytest.mark.parametrize("name", ["model", "sdxl_model"])
def test_weights_multiply_their_tokens(name: str, request: pytest.FixtureRequest) -> None:
    """Of either prompt and of both encoders; what is pooled is not weighed, and no other token is."""
    model = request.getfixturevalue(name)
    plain = encode(model, "a red cat", "a blue dog")
    weighed = encode(model, "a (red:1.5) cat", "a blue [dog]")
    for ours, theirs, at, weight in (
        (weighed.positive, plain.positive, 2, 1.5),
        (weighed.negative, plain.negative, 3, 1 / 1.1),
    ):
        assert ours is not None
        assert theirs is not None
        factors = ours / theirs
        # Each encoder's mean may be restored by a factor of its own, which all its tokens share.
        shared = factors[:, :1]
        expected = torch.ones(1, 77, 1)
        expected[:, at] = weight
        torch.testing.assert_close(factors / shared, expected.expand_as(factors), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(shared, torch.ones_like(shared), rtol=0.1, atol=0)
    if model.is_sdxl:
        assert torch.equal(weighed.pooled, plain.pooled)
        assert torch.equal(weighed.negative_pooled, plain.negative_pooled)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"a \(red\) cat", r"(a \(red\) cat:1.0)"),
        ("a ((red)) cat", "a (red:1.21) cat"),
        ("a [red] cat", "a (red:0.90909091) cat"),
        ("a (red cat", "a (red cat)"),
    ],
)
def test_ways_to_say_the_same(model: Model, one: str, other: str) -> None:
    """Spellings of one prompt give one embedding."""
    both = [encode(model, prompt, None).positive for prompt in (one, other)]
    torch.testing.assert_close(both[0], both[1])


def test_escaped_brackets_are_words(model: Model) -> None:
    """They are encoded as the tokenizer has them, without a weight."""
    theirs = diffusers_conditioning(model, task(prompt="a (red) [cat]"))
    assert torch.equal(encode(model, r"a \(red\) \[cat\]", None).positive, theirs.positive)


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


def test_parts_are_filled_to_one_length(model: Model) -> None:
    """Each is what it is alone, then empty chunks; so is the negative prompt."""
    told = encode(model, [("a red cat", 1.0), (LONG, 0.5)], "a dog")
    alone, long, empty = (encode(model, text, None).positive for text in ("a red cat", LONG, ""))
    assert told.weights == (1.0, 0.5)
    assert torch.equal(told.positive, torch.cat([torch.cat([alone, empty], dim=1), long]))
    assert told.negative is not None
    assert torch.equal(told.negative, torch.cat([encode(model, "a dog", None).positive, empty], dim=1))


def test_faults_of_parts(model: Model) -> None:
    """Each once, whichever parts have it; and they have a bound together."""
    with pytest.raises(InvalidRequest) as caught:
        encode(model, [("(a:99)", 1.0), ("(b:99)", 1.0)], "(c:99)")
    assert [one.field for one in caught.value.violations] == ["prompt", "negative_prompt"]
    chunks = "BREAK a " * 31
    assert encode(model, [(chunks, 1.0), ("a", 1.0)], None).positive.shape == (2, 32 * 77, 32)
    with pytest.raises(InvalidRequest, match=r"prompt: takes 96 chunks of 75 tokens.*the most is 64"):
        encode(model, [(chunks, 1.0), ("a", 1.0), ("b", 1.0)], None)
