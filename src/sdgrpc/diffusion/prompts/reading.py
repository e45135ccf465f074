"""A prompt as text encoders will see it: its chunks for each of them, and what is wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.chunks import Chunk, Word, chunks_of, words_of
from sdgrpc.diffusion.prompts.syntax import parse

MAX_CHUNKS = 32
"""The UNet attends to every token of every chunk: 2,464 of them."""

MAX_WEIGHT = 10.0
"""Nobody weighs a word with more; a year in brackets would be, and overflow."""


@dataclass(frozen=True, eq=False)
class PromptContext:
    """What a job's LoRAs make of its prompts.

    Attributes:
        text_encoders: what tells their weights from any other's; empty for the pristine ones.
        tokens: learned token, found in upper or lower case -> text encoder -> its vectors `[k, D]`.
        disputed: tokens that two LoRAs give different vectors.
        activate: puts the weights in place; called before a text encoder runs.
        refused: words of textual inversions that the model cannot use, and why.

    """

    text_encoders: str = ""
    tokens: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    disputed: frozenset[str] = frozenset()
    activate: Callable[[], None] = lambda: None
    refused: Mapping[str, str] = field(default_factory=dict)


PLAIN = PromptContext()


@dataclass(frozen=True, eq=False)
class ReadPrompt:
    """A prompt's chunks by text encoder, and a hash of each learned token that it uses."""

    text: str
    chunks: Mapping[str, Sequence[Chunk]]
    learned: tuple[tuple[str, str], ...]
    faults: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many chunks the text encoder with the most has."""
        return max(len(chunks) for chunks in self.chunks.values())


def read(model: Model, text: str, context: PromptContext) -> ReadPrompt:
    """Parse and tokenise a prompt for each text encoder of the model. What is wrong is in `faults`."""
    sections = _sections(text, context)
    words = [word for section in sections for word in section]
    used = sorted({word.text for word in words if word.is_learned})
    lengths = {name: len(next(iter(vectors.values()))) for name, vectors in context.tokens.items()}
    lengths |= dict.fromkeys((*context.disputed, *context.refused), 1)
    chunks = {
        encoder: chunks_of(model.tokenizer_of(encoder), sections, lengths) for encoder in model.text_encoders
    }
    known = tuple((name, fingerprint(context.tokens[name])) for name in used if name in context.tokens)
    faults, count = _faults(words, context), max(map(len, chunks.values()))
    if count > MAX_CHUNKS:
        faults.append(
            f"takes {count} chunks of 75 tokens; the most is {MAX_CHUNKS}. Each BREAK begins another"
        )
    return ReadPrompt(text, chunks, known, tuple(faults))


def word_faults(text: str, context: PromptContext) -> list[str]:
    """Say what is wrong with a prompt's words; how many chunks they take only a tokenizer knows."""
    return _faults([word for section in _sections(text, context) for word in section], context)


def _sections(text: str, context: PromptContext) -> list[list[Word]]:
    return words_of(parse(text), [*context.tokens, *context.disputed, *context.refused])


def _faults(words: Sequence[Word], context: PromptContext) -> list[str]:
    """Say what is wrong, without the prompt's words: they are nobody else's business."""
    said = []
    too_heavy = [word.weight for word in words if not abs(word.weight) <= MAX_WEIGHT]  # NaN is, too
    if too_heavy:
        said.append(
            f"weighs words with {too_heavy[0]:.4g}; the most is {MAX_WEIGHT:g}. "
            r"Write \( and \) for brackets that are text"
        )
    said += [
        f"uses the token {name!r}, which two LoRAs give different vectors; leave one of them out"
        for name in sorted({word.text for word in words if word.is_learned} & context.disputed)
    ]
    said += [
        f"uses the textual inversion {name!r}, which this model cannot: {context.refused[name]}"
        for name in sorted({word.text for word in words if word.is_learned and word.text in context.refused})
    ]
    return said


def fingerprint(vectors: Mapping[str, Tensor]) -> str:
    """Return what tells these vectors from any other."""
    digest = hashlib.sha256()
    for encoder, rows in sorted(vectors.items()):
        digest.update(f"{encoder} {rows.dtype} {tuple(rows.shape)} ".encode())
        digest.update(rows.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
