"""Learned tokens in prompts, compared with diffusers' `load_textual_inversion`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.conditioning import encode
from sdgrpc.diffusion.prompts.reading import PromptContext
from tests.support.oracle import conditioning_of, pipeline_with_its_own_words
from tests.support.tasks import task

WIDTHS = {"text_encoder": 32, "text_encoder_2": 48}
PROMPTS = ["<pet>", "a red <pet> and a dog", "cat <pet><pet>, " * 4]


def vectors(count: int, *encoders: str) -> dict[str, Tensor]:
    """Learned rows for these encoders, of the size of the models' own embeddings."""
    generator = torch.Generator().manual_seed(count)
    return {name: torch.randn(count, WIDTHS[name], generator=generator) * 3 for name in encoders}


def context(learned: dict[str, Tensor], name: str = "<pet>") -> PromptContext:
    """A job whose LoRA brings this token."""
    return PromptContext(tokens={name: learned})


@pytest.mark.parametrize("count", [1, 3])
def test_as_diffusers_has_it(model: Model, count: int) -> None:
    """One vector or several, at the beginning, inside and repeated, in both prompts, with clip skip."""
    learned = vectors(count, "text_encoder")
    theirs = pipeline_with_its_own_words(model, task())
    theirs.load_textual_inversion(learned["text_encoder"], token="<pet>")
    for prompt in PROMPTS:
        for clip_skip in (0, 1):
            asked = task(prompt=prompt, negative_prompt=f"blue {prompt}", clip_skip=clip_skip)
            ours = encode(model, prompt, asked.negative_prompt, clip_skip, context=context(learned))
            expected = conditioning_of(theirs, asked)
            torch.testing.assert_close(ours.positive, expected.positive)
            torch.testing.assert_close(ours.negative, expected.negative)


@pytest.mark.parametrize("count", [1, 3])
def test_as_diffusers_has_it_for_sdxl(sdxl_model: Model, count: int) -> None:
    """Each text encoder gets its own vectors, and what is pooled agrees."""
    learned = vectors(count, "text_encoder", "text_encoder_2")
    theirs = pipeline_with_its_own_words(sdxl_model, task())
    for name, rows in learned.items():
        tokenizer = getattr(theirs, name.replace("text_encoder", "tokenizer"))
        theirs.load_textual_inversion(
            rows,
            token="<pet>",
            text_encoder=getattr(theirs, name),
            tokenizer=tokenizer,
        )
    for prompt in PROMPTS:
        asked = task(prompt=prompt)
        ours = encode(sdxl_model, prompt, asked.negative_prompt, context=context(learned))
        expected = conditioning_of(theirs, asked)
        torch.testing.assert_close(ours.positive, expected.positive)
        torch.testing.assert_close(ours.pooled, expected.pooled)


def test_the_vector_of_a_word_is_that_word(model: Model) -> None:
    """To the bit: the position, the neighbours and the end are what they would be."""
    encoder = model.text_encoders["text_encoder"]
    ids = model.tokenizers["tokenizer"]("red cat", add_special_tokens=False).input_ids
    rows = encoder.get_input_embeddings().weight[ids].detach()
    known = context({"text_encoder": rows}, "pet")
    assert torch.equal(
        encode(model, "a pet dog", None, context=known).positive,
        encode(model, "a red cat dog", None).positive,
    )


def test_a_token_is_weighed_like_a_word(model: Model) -> None:
    """All of its vectors."""
    known = context(vectors(2, "text_encoder"), "pet")
    plain = encode(model, "a pet", None, context=known).positive
    weighed = encode(model, "a (pet:2)", None, context=known).positive
    changed = (plain != weighed).any(dim=-1)[0]
    assert changed[2:4].all()
    torch.testing.assert_close(weighed[:, 2:4] / weighed[:, :1], 2 * plain[:, 2:4] / plain[:, :1])


def test_vectors_are_not_cut(model: Model) -> None:
    """A token that finds no room in a chunk begins the next."""
    known = context(vectors(3, "text_encoder"), "pet")
    crossing = encode(model, "cat " * 73 + "pet", None, context=known).positive
    apart = encode(model, "cat " * 73 + "BREAK pet", None, context=known).positive
    assert crossing.shape == (1, 154, 32)
    assert torch.equal(crossing, apart)


def test_only_the_job_knows_it(model: Model) -> None:
    """Neither tokenizer nor embeddings are changed, and other prompts stay as they were."""
    encoder, tokenizer = model.text_encoders["text_encoder"], model.tokenizers["tokenizer"]
    before, size = encoder.get_input_embeddings().weight.clone(), len(tokenizer)
    plain = encode(model, "a pet", None).positive
    known = context(vectors(2, "text_encoder"), "pet")
    assert not torch.equal(encode(model, "a pet", None, context=known).positive, plain)
    assert torch.equal(
        encode(model, "a cat", None, context=known).positive, encode(model, "a cat", None).positive
    )
    assert torch.equal(encode(model, "a pet", None).positive, plain)
    assert torch.equal(encoder.get_input_embeddings().weight, before)
    assert len(tokenizer) == size
    assert not encoder.get_input_embeddings()._forward_hooks
