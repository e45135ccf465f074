"""The mathematics of the additive algorithms: a module's tensors -> what strength 1 adds to its weight.

Notation, after LyCORIS (https://github.com/KohakuBlueleaf/LyCORIS): W is `(out, in[, kh, kw])` and `columns`
is `in * kh * kw`, r the rank, a = alpha / r (1 where a file gives no alpha). Strength s adds s times as much.
Every function computes in the dtype of the tensors it is given (float32 when fusing, float64 in tests) and
returns `(out, columns)`, or two factors whose product is that. Beside each stands a function that checks the
shapes of the tensors and says which weight they are for. `multiplicative` has the algorithms that need W.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdgrpc.lora.algorithms.tensors import BadTensors, Size, Tensors, expect, scale


def lora_size(tensors: Tensors) -> Size:
    """Check the factors of a LoRA.

    Raises:
        BadTensors: a shape or the ranks contradict the format.

    """
    up, down = expect(tensors, "up", 2, 4), expect(tensors, "down", 2, 4)
    mid = expect(tensors, "mid", 4) if "mid" in tensors else None
    if up.ndim == 4 and up.shape[2:] != (1, 1):
        raise BadTensors("up", f"has the shape {list(up.shape)}; an up factor's kernel is 1x1")
    if mid is not None and math.prod(down.shape[2:]) != 1:
        raise BadTensors("down", f"has the shape {list(down.shape)}; beside a core its kernel is 1x1")
    first, second = (down.shape[0],) * 2 if mid is None else mid.shape[:2]
    if up.shape[1] != first or down.shape[0] != second:
        raise BadTensors("up", f"has rank {up.shape[1]}, but its partner has rank {down.shape[0]}")
    kernel = tuple((down if mid is None else mid).shape[2:])
    return Size(up.shape[0], down.shape[1] * math.prod(kernel), kernel)


def lora_rank(tensors: Tensors) -> int:
    """Return r, the number of rows of down."""
    return tensors["down"].shape[0]


def lora(tensors: Tensors) -> tuple[Tensor, Tensor]:
    """LoRA and LoCon: dW = a * flat(up) @ flat(down). Hu et al. 2021, https://arxiv.org/abs/2106.09685.

    down `(r, in[, kh, kw])`, up `(out, r[, 1, 1])`. With Tucker's core mid `(r, r, kh, kw)` and down
    `(r, in, 1, 1)`: dW = a * einsum("mnkl,im,nj->ijkl", mid, up, down), which is up times (mid, down).

    Returns:
        a * up `(out, r)` and down `(r, columns)`.

    """
    up, down, mid = tensors["up"].flatten(1), tensors["down"].flatten(1), tensors.get("mid")
    if mid is not None:
        down = torch.einsum("mnkl,nj->mjkl", mid, down).flatten(1)
    return up * scale(tensors, lora_rank(tensors)), down


def loha_size(tensors: Tensors) -> Size:
    """Check the factors of a LoHa.

    Raises:
        BadTensors: a shape or the ranks contradict the format.

    """
    if ("hada_t1" in tensors) != ("hada_t2" in tensors):
        role = "hada_t1" if "hada_t1" in tensors else "hada_t2"
        raise BadTensors(role, "has no partner: Tucker's cores come in pairs")
    sizes = [_pair_size(tensors, f"hada_w{n}_a", f"hada_w{n}_b", f"hada_t{n}") for n in (1, 2)]
    if sizes[0] != sizes[1]:
        raise BadTensors("hada_w2_a", f"and its partner are for {sizes[1]}, the first pair for {sizes[0]}")
    return sizes[0]


def _pair_size(tensors: Tensors, a: str, b: str, core: str) -> Size:
    """Size of `a @ b`, or with Tucker's core of einsum("ijkl,jr,ip->prkl", core, b, a)."""
    left, right = expect(tensors, a, 2), expect(tensors, b, 2, 4).flatten(1)
    if core in tensors:
        middle = expect(tensors, core, 4)
        if middle.shape[0] != left.shape[0] or middle.shape[1] != right.shape[0]:
            raise BadTensors(core, f"has the shape {list(middle.shape)}, which its factors do not fit")
        kernel = tuple(middle.shape[2:])
        return Size(left.shape[1], right.shape[1] * math.prod(kernel), kernel)
    if left.shape[1] != right.shape[0]:
        raise BadTensors(a, f"has rank {left.shape[1]}, but its partner has rank {right.shape[0]}")
    return Size(left.shape[0], right.shape[1])


