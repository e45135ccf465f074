"""W' = W + U D, for all low-rank changes of one weight at once; rounded once to the weight's dtype.

In float32: the product of a piece that stays in the cache is made, W is added and the sum rounded.
oneDNN makes it where it has AVX-512, which on a processor that MKL is not written for is up to twice as fast;
elsewhere the product is added to a copy of the piece. Where W is bfloat16 and the processor multiplies that,
one call per piece adds the product of bfloat16 factors to W in float32 and rounds.

Rounding the factors changes U D by 0.0024 of its norm. What rounding W' does anyway is 0.0017 of the norm of
W', so for a small U D it hardly matters: `SMALL` is where the whole error grows by 1.5 %. Of larger changes
the factors are split into a high and a low part each, U = Uh + Ul and D = Dh + Dl, and U D is taken as
Uh Dh + Uh Dl + Ul Dh (Dekker 1971, https://doi.org/10.1007/BF01397083), which is as good as float32 but for
one number in some thousands. `python -m benchmarks.lora_sets.rounding` prints these errors.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdgrpc.machine.onednn.linear import MULTIPLY, multiplies_float32
from sdgrpc.machine.processor import has_bfloat16

PIECE = 1 << 19
"""Numbers that a thread fuses at a time on the CPU in float32: two MiB stay in the cache."""

ONEDNN_PIECE = 1 << 20
"""The same where oneDNN makes the products, whose calls cost more: four MiB."""

BFLOAT16_PIECE = 3 << 19
"""The same in bfloat16: three MiB."""

FEWEST_ROWS = 128
"""Rows that such a piece has at least: with fewer, bringing `down` into order costs more than it saves."""

SMALL = 0.125
"""|U D| / |W| up to which the factors are rounded to bfloat16, where that is faster."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """The low-rank changes of one weight: factors `(out, r)` and `(r, columns)` of each in float32.

    `ups` have strengths and scales inside; `norm` is at least that of the sum of the products.
    """

    ups: Sequence[Tensor]
    downs: Sequence[Tensor]
    norm: float

    def joined(self) -> tuple[Tensor, Tensor]:
        """One product over the concatenated ranks."""
        return join(self.ups, 1), join(self.downs, 0)

    def in_bfloat16(self, weight_norm: float) -> tuple[Tensor, Tensor]:
        """The same in bfloat16: rounded, or of three times the rank where it is large for its weight."""
        ups, downs = [up.bfloat16() for up in self.ups], [down.bfloat16() for down in self.downs]
        if self.norm > SMALL * weight_norm:
            high_up, high_down = list(ups), list(downs)
            ups += high_up + [(up - high).bfloat16() for up, high in zip(self.ups, high_up, strict=True)]
            downs += [(down - high).bfloat16() for down, high in zip(self.downs, high_down, strict=True)]
            downs += high_down
        return join(ups, 1), join(downs, 0)


def join(tensors: Sequence[Tensor], dimension: int) -> Tensor:
    """Concatenate; a single tensor is taken as it is."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dimension)


class Workspaces(threading.local):
    """A thread's float32 memory per device: used again and again, so its pages stay warm."""

    def __init__(self) -> None:
        self._memory: dict[torch.device, Tensor] = {}

    def like(self, matrix: Tensor) -> Tensor:
        """Return memory of that shape on that device, whatever it holds."""
        memory = self._memory.get(matrix.device)
        if memory is None or memory.numel() < matrix.numel():
            memory = torch.empty(matrix.numel(), dtype=torch.float32, device=matrix.device)
            self._memory[matrix.device] = memory
        return memory[: matrix.numel()].view(matrix.shape)


class Products:
    """Adds changes to weights. Thread safe; each thread has a float32 workspace of its own."""

    def __init__(self) -> None:
        self._workspaces = Workspaces()

    def add(
        self, weight: Tensor, weight_norm: float, product: LowRank | None, added: Tensor | None, out: Tensor
    ) -> None:
        """Write `weight + product + added` into `out`; all `(out, columns)`, `added` in float32."""
        if product is not None and added is None and multiplies_bfloat16(weight):
            up, down = product.in_bfloat16(weight_norm)
            for rows in pieces(weight, BFLOAT16_PIECE, FEWEST_ROWS):
                torch.addmm(weight[rows], up[rows], down, out=out[rows])
            return
        joined = product.joined() if product is not None else None
        if joined is not None and weight.device.type == "cpu" and multiplies_float32():
            add_by_onednn(weight, joined, added, out)
            return
        for rows in pieces(weight, PIECE):
            total = out[rows] if out.dtype == torch.float32 else self._workspaces.like(out[rows])
            total.copy_(weight[rows])
            if added is not None:
                total.add_(added[rows])
            if joined is not None:
                total.addmm_(joined[0][rows], joined[1])
            if out.dtype != torch.float32:
                out[rows].copy_(total)


def add_by_onednn(weight: Tensor, factors: tuple[Tensor, Tensor], added: Tensor | None, out: Tensor) -> None:
    """Write `weight + up @ down + added` into `out` on the CPU, as `Products.add`; the sums are float32's."""
    up, down = factors[0], factors[1].T.contiguous()
    for rows in pieces(weight, ONEDNN_PIECE):
        change: Tensor = MULTIPLY(up[rows], down, None, "none", [], "")
        if added is not None:
            change.add_(added[rows])
        if out.dtype == torch.float32:
            torch.add(weight[rows], change, out=out[rows])
        else:
            out[rows].copy_(change.add_(weight[rows]))


def multiplies_bfloat16(weight: Tensor) -> bool:
    """Whether a weight is in bfloat16 and the CPU that it is on computes in it."""
    return weight.dtype == torch.bfloat16 and weight.device.type == "cpu" and has_bfloat16(weight.device)


def pieces(matrix: Tensor, size: int, fewest: int = 1) -> list[slice]:
    """Cut a matrix into ranges of rows: on the CPU of at most `size` numbers, elsewhere one.

    A piece has `fewest` rows at least, the last one aside, whatever they come to.
    """
    rows, columns = matrix.shape
    if matrix.device.type != "cpu":
        return [slice(0, rows)]
    step = max(fewest, size // columns)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
