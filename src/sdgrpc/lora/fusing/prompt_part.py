"""What a LoRA set means for prompts: other weights in the text encoders, and words of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from sdgrpc.lora.bases.module_names import TEXT_ENCODER, TEXT_ENCODER_2
from sdgrpc.lora.dialects.tokens import Vectors, Vocabulary
from sdgrpc.lora.fusing.fuser import Member
from sdgrpc.lora.fusing.lora_set import SetMember


@dataclass(frozen=True, eq=False)
class PromptPart:
    """What a set means for prompts.

    Attributes:
        text_encoders: what tells the weights of its text encoders from any other's; empty for the pristine
            ones. Sets that differ in the U-Net alone share it.
        tokens: name in lower case -> vectors, of the members that have a strength.
        disputed: names that two members give different vectors: which is meant cannot be said.

    """

    text_encoders: str = ""
    tokens: Mapping[str, Vectors] = field(default_factory=dict)
    disputed: frozenset[str] = frozenset()


NO_PROMPT_PART = PromptPart()


def prompt_part(members: Sequence[tuple[SetMember, Member]]) -> PromptPart:
    """Return what a set of these members means for prompts."""
    tokens, disputed = merged(member.placed_file.vocabulary for _, member in members)
    changing = sorted(
        f"{asked.file.identity} {_strengths(member)}"
        for asked, member in members
        if member.changes_text_encoders
    )
    key = hashlib.sha256("\n".join(changing).encode()).hexdigest() if changing else ""
    return PromptPart(key, tokens, disputed)


def _strengths(member: Member) -> str:
    """Those on each text encoder that has one of its own."""
    factors = member.block_factors
    blocks = [f" {part}*{factors[part]!r}" for part in (TEXT_ENCODER, TEXT_ENCODER_2) if part in factors]
    return f"{member.text_encoder_strength!r}{''.join(blocks)}"


def merged(vocabularies: Iterable[Vocabulary]) -> tuple[dict[str, Vectors], frozenset[str]]:
    """Return the tokens of several files as one vocabulary, and those that they dispute, in lower case."""
    tokens: dict[str, Vectors] = {}
    disputed = set()
    for vocabulary in vocabularies:
        for name, vectors in vocabulary.usable.items():
            known = tokens.setdefault(name.lower(), vectors)
            if any(not torch.equal(known[component], vectors[component]) for component in vectors):
                disputed.add(name.lower())
    return {name: vectors for name, vectors in tokens.items() if name not in disputed}, frozenset(disputed)
