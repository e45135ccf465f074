"""Strength grids: what is wrong with them, and what they mean for a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sdgrpc.api.rules import Complaint, given
from sdgrpc.domain import Task
from sdgrpc.domain.decimals import shortest
from sdgrpc.v1 import diffusion_pb2 as pb


def either(lora: pb.Lora) -> Iterator[Complaint]:
    """One strength, or one for each picture."""
    if lora.strength_grid and lora.HasField("strength"):
        yield ".strength_grid", "stands in place of `strength`; set one of the two"


def grid_faults(loras: Sequence[pb.Lora], sampling: pb.Sampling) -> Iterator[Complaint]:
    """One LoRA has a grid, of as many strengths as there are pictures, and none comes late."""
    grids = [index for index, lora in enumerate(loras) if lora.strength_grid]
    for index in grids[1:]:
        yield f"[{index}].strength_grid", f"only one LoRA has a grid, and loras[{grids[0]}] has one"
    for index in grids[:1]:
        count, pictures = len(loras[index].strength_grid), sampling.image_count
        if pictures not in (0, 1, count):  # clients write the default out
            sentence = f"has {count} strengths, and sampling.image_count is {pictures}; leave that unset"
            yield f"[{index}].strength_grid", sentence
        if sampling.late_start:
            yield f"[{index}].strength_grid", "takes no sampling.late_start: its pictures are compared"


def pairs(lora: pb.Lora) -> tuple[tuple[float, float], ...]:
    """Return the strength and that on the text encoders of each picture."""
    values = map(shortest, lora.strength_grid)
    return tuple((value, given(lora, "text_encoder_strength", value)) for value in values)


def variants(lora: pb.Lora) -> Iterator[pb.Lora]:
    """The LoRA as each picture has it."""
    if not lora.strength_grid:
        yield lora
    for value in lora.strength_grid:
        one = pb.Lora()
        one.CopyFrom(lora)
        del one.strength_grid[:]
        one.strength = value
        yield one


def counted(task: Task) -> Task:
    """Return a task that has as many images as its grid, if it has one."""
    if not task.grid:
        return task
    return replace(task, sampling=replace(task.sampling, image_count=len(task.grid)))
