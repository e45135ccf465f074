"""A module's tensors by their roles, and what they say about its weight."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

Tensors = Mapping[str, Tensor]


class BadTensors(ValueError):
    """The tensors of a module contradict each other. `role` is the one to blame."""

    def __init__(self, role: str, fault: str) -> None:
        super().__init__(fault)
        self.role = role


@dataclass(frozen=True, slots=True)
class Size:
    """What a module's tensors say about its weight; None is not told.

    `inputs` is the weight's second dimension, `kernel` what follows, `columns` their product, which is a
    multiple of `step`. Some formats tell only bounds: `least_rows`, `least_columns`, `most_columns`, and
    `least_numbers` of the whole weight; `row_counts` are the only numbers of rows, where there are any.
    """

    rows: int | None = None
    columns: int | None = None
    kernel: tuple[int, ...] = ()
    inputs: int | None = None
    step: int = 1
    least_rows: int = 0
    least_columns: int = 0
    least_numbers: int = 0
    most_columns: int | None = None
    row_counts: tuple[int, ...] = ()

    def fits(self, weight: tuple[int, ...]) -> bool:
        """Whether a weight of this shape can be meant. Linear and 1x1 convolution are the same."""
        columns = math.prod(weight[1:])
        if self.rows not in (None, weight[0]) or self.columns not in (None, columns) or columns % self.step:
            return False
        if self.row_counts and weight[0] not in self.row_counts:
            return False
        if weight[0] < self.least_rows or columns < self.least_columns:
            return False
        if weight[0] * columns < self.least_numbers or columns > (self.most_columns or columns):
            return False
        if self.inputs is not None and self.inputs != (weight[1] if len(weight) > 1 else 1):
            return False
        return len(self.kernel) == 0 or len(weight) != 4 or self.kernel == weight[2:]

    def __str__(self) -> str:
        rows = "any" if self.rows is None else self.rows
        columns = self.columns if self.columns is not None else self.inputs
        return f"{rows} x {'any' if columns is None else columns}"


def expect(tensors: Tensors, role: str, *dimensions: int) -> Tensor:
    """Return a tensor of a role if it has one of these numbers of dimensions and is not empty.

    Raises:
        BadTensors: it has not.

    """
    tensor = tensors[role]
    if tensor.ndim not in dimensions or tensor.numel() == 0:
        raise BadTensors(role, f"has the shape {list(tensor.shape)}, which its format does not know")
    return tensor


def scale(tensors: Tensors, rank: int) -> float:
    """Return a = alpha / r; 1 without alpha; what `.scale` says where a file has it.

    An alpha of 0 stays 0, as in A1111 and ComfyUI.
    """
    if "scale" in tensors:
        return float(tensors["scale"].item())
    alpha = tensors.get("alpha")
    return 1.0 if alpha is None else float(alpha.item()) / rank
