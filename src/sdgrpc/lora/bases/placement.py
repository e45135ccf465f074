"""Finds for each module of a file its module of a model."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from torch.nn.functional import pad

from sdgrpc.lora.algorithms.registry import LORA
from sdgrpc.lora.bases.architectures import VARIANT_INPUTS
from sdgrpc.lora.bases.module_names import CONV_IN, Module, NameIndex
from sdgrpc.lora.dialects.adapter import Adapter, AdapterModule

INPAINTING_INPUTS = 5
"""Inputs that an inpainting model has besides the latent: the mask and the four of the masked picture."""


@dataclass(frozen=True)
class Placed:
    """A module of the file and the module of the model that it changes."""

    source: AdapterModule
    target: Module

    @cached_property  # a set asks each of its modules several times
    def parameters(self) -> list[tuple[str, str]]:
        """What it changes: (component, parameter name) of the weight, the bias, or both."""
        path = self.target.path
        names = [f"{path}.weight"] if self.source.changes_weight else []
        if self.changes_bias:
            names.append(f"{path}.bias")
        return [(self.target.component, name) for name in names]

    @property
    def changes_bias(self) -> bool:
        """Whether the file changes the bias and the model has one of that size."""
        if self.source.algorithm.weighted_bias is not None and self.target.bias is not None:
            return True
        role = self.source.bias_role
        return role is not None and self.target.bias == (self.source.tensors[role].numel(),)

    @property
    def key(self) -> str:
        """One of the file's keys of this module."""
        return next(iter(self.source.keys.values()))

    @property
    def fault(self) -> str:
        """What to say where the shapes do not fit."""
        size = self.source.size
        return (
            f"module {self.source.spelling!r} is for a weight of {size}; "
            f"{self.target.path} has the shape {list(self.target.weight)} ({self.key!r})"
        )


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a file's modules go. `misfits` found their name but another shape, `unplaced` not even that.

    A `conv_in` of another variant of the base (inpainting, depth, editing) is unplaced, no fault of the file.

    `repeated` are modules that the file holds twice, under diffusers' and LDM's names: LDM's are dropped.
    """

    placed: tuple[Placed, ...]
    misfits: tuple[Placed, ...]
    unplaced: tuple[AdapterModule, ...]
    repeated: tuple[AdapterModule, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every module found its place."""
        return not self.misfits and not self.unplaced

    @property
    def share(self) -> float:
        """The share of modules that found their place, 0 to 1."""
        total = len(self.placed) + len(self.misfits) + len(self.unplaced)
        return len(self.placed) / total if total else 0.0

    def unmatched(self, adapter: Adapter) -> list[str]:
        """Return the keys of the file that found no place."""
        keys = list(adapter.unmatched)
        for module in self.unplaced:
            keys += module.keys.values()
        for placed in self.misfits:
            keys += placed.source.keys.values()
        for placed in self.placed:
            if placed.source.bias_role is not None and not placed.changes_bias:
                keys.append(placed.source.keys[placed.source.bias_role])
        return sorted(keys)


def place(adapter: Adapter, index: NameIndex) -> Placement:
    """Look every module of `adapter` up in `index`."""
    taken: dict[tuple[str, str], Placed] = {}
    misfits: list[Placed] = []
    unplaced: list[AdapterModule] = []
    repeated: list[AdapterModule] = []
    for source in adapter.modules:
        candidates = [Placed(widen(source, target), target) for target in index.find(source.spelling)]
        placed = next((each for each in candidates if each.source.fits(each.target.weight)), None)
        if placed is None and candidates and not _is_of_variant(source, candidates[0].target):
            misfits.append(candidates[0])
        elif placed is None or not placed.parameters:
            unplaced.append(source)
        else:
            other = taken.setdefault((placed.target.component, placed.target.path), placed)
            if other is placed:
                continue
            if other.target.spelled_ldm == placed.target.spelled_ldm:
                unplaced.append(source)
                continue
            keep, drop = (other, placed) if placed.target.spelled_ldm else (placed, other)
            taken[placed.target.component, placed.target.path] = keep
            repeated.append(drop.source)
    return Placement(tuple(taken.values()), tuple(misfits), tuple(unplaced), tuple(repeated))


def _is_of_variant(source: AdapterModule, target: Module) -> bool:
    """Whether it is for the `conv_in` of another variant of the base, whose other modules are the same."""
    rows, columns = target.weight[0], source.size.columns or 0
    return (
        target.path == CONV_IN
        and len(target.weight) == 4
        and source.size.rows == rows
        and any(columns == inputs * math.prod(target.weight[2:]) for inputs in (4, *VARIANT_INPUTS))
    )


def widen(source: AdapterModule, target: Module) -> AdapterModule:
    """Let a LoRA of an ordinary `conv_in` fit an inpainting model's, which has nine inputs instead of four.

    The five further ones, mask and masked picture, are left as they are, as A1111 does.
    """
    weight = target.weight
    if target.path != CONV_IN or source.algorithm is not LORA or len(weight) != 4 or "mid" in source.tensors:
        return source
    down = source.tensors["down"]
    missing = weight[1] - down.shape[1]
    if missing != INPAINTING_INPUTS or source.has_dora or down.ndim != 4 or "bias_values" in source.tensors:
        return source
    tensors = {**source.tensors, "down": pad(down, (0, 0, 0, 0, 0, missing))}
    return replace(source, tensors=tensors, size=source.algorithm.size(tensors))
