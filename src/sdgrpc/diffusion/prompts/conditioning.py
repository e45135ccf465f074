"""Prompts to embeddings, each encoded once as long as it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.cache import Encoded, PromptCache
from sdgrpc.diffusion.prompts.chunks import Chunk
from sdgrpc.diffusion.prompts.reading import PLAIN, PromptContext, ReadPrompt, read
from sdgrpc.diffusion.prompts.text_encoding import encode_chunks
from sdgrpc.errors import FieldViolation, InvalidRequest

MAX_CHUNKS_OF_PARTS = 64
"""Twice those of one text: what a step keeps of a prompt's parts is then no more than of two prompts."""


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What the UNet is told about the prompt.

    `positive` is `[k, T, D]` with T a multiple of 77, for k parts of the prompt with their `weights`; a
    prompt without AND has one, of weight 1. `negative` is `[1, T, D]`, or None where the UNet need not be
    asked about it. `pooled` `[k, P]` and `negative_pooled` `[1, P]` are the prompts as a whole, which only
    SDXL is told.
    """

    positive: Tensor
    negative: Tensor | None = None
    pooled: Tensor | None = None
    negative_pooled: Tensor | None = None
    weights: tuple[float, ...] = (1.0,)

    @property
    def tensors(self) -> list[Tensor]:
        """All that are there."""
        every = (self.positive, self.negative, self.pooled, self.negative_pooled)
        return [one for one in every if one is not None]

    @property
    def token_count(self) -> int:
        """T: inputs can share a UNet call only if it is equal."""
        return int(self.positive.shape[1])


@torch.inference_mode()
def encode(
    model: Model,
    prompt: str | Sequence[tuple[str, float]],
    negative_prompt: str | None,
    clip_skip: int = 0,
    *,
    context: PromptContext = PLAIN,
    cache: PromptCache | None = None,
) -> Conditioning:
    """Encode a prompt, or its parts with their weights, and, unless it is None, what to keep away from.

    Plain prompts of up to 75 tokens give what diffusers gives. Longer ones are cut into chunks of 75, each
    encoded with its own begin and end token, and put after each other as A1111 does; what is shorter than the
    longest of all is filled with empty chunks. `prompt_syntax` says how words are weighed. `clip_skip` leaves
    out that many layers at the end of the text encoder, and like diffusers only for the positive prompt.

    SDXL concatenates what its two text encoders give in their last layer but one, from which `clip_skip`
    counts, and pools the first chunk. Where its configuration says so, an empty negative prompt is zeros.

    Args:
        model: whose text encoders run.
        prompt: what the picture shows, in the syntax of `prompt_syntax`; so is `negative_prompt`.
        negative_prompt: what to keep away from.
        clip_skip: layers to leave out.
        context: what LoRAs make of the prompts.
        cache: where encoded prompts are looked up and kept.

    Raises:
        InvalidRequest: `clip_skip` leaves no layer; a prompt weighs too much, is too long or uses a disputed
            token. It has every violation.

    """
    parts = [(prompt, 1.0)] if isinstance(prompt, str) else prompt
    prompts = [read(model, text, context) for text, _ in parts]
    avoided = None if negative_prompt is None else read(model, negative_prompt, context)
    _check(model, clip_skip, prompts, avoided)
    encoder = _Encoder(model, context, cache or PromptCache(0))
    count = max(one.count for one in (*prompts, avoided) if one is not None)
    positive = _together([encoder.encode(one, clip_skip, count) for one in prompts])
    told = Conditioning(positive.hidden, pooled=positive.pooled, weights=tuple(weight for _, weight in parts))
    if avoided is None:
        return told
    if not negative_prompt and model.force_zeros_for_empty_prompt and positive.pooled is not None:
        negative = Encoded(torch.zeros_like(positive.hidden[:1]), torch.zeros_like(positive.pooled[:1]))
    else:
        negative = encoder.encode(avoided, 0, count)
    return replace(told, negative=negative.hidden, negative_pooled=negative.pooled)


def _together(parts: Sequence[Encoded]) -> Encoded:
    """Put parts of one length under each other."""
    if len(parts) == 1:
        return parts[0]
    pooled = [one.pooled for one in parts if one.pooled is not None]
    return Encoded(torch.cat([one.hidden for one in parts]), torch.cat(pooled) if pooled else None)


def _check(model: Model, clip_skip: int, prompts: Sequence[ReadPrompt], avoided: ReadPrompt | None) -> None:
    faults = {fault: None for one in prompts for fault in one.faults}
    if len(prompts) > 1 and (count := len(prompts) * max(one.count for one in prompts)) > MAX_CHUNKS_OF_PARTS:
        faults[
            f"takes {count} chunks of 75 tokens, each part of AND as many as the longest; "
            f"the most is {MAX_CHUNKS_OF_PARTS}. Shorten the longest, or leave parts out"
        ] = None
    violations = [FieldViolation("prompt", fault) for fault in faults]
    violations += [FieldViolation("negative_prompt", fault) for fault in (avoided.faults if avoided else ())]
    layers = model.info.text_encoder_layers
    if not 0 <= clip_skip < layers:
        message = f"{clip_skip} is not in 0 to {layers - 1}; the text encoder has {layers} layers"
        violations.append(FieldViolation("sampling.clip_skip", message))
    if violations:
        raise InvalidRequest(violations)


@dataclass(frozen=True, eq=False)
class _Encoder:
    """Encodes prompts that are not in the cache."""

    model: Model
    context: PromptContext
    cache: PromptCache

    def encode(self, prompt: ReadPrompt, clip_skip: int, count: int) -> Encoded:
        """Return the prompt filled to `count` chunks with empty ones, each sort of which is kept for itself.

        What a prompt gives must not depend on the other one's length, or it could not be shared.
        """
        encoded = self._cached(prompt, clip_skip)
        missing = count - prompt.count
        if not missing:
            return encoded
        empty = self._cached(read(self.model, "", PLAIN), clip_skip)
        return Encoded(torch.cat([encoded.hidden, *[empty.hidden] * missing], dim=1), encoded.pooled)

    def _cached(self, prompt: ReadPrompt, clip_skip: int) -> Encoded:
        key = (
            self.model.info.name,
            self.context.text_encoders,
            clip_skip,
            prompt.text,
            prompt.learned,
        )
        encoded = self.cache.get(key)
        if encoded is None:
            encoded = self._encode(prompt, clip_skip)
            self.cache.put(key, encoded)
        return encoded

    def _encode(self, prompt: ReadPrompt, clip_skip: int) -> Encoded:
        """Run every text encoder; D is the sum over them."""
        self.context.activate()
        parts, pooled = [], None
        for name in self.model.text_encoders:
            chunks = [*prompt.chunks[name]]
            chunks += [Chunk()] * (prompt.count - len(chunks))
            learned = {token: vectors[name] for token, vectors in self.context.tokens.items()}
            hidden, pooled = encode_chunks(self.model, name, chunks, clip_skip, learned)
            parts.append(hidden)
        return Encoded(torch.cat(parts, dim=-1), pooled)
