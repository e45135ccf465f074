"""Prompts to embeddings: CLIP in chunks of 75 tokens, so that no prompt is cut."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from sdgrpc.diffusion.model import Model
from sdgrpc.errors import FieldViolation, InvalidRequest

# Token ids of one prompt, at most 75 in a chunk.
Chunks = list[list[int]]


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What the UNet is told about the prompt.

    `positive` is `[1, T, D]` with T a multiple of 77. `negative` has the same shape, or is None
    where guidance is off and the UNet need not be asked about it. `pooled` and `negative_pooled` `[1, P]` are
    the prompts as a whole, which only SDXL is told.
    """

    positive: torch.Tensor
    negative: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    negative_pooled: torch.Tensor | None = None

    @property
    def token_count(self) -> int:
        """T: inputs can share a UNet call only if it is equal."""
        return int(self.positive.shape[1])


@torch.inference_mode()
def encode(model: Model, prompt: str, negative_prompt: str | None, clip_skip: int = 0) -> Conditioning:
    """Encode a prompt and, unless it is None, what to keep away from.

    Prompts of up to 75 tokens give what diffusers gives. Longer ones are cut into chunks of 75, each
    encoded with its own begin and end token, and put after each other as A1111 does; the shorter of the
    two prompts is filled with empty chunks. `clip_skip` leaves out that many layers at the end of the text
    encoder, and like diffusers only for the positive prompt.

    SDXL concatenates what its two text encoders give in their last layer but one, from which `clip_skip`
    counts, and pools the first chunk. Where its configuration says so, an empty negative prompt is zeros.

    Raises:
        InvalidRequest: `clip_skip` leaves no layer.

    """
    _check_clip_skip(model, clip_skip)
    chunks = _all_chunks(model, prompt)
    if negative_prompt is None:
        positive, pooled = _encode_all(model, chunks, _chunk_count(chunks), clip_skip)
        return Conditioning(positive, pooled=pooled)
    negative_chunks = _all_chunks(model, negative_prompt)
    count = max(_chunk_count(chunks), _chunk_count(negative_chunks))
    positive, pooled = _encode_all(model, chunks, count, clip_skip)
    if not negative_prompt and model.force_zeros_for_empty_prompt and pooled is not None:
        return Conditioning(positive, torch.zeros_like(positive), pooled, torch.zeros_like(pooled))
    negative, negative_pooled = _encode_all(model, negative_chunks, count, 0)
    return Conditioning(positive, negative, pooled, negative_pooled)


def _all_chunks(model: Model, prompt: str) -> dict[str, Chunks]:
    """The prompt's chunks by each text encoder's own tokenizer, keyed as the encoders are."""
    return {
        encoder: token_chunks(model.tokenizers[encoder.replace("text_encoder", "tokenizer")], prompt)
        for encoder in model.text_encoders
    }


def _chunk_count(chunks: dict[str, Chunks]) -> int:
    return max(len(one) for one in chunks.values())


def _encode_all(
    model: Model, chunks: dict[str, Chunks], count: int, clip_skip: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """`[1, 77 * count, D]`, D summed over the text encoders, and SDXL's pooled `[1, P]`."""
    parts, pooled = [], None
    for name, encoder in model.text_encoders.items():
        tokenizer = model.tokenizers[name.replace("text_encoder", "tokenizer")]
        filled = _filled(chunks[name], count)
        if model.is_sdxl:
            hidden, pooled = _encode_chunks_sdxl(tokenizer, encoder, filled, clip_skip)
            parts.append(hidden)
        else:
            parts.append(_encode_chunks(tokenizer, encoder, filled, clip_skip))
    return torch.cat(parts, dim=-1), pooled


def token_chunks(tokenizer: CLIPTokenizer, prompt: str) -> Chunks:
    """The prompt's tokens in chunks of 75 (the tokenizer's length less begin and end); at least one."""
    size = tokenizer.model_max_length - 2
    tokens = tokenizer(prompt, add_special_tokens=False, truncation=False, verbose=False).input_ids
    return [tokens[start : start + size] for start in range(0, len(tokens), size)] or [[]]


def _check_clip_skip(model: Model, clip_skip: int) -> None:
    layers = model.info.text_encoder_layers
    if not 0 <= clip_skip < layers:
        message = f"{clip_skip} is not in 0 to {layers - 1}; the text encoder has {layers} layers"
        raise InvalidRequest([FieldViolation("sampling.clip_skip", message)])


def _filled(chunks: Chunks, count: int) -> Chunks:
    return chunks + [[] for _ in range(count - len(chunks))]


def _encode_chunks_sdxl(
    tokenizer: CLIPTokenizer, encoder: nn.Module, chunks: Chunks, clip_skip: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """As `_encode_chunks`, but the last layer but one without the final norm, and the first chunk pooled.

    Only the text encoder with a projection pools. No mask, as in diffusers' SDXL pipelines.
    """
    rows = [_padded(tokenizer, chunk, tokenizer.model_max_length)[0] for chunk in chunks]
    ids = torch.tensor(rows, device=next(encoder.parameters()).device)
    output = encoder(ids, output_hidden_states=True)
    hidden: torch.Tensor = output.hidden_states[-(clip_skip + 2)]
    pooled = getattr(output, "text_embeds", None)
    return hidden.reshape(1, ids.numel(), -1), None if pooled is None else pooled[:1]


def _encode_chunks(
    tokenizer: CLIPTokenizer, encoder: CLIPTextModel, chunks: Chunks, clip_skip: int
) -> torch.Tensor:
    """Encode each chunk on its own and put the results after each other: `[1, 77 * len(chunks), D]`."""
    length = tokenizer.model_max_length
    rows = [_padded(tokenizer, chunk, length) for chunk in chunks]
    device = next(encoder.parameters()).device
    ids = torch.tensor([row for row, _ in rows], device=device)
    mask = torch.tensor([used for _, used in rows], device=device) if _wants_mask(encoder) else None
    output = encoder(ids, attention_mask=mask, output_hidden_states=clip_skip > 0)
    if clip_skip == 0:
        hidden = output.last_hidden_state
    else:
        # Older transformers wrap the layers in `text_model`.
        layers = getattr(encoder, "text_model", encoder)
        hidden = layers.final_layer_norm(output.hidden_states[-(clip_skip + 1)])
    embeddings: torch.Tensor = hidden.reshape(1, len(chunks) * length, -1)
    return embeddings


def _padded(tokenizer: CLIPTokenizer, chunk: list[int], length: int) -> tuple[list[int], list[int]]:
    """Token ids of one text encoder call, and which of them are not padding."""
    tokens = [tokenizer.bos_token_id, *chunk, tokenizer.eos_token_id]
    padding = length - len(tokens)
    return tokens + [tokenizer.pad_token_id] * padding, [1] * len(tokens) + [0] * padding


def _wants_mask(encoder: CLIPTextModel) -> bool:
    return bool(getattr(encoder.config, "use_attention_mask", False))
