"""Which steps have a LoRA: message <-> domain, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sdgrpc.api.rules import Complaint, given
from sdgrpc.domain import StepRange
from sdgrpc.v1 import diffusion_pb2 as pb

START, END = 0.0, 1.0
"""What it means that a LoRA is asked for without one of them."""


def share(message: pb.Lora, field: str) -> float:
    """The `start` or `end` of a LoRA."""
    return given(message, field, START if field == "start" else END)


def rising(message: pb.Lora) -> Iterator[Complaint]:
    """Begin before the end."""
    start, end = share(message, "start"), share(message, "end")
    if start >= end:
        if message.HasField("end"):
            yield ".end", f"{end:g} is not above the start, {start:g}"
        else:
            yield ".start", f"{start:g} is not below the end, {end:g}"


def step_ranges(steps: Sequence[StepRange]) -> list[pb.StepRange]:
    """The messages of steps."""
    return [pb.StepRange(first=each.first, last=each.last) for each in steps]