def _pair(tensors: Tensors, a: str, b: str, core: str) -> Tensor:
    """Multiply a pair of factors: `(rows, columns)`."""
    left, right = tensors[a], tensors[b].flatten(1)
    if core in tensors:
        product = torch.einsum("ijkl,jr,ip->prkl", tensors[core], right, left)
        return product.contiguous().flatten(1)
    return left @ right


def loha_rank(tensors: Tensors) -> int:
    """Return r, the number of rows of w1_b."""
    return tensors["hada_w1_b"].shape[0]


def loha(tensors: Tensors) -> Tensor:
    """LoHa: dW = a * (w1_a @ w1_b) * (w2_a @ w2_b), elementwise. FedPara, https://arxiv.org/abs/2108.06098.

    w1_a, w2_a `(out, r)`; w1_b, w2_b `(r, columns)`; r = w1_b.shape[0]. With Tucker's cores t1, t2
    `(r, r, kh, kw)` each product is einsum("ijkl,jr,ip->prkl", t, w_b, w_a), w_a `(r, out)`, w_b `(r, in)`.
    """
    first = _pair(tensors, "hada_w1_a", "hada_w1_b", "hada_t1")
    second = _pair(tensors, "hada_w2_a", "hada_w2_b", "hada_t2")
    return first * second * scale(tensors, loha_rank(tensors))


def lokr_size(tensors: Tensors) -> Size:
    """Check the factors of a LoKr.

    Raises:
        BadTensors: a factor is missing, or a shape or the ranks contradict the format.

    """
    first, second = _kronecker_size(tensors, 1), _kronecker_size(tensors, 2)
    return Size(first[0] * second[0], first[1] * second[1])


def _kronecker_size(tensors: Tensors, number: int) -> tuple[int, int]:
    whole, a, b = (f"lokr_w{number}{part}" for part in ("", "_a", "_b"))
    if whole in tensors:
        tensor = expect(tensors, whole, 2, 4)
        return tensor.shape[0], tensor[0].numel()
    if a not in tensors or b not in tensors:
        there = next(role for role in tensors if role.startswith("lokr_"))
        raise BadTensors(there, f"is there without its partners: {whole}, or {a} and {b}, is missing")
    size = _pair_size(tensors, a, b, f"lokr_t{number}")
    assert size.rows is not None and size.columns is not None  # noqa: S101, PT018 - a pair tells both
    return size.rows, size.columns


def lokr_rank(tensors: Tensors) -> int | None:
    """Return r, the rows of w2_b, else of w1_b; None where both factors are whole."""
    for role in ("lokr_w2_b", "lokr_w1_b"):
        if role in tensors:
            return tensors[role].shape[0]
    return None


def lokr_scale(tensors: Tensors) -> float:
    """Return a; 1 where both factors are whole, unless `.scale` says otherwise."""
    rank = lokr_rank(tensors)
    if rank is None:
        return float(tensors["scale"].item()) if "scale" in tensors else 1.0
    return scale(tensors, rank)


def lokr_factors(tensors: Tensors) -> tuple[Tensor, Tensor]:
    """Return a * w1 and w2, both flat, whose Kronecker product is the change."""
    first, second = (
        tensors[f"lokr_w{n}"].flatten(1)
        if f"lokr_w{n}" in tensors
        else _pair(tensors, f"lokr_w{n}_a", f"lokr_w{n}_b", f"lokr_t{n}")
        for n in (1, 2)
    )
    return first * lokr_scale(tensors), second


def lokr(tensors: Tensors) -> Tensor:
    """LoKr: dW = a * kron(w1, w2), reshaped to W. Yeh et al. 2023, https://arxiv.org/abs/2309.14859.

    Each factor is whole or w_a @ w_b, w2 also with Tucker's core t2 (as in LoHa). r = w2_b.shape[0], else
    w1_b.shape[0]; where both are whole alpha is ignored and a = 1, unless `.scale` or PEFT's configuration
    tells it. w2 may have the kernel `(o, i, kh, kw)`; in files of 2023 the kernel is split over both factors.
    Flattening both gives the same in every case.
    """
    first, second = lokr_factors(tensors)
    return torch.kron(first.contiguous(), second.contiguous())
