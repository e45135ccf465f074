"""The mathematics of newer methods that PEFT trains: changes made of products of low rank.

Notation as in `additive`: W is `(out, columns)`, flat and pristine; each function returns what strength 1
adds to it. PEFT trains these on linear layers, for which `columns` is the number of inputs. The tests compare
each with the layer that PEFT merges.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdgrpc.lora.algorithms.tensors import BadTensors, Size, Tensors, expect, scale

SMALLEST = 1e-4
"""What DeLoRA takes for the length of a shorter row."""


def delora_size(tensors: Tensors) -> Size:
    """Check the factors of a DeLoRA.

    Raises:
        BadTensors: a shape or the ranks contradict the format.

    """
    a, b = expect(tensors, "delora_A", 2), expect(tensors, "delora_B", 2)
    if b.shape[1] != a.shape[0]:
        raise BadTensors("delora_B", f"has rank {b.shape[1]}, but its partner has rank {a.shape[0]}")
    if tensors["delora_w_norm"].shape != a.shape[1:]:
        raise BadTensors("delora_w_norm", f"has the shape {list(tensors['delora_w_norm'].shape)}")
    if tensors["delora_lambda"].numel() != 1:
        raise BadTensors("delora_lambda", "is not one number")
    return Size(b.shape[0], a.shape[1])


def delora_rank(tensors: Tensors) -> int:
    """Return r, the rows of A."""
    return tensors["delora_A"].shape[0]


def delora(tensors: Tensors) -> tuple[Tensor, Tensor]:
    """DeLoRA: dW = (lambda / r) B diag(1 / (|a_i| |b_i|)) A diag(n). https://arxiv.org/abs/2503.18225.

    Bini et al. 2025. A `(r, in)` with rows a_i, B `(out, r)` with columns b_i; n `(in,)` are the norms of W's
    columns when it was trained, which the file holds.
    """
    a, b = tensors["delora_A"], tensors["delora_B"]
    lengths = a.norm(dim=1).clamp(min=SMALLEST) * b.norm(dim=0).clamp(min=SMALLEST)
    return b * (tensors["delora_lambda"].reshape(()) / a.shape[0] / lengths), a * tensors["delora_w_norm"]


def gralora_size(tensors: Tensors) -> Size:
    """Check the blocks of a GraLoRA.

    Raises:
        BadTensors: a shape or the ranks contradict the format.

    """
    a, b = expect(tensors, "gralora_A", 3), expect(tensors, "gralora_B", 3)
    count, _, rank = a.shape
    if b.shape[:2] != (count, rank) or rank % count:
        raise BadTensors("gralora_B", f"has the shape {list(b.shape)}, which A {list(a.shape)} does not fit")
    size = Size(count * b.shape[2], count * a.shape[1])
    if "gralora_A_general" in tensors:
        down, up = expect(tensors, "gralora_A_general", 2), expect(tensors, "gralora_B_general", 2)
        if up.shape != (size.rows, down.shape[0]) or down.shape[1] != size.columns:
            raise BadTensors(
                "gralora_B_general", f"has the shape {list(up.shape)}; the blocks are for {size}"
            )
    return size


def gralora_rank(tensors: Tensors) -> int:
    """Return the rank of the blocks and that of the whole, together."""
    general = tensors.get("gralora_A_general")
    return tensors["gralora_A"].shape[2] + (0 if general is None else general.shape[0])


def gralora(tensors: Tensors) -> Tensor:
    """GraLoRA: each of N x N blocks has a low-rank product of its own. https://arxiv.org/abs/2505.20355.

    Jung et al. 2025. A `(N, in / N, r)`, B `(N, r, out / N)`; with s = r / N block (j, n) is the transpose of
    A[n][:, j s : (j + 1) s] @ B[j][n s : (n + 1) s]. Hybrid GraLoRA adds a LoRA of the whole, `*_general`.
    """
    a, b = tensors["gralora_A"], tensors["gralora_B"]
    count, inputs, rank = a.shape
    share = rank // count
    blocks = torch.einsum(
        "nijs,jnso->joni",
        a.reshape(count, inputs, count, share),
        b.reshape(count, count, share, b.shape[2]),
    )
    change = blocks.reshape(count * b.shape[2], count * inputs)
    if "gralora_A_general" in tensors:
        change = change + tensors["gralora_B_general"] @ tensors["gralora_A_general"]
    return change * scale(tensors, gralora_rank(tensors))


def hira_size(tensors: Tensors) -> Size:
    """Check the factors of a HiRA.

    Raises:
        BadTensors: a shape or the ranks contradict the format.

    """
    a, b = expect(tensors, "hira_A", 2), expect(tensors, "hira_B", 2)
    if b.shape[1] != a.shape[0]:
        raise BadTensors("hira_B", f"has rank {b.shape[1]}, but its partner has rank {a.shape[0]}")
    return Size(b.shape[0], a.shape[1])


def hira_rank(tensors: Tensors) -> int:
    """Return r, the rows of A."""
    return tensors["hira_A"].shape[0]


def hira(weight: Tensor, tensors: Tensors) -> Tensor:
    """HiRA: dW = W * (B A), elementwise. Huang et al. 2025, https://openreview.net/forum?id=TwJrTz9cRS."""
    return weight * (tensors["hira_B"] @ tensors["hira_A"])


def vera_size(tensors: Tensors) -> Size:
    """Check a VeRA's vectors and the projections that all its modules share.

    Raises:
        BadTensors: the projections are too small.

    """
    rows, rank = expect(tensors, "vera_lambda_b", 1).shape[0], expect(tensors, "vera_lambda_d", 1).shape[0]
    a, b = expect(tensors, "vera_A", 2), expect(tensors, "vera_B", 2)
    if a.shape[0] != rank or b.shape[1] != rank or b.shape[0] < rows:
        raise BadTensors("vera_B", f"has the shape {list(b.shape)}; {rows} rows of rank {rank} are needed")
    return Size(rows, most_columns=a.shape[1])


def vera_rank(tensors: Tensors) -> int:
    """Return r, how many numbers lambda_d has."""
    return tensors["vera_lambda_d"].shape[0]


def vera(weight: Tensor, tensors: Tensors) -> Tensor:
    """VeRA: dW = diag(lambda_b) B diag(lambda_d) A. Kopiczko et al. 2023, https://arxiv.org/abs/2310.11454.

    A `(r, most inputs)` and B `(most outputs, r)` are shared by all modules; a layer takes its first columns
    and rows.
    """
    a, b = tensors["vera_A"][:, : weight.shape[1]], tensors["vera_B"][: weight.shape[0]]
    return (tensors["vera_lambda_b"][:, None] * b) @ (tensors["vera_lambda_d"][:, None] * a)
