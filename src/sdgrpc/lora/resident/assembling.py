"""The products of a set: its files' factors side by side, one batch for each stack of weights.

The ranks of the members are concatenated, so each weight is touched and rounded once, as in `fusing`: what
is added is one product. In bfloat16 and float16 the factors are rounded as `fusing.products` says: up to
|U D| / |W| = 1/8 to one number each, above to a high and a low part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from sdgrpc.lora.fusing.fuser import Member
from sdgrpc.lora.fusing.overlay import Product
from sdgrpc.lora.fusing.products import SMALL
from sdgrpc.lora.resident.factors import Batch, FileFactors
from sdgrpc.lora.resident.stacks import LiveWeights, Stack

Part = tuple[Batch, tuple[float, ...]]
"""The factors of a member for a stack, and its strength on each of the batch's weights."""


def assemble(
    members: Sequence[tuple[FileFactors, Member]],
    component: str,
    live: LiveWeights,
    chosen: Mapping[int, Collection[int]],
) -> tuple[Product, ...]:
    """Return the products of these files at these strengths for the `chosen` weights of one component.

    Args:
        members: the files, and how strong they are where.
        component: `unet`, `text_encoder` or `text_encoder_2`.
        live: its weights.
        chosen: number of the stack -> numbers of the weights in it; each is changed by one of the files.

    """
    parts: Mapping[int, list[Part]] = defaultdict(list)
    for file, member in members:
        for number, batch in file.batches.get(component, {}).items():
            paths = [live.stacks[number].names[slot].rpartition(".")[0] for slot in batch.slots]
            strengths = tuple(member.strength_at(component, path) for path in paths)
            parts[number].append((batch, strengths))
    return tuple(
        _product(number, live.stacks[number], parts[number], tuple(sorted(chosen[number])))
        for number in sorted(chosen)
    )


def _product(number: int, stack: Stack, parts: Sequence[Part], slots: tuple[int, ...]) -> Product:
    ups = [_spread(_times(batch.up, strengths), batch, slots) for batch, strengths in parts]
    downs = [_spread(batch.down, batch, slots) for batch, _ in parts]
    dtype = stack.live.dtype
    if dtype != torch.float32 and _is_large(stack, parts):
        up, down = torch.cat(ups, 2), torch.cat([one.to(torch.float32) for one in downs], 1)
        high_up, high_down = up.to(dtype), down.to(dtype)
        low_up, low_down = (up - high_up).to(dtype), (down - high_down).to(dtype)
        joined = torch.cat((high_up, high_up, low_up), 2), torch.cat((high_down, low_down, high_down), 1)
        return Product(number, slots, *joined)
    up = _joined([one.to(dtype) for one in ups], 2)
    return Product(number, slots, up, _joined([one.to(dtype) for one in downs], 1))


def _times(up: Tensor, strengths: tuple[float, ...]) -> Tensor:
    if len(set(strengths)) == 1:
        return up * strengths[0]
    return up * torch.tensor(strengths, dtype=up.dtype, device=up.device)[:, None, None]


def _spread(factor: Tensor, batch: Batch, slots: tuple[int, ...]) -> Tensor:
    """Return the factors for all these slots, zeros where the batch has none."""
    if batch.slots == slots:
        return factor
    wide = factor.new_zeros(len(slots), *factor.shape[1:])
    known = {slot: at for at, slot in enumerate(batch.slots)}
    shared = [(at, known[slot]) for at, slot in enumerate(slots) if slot in known]
    wide[[at for at, _ in shared]] = factor[[at for _, at in shared]]
    return wide


def _joined(tensors: Sequence[Tensor], dimension: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dimension)


def _is_large(stack: Stack, parts: Sequence[Part]) -> bool:
    """Whether the change of any weight is large beside the weight."""
    changes: dict[int, float] = defaultdict(float)
    for batch, strengths in parts:
        for slot, norm, strength in zip(batch.slots, batch.norms, strengths, strict=True):
            changes[slot] += abs(strength) * norm
    return any(change > SMALL * stack.norms[slot] for slot, change in changes.items())
