"""A file's low-rank factors on the device: for each stack of weights one batch of `up` and one of `down`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdgrpc.lora.bases.placement import Placed
from sdgrpc.lora.fusing.changes import CPU, factors
from sdgrpc.lora.resident.stacks import LiveWeights
from sdgrpc.lora.resident.uploading import Uploader
from sdgrpc.machine.matrices import in_order_of


@dataclass(frozen=True, eq=False)
class Batch:
    """The factors of weights of one stack: `up` `(k, out, r)` float32, `down` `(k, r, columns)`.

    `slots` are the weights' numbers in the stack, in ascending order; smaller ranks are filled up with zeros.
    `norms` are those of the products.
    """

    slots: tuple[int, ...]
    up: Tensor
    down: Tensor
    norms: tuple[float, ...]

    @property
    def rank(self) -> int:
        """The greatest rank."""
        return self.up.shape[2]


@dataclass(frozen=True, eq=False)
class FileFactors:
    """What a file changes by low-rank products: component -> number of the stack -> its batch.

    `largest` is the largest absolute value of a scaled `up`.
    """

    batches: Mapping[str, Mapping[int, Batch]]
    nbytes: int
    largest: float

    def norms(self, live: Mapping[str, LiveWeights]) -> dict[tuple[str, str], float]:
        """Frobenius norms of the products by (component, parameter)."""
        return {
            (component, live[component].stacks[number].names[slot]): norm
            for component, batches in self.batches.items()
            for number, batch in batches.items()
            for slot, norm in zip(batch.slots, batch.norms, strict=True)
        }


Pair = tuple[int, Tensor, Tensor]
"""A weight's number in its stack with its factors `(out, r)` and `(r, columns)`."""


def file_factors(
    placed: Sequence[Placed], live: Mapping[str, LiveWeights], uploader: Uploader
) -> FileFactors:
    """Bring a file's low-rank factors to the device, in one piece for each dtype.

    Scales (alpha / r) are inside `up`, which is float32; `down` has the file's dtype, where it is exact.
    """
    pairs: dict[tuple[str, int], list[Pair]] = defaultdict(list)
    for one in placed:
        if not (one.source.is_low_rank and one.source.changes_weight):
            continue
        component, name = one.target.component, f"{one.target.path}.weight"
        place = live[component].places.get(name)
        if place is not None:
            up, down = factors(one.source, CPU, torch.float32)
            down = in_order_of(live[component].pristine[name], down)
            exact = one.source.tensors.get("down")
            if exact is not None and exact.dtype.itemsize == 2 and "mid" not in one.source.tensors:
                down = down.to(exact.dtype)
            pairs[component, place.stack].append((place.index, up, down))
    keys = sorted(pairs)
    batched = [_batched(sorted(pairs[key], key=lambda pair: pair[0])) for key in keys]
    ups = uploader.upload([up for _, up, _ in batched])
    downs = uploader.upload([down for _, _, down in batched])
    uploader.wait()
    norms = _norms(ups, downs)
    made: dict[str, dict[int, Batch]] = defaultdict(dict)
    for (component, number), (slots, _, _), up, down, norm in zip(
        keys, batched, ups, downs, norms, strict=True
    ):
        made[component][number] = Batch(slots, up, down, norm)
    largest = max((float(up.abs().max()) for _, up, _ in batched), default=0.0)
    return FileFactors(dict(made), sum(one.nbytes for one in (*ups, *downs)), largest)


def _batched(pairs: Sequence[Pair]) -> tuple[tuple[int, ...], Tensor, Tensor]:
    """Stack factors, smaller ranks filled up with zeros, on the CPU."""
    rank = max(up.shape[1] for _, up, _ in pairs)
    dtypes = {down.dtype for _, _, down in pairs}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    up = torch.zeros(len(pairs), pairs[0][1].shape[0], rank)
    down = torch.zeros(len(pairs), rank, pairs[0][2].shape[1], dtype=dtype)
    for index, (_, one, other) in enumerate(pairs):
        up[index, :, : one.shape[1]] = one
        down[index, : other.shape[0]] = other
    return tuple(slot for slot, _, _ in pairs), up, down


def _norms(ups: Sequence[Tensor], downs: Sequence[Tensor]) -> list[tuple[float, ...]]:
    """Frobenius norms of the products: the root of the sum of (U'U) times (DD'), elementwise."""
    squares = []
    for up, down in zip(ups, downs, strict=True):
        wide = down.to(torch.float32)
        grams = (up.transpose(1, 2) @ up) * (wide @ wide.transpose(1, 2))
        squares.append(grams.sum(dim=(1, 2), dtype=torch.float64))
    if not squares:
        return []
    flat = torch.cat(squares).clamp(min=0).sqrt().cpu()
    return [tuple(part.tolist()) for part in torch.split(flat, [len(one) for one in squares])]
