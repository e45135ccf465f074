"""Strengths by block as a caller writes them, are sent and told; the steps that a LoRA is told to have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sdgrpc.domain import StepRange
from sdgrpc.domain.blocks import NO_WEIGHTS, BlockWeights
from sdgrpc.domain.decimals import shortest
from sdgrpc.v1 import catalog_pb2 as pb_catalog
from sdgrpc.v1 import diffusion_pb2 as pb

BlockWeightsLike = BlockWeights | str | Sequence[float] | Mapping[str, Any] | None
"""`"OUTD"` or what else `lbw=` takes, a list of numbers, or a dictionary as for diffusers' `set_adapters`."""


def block_weights(value: BlockWeightsLike) -> BlockWeights:
    """Return what is meant; nothing is 1 everywhere. The server says what fits the model.

    >>> str(block_weights({"unet": {"mid": 0, "up": {"block_0": [1, 0.5]}}}))
    'unet.mid*0,unet.up.block_0.0*1,unet.up.block_0.1*0.5'

    Raises:
        ValueError: it is no text that can be read, or holds what is no number.

    """
    if value is None:
        return NO_WEIGHTS
    if isinstance(value, BlockWeights):
        return value
    if isinstance(value, str):
        return BlockWeights.parse(value)
    if isinstance(value, Mapping):
        return BlockWeights(blocks=tuple(sorted(_flat("", value))))
    return BlockWeights(values=tuple(_number("block_weights", each) for each in value))


def block_weights_message(weights: BlockWeights) -> pb.BlockWeights:
    """Return the contract's message."""
    return pb.BlockWeights(values=weights.values, preset=weights.preset, blocks=dict(weights.blocks))


def told(message: pb.BlockWeights) -> BlockWeights:
    """Return what a server tells of strengths by block."""
    blocks = sorted((name, shortest(value)) for name, value in message.blocks.items())
    return BlockWeights(tuple(map(shortest, message.values)), message.preset, tuple(blocks))


def steps_told(message: pb.LoraReport | pb_catalog.PlannedLora) -> tuple[StepRange, ...]:
    """Return which steps a LoRA is told to have."""
    return tuple(StepRange(steps.first, steps.last) for steps in message.steps)


def _flat(name: str, value: object) -> Iterator[tuple[str, float]]:
    """Name each number; the numbers of a list are those of a block's layers, and one alone is the block's."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 1 and not name.rpartition(".")[2].startswith("block_"):
            raise ValueError(f"block_weights: {name} has a list, which only blocks have, as {name}.block_0")
        for index, inner in enumerate(value):
            yield (f"{name}.{index}" if len(value) > 1 else name), _number(name, inner)
    else:
        yield name, _number(name, value)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"block_weights: {name} has {value!r}, which is no number")
    return float(value)
