"""Parts of requests, from records and names."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from sdgrpc.domain import GuidanceInterval, SecondPass, SecondPassMode, StepReuse, Tiling, Variation
from sdgrpc.v1 import diffusion_pb2 as pb

_E = TypeVar("_E", bound=Enum)


def interval(interval: GuidanceInterval | None) -> pb.GuidanceInterval | None:
    """A part of the steps."""
    return None if interval is None else pb.GuidanceInterval(start=interval.start, end=interval.end)


def reuse(reuse: StepReuse | None) -> pb.StepReuse | None:
    """Which predictions are forecast."""
    return None if reuse is None else pb.StepReuse(every=reuse.every, order=reuse.order)


def variation(variation: Variation | None) -> pb.Variation | None:
    """Another seed."""
    return None if variation is None else pb.Variation(seed=variation.seed, strength=variation.strength)


def tiling(tiling: Tiling | str | None) -> pb.Tiling | None:
    """Which edges fit."""
    asked = Tiling.parse(tiling) if isinstance(tiling, str) else tiling
    return pb.Tiling(horizontal=asked.horizontal, vertical=asked.vertical) if asked else None


def second_pass(second: SecondPass | str) -> pb.SecondPass:
    """A second pass; raises ValueError where a text is none."""
    asked = SecondPass.parse(second) if isinstance(second, str) else second
    mode = SecondPassMode.PIXEL if asked.upscaler else asked.mode
    return pb.SecondPass(
        scale=asked.scale,
        width=asked.width,
        height=asked.height,
        strength=asked.strength,
        steps=asked.steps,
        mode=pb.SecondPassMode.Value(f"SECOND_PASS_MODE_{mode.name}"),
        upscaler=asked.upscaler,
    )


def member(kind: type[_E], field: str, value: _E | str | None) -> _E | None:
    """A member of an enum by its value; raises ValueError that names the field and the others."""
    if value is None or isinstance(value, kind):
        return value
    try:
        return kind(value)
    except ValueError:
        raise ValueError(
            f"{field}: no {value!r}; there are {', '.join(str(each.value) for each in kind)}"
        ) from None
