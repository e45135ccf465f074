"""What a text encoder says of chunks of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.chunks import Chunk
from sdgrpc.diffusion.prompts.emphasis import emphasised


def encode_chunks(
    model: Model, name: str, chunks: Sequence[Chunk], clip_skip: int, learned: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor | None]:
    """Encode each chunk on its own and put the results after each other: `[1, 77 n, D]`, and SDXL's pooled.

    SDXL takes the last layer but one without the final norm, pools the first chunk where the encoder has a
    projection, and never masks. Weights are applied last; what is pooled has none, as in the web UI.

    Args:
        model: whose text encoder `name` runs.
        name: `text_encoder` or `text_encoder_2`.
        chunks: n of them, at least one.
        clip_skip: how many layers at the end are left out.
        learned: learned token -> its vectors `[k, D']` for this encoder.

    """
    tokenizer, encoder = model.tokenizer_of(name), model.text_encoders[name]
    rows = [_padded(tokenizer, chunk) for chunk in chunks]
    ids = torch.tensor([row for row, _ in rows], device=model.device)
    mask = None
    if _wants_mask(encoder) and not model.is_sdxl:
        mask = torch.tensor([used for _, used in rows], device=model.device)
    with _put_in(encoder, chunks, learned):
        output = encoder(ids, attention_mask=mask, output_hidden_states=model.is_sdxl or clip_skip > 0)
    pooled = None
    if model.is_sdxl:
        hidden = output.hidden_states[-(clip_skip + 2)]
        pooled = getattr(output, "text_embeds", None)
    elif clip_skip == 0:
        hidden = output.last_hidden_state
    else:
        # Older transformers wrap the layers in `text_model`.
        layers = getattr(encoder, "text_model", encoder)
        hidden = layers.final_layer_norm(output.hidden_states[-(clip_skip + 1)])
    hidden = emphasised(hidden, _weights(chunks, ids.shape[1]))
    return hidden.reshape(1, ids.numel(), -1), None if pooled is None else pooled[:1].clone()


@contextmanager
def _put_in(encoder: CLIPTextModel, chunks: Sequence[Chunk], learned: Mapping[str, Tensor]) -> Iterator[None]:
    """Let the embedding layer answer with learned vectors where chunks have them; its weights stay."""
    places = [(row, at, name) for row, chunk in enumerate(chunks) for at, name in chunk.learned]

    def replace(_: nn.Module, __: object, embeddings: Tensor) -> Tensor:
        changed = embeddings.clone()
        for row, at, name in places:
            vectors = learned[name].to(changed)
            changed[row, at + 1 : at + 1 + len(vectors)] = vectors  # after the begin
        return changed

    if not places:
        yield
        return
    hook = encoder.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()


def _padded(tokenizer: CLIPTokenizer, chunk: Chunk) -> tuple[list[int], list[int]]:
    """Token ids of one text encoder call, and which of them are not padding."""
    tokens = [tokenizer.bos_token_id, *chunk.ids, tokenizer.eos_token_id]
    padding = tokenizer.model_max_length - len(tokens)
    return tokens + [tokenizer.pad_token_id] * padding, [1] * len(tokens) + [0] * padding


def _weights(chunks: Sequence[Chunk], length: int) -> Tensor:
    weights = torch.ones(len(chunks), length)
    for row, chunk in enumerate(chunks):
        weights[row, 1 : 1 + len(chunk.weights)] = torch.tensor(chunk.weights)
    return weights


def _wants_mask(encoder: CLIPTextModel) -> bool:
    return bool(getattr(encoder.config, "use_attention_mask", False))
