"""The mathematics of newer methods that PEFT trains, where it stores all that they need.

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


def c3a_size(tensors: Tensors) -> Size:
    """Check the kernels of a C3A.

    Raises:
        BadTensors: they are no kernels.

    """
    rows, columns, block = expect(tensors, "c3a_kernel", 3).shape
    return Size(rows * block, columns * block)


def c3a(tensors: Tensors) -> Tensor:
    """C3A: blocks that are circulant, over the number of inputs. Chen et al. 2024, https://arxiv.org/abs/2407.19342.

    kernel `(out / b, in / b, b)`; element (k, j) of a block with kernel w is w[(j - k) mod b].
    """
    kernel = tensors["c3a_kernel"]
    rows, columns, block = kernel.shape
    steps = torch.arange(block, device=kernel.device)
    circulant = kernel[:, :, (steps[None, :] - steps[:, None]) % block]  # (m, n, k, j)
    return circulant.transpose(1, 2).reshape(rows * block, columns * block) / (columns * block)


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


def shira_size(tensors: Tensors) -> Size:
    """Check a SHiRA's numbers against their places.

    Raises:
        BadTensors: there is not one place for each number, or one lies before the first.

    """
    values, places = expect(tensors, "shira_weight", 1), expect(tensors, "shira_indices", 2)
    if places.shape != (2, values.shape[0]):
        raise BadTensors("shira_indices", f"has the shape {list(places.shape)}, not (2, {values.shape[0]})")
    if places.is_meta:
        return Size()
    if bool((places < 0).any()) or bool((places != places.long()).any()):
        raise BadTensors("shira_indices", "holds what is no place in a weight")
    rows, columns = (int(most) + 1 for most in places.amax(dim=1))
    return Size(least_rows=rows, least_columns=columns)


def shira(weight: Tensor, tensors: Tensors) -> Tensor:
    """SHiRA: a sparse difference, numbers at places. Bhardwaj et al. 2024, https://arxiv.org/abs/2406.13175.

    shira_weight `(k,)`, shira_indices `(2, k)`: rows and columns.
    """
    rows, columns = tensors["shira_indices"].long()
    empty = torch.zeros_like(weight)
    return empty.index_put((rows, columns), tensors["shira_weight"], accumulate=True)


def fourierft_size(tensors: Tensors) -> Size:
    """Check a FourierFT's spectrum.

    Raises:
        BadTensors: it is no vector.

    """
    return Size(least_numbers=expect(tensors, "fourierft_spectrum", 1).shape[0])


def fourierft(weight: Tensor, tensors: Tensors) -> Tensor:
    """FourierFT: dW = a Re(F^-1 S), S zero but for the spectrum. Gao et al. 2024, https://arxiv.org/abs/2405.03003.

    The places of the spectrum `(n,)` are the first n of PyTorch's permutation of all places by the seed that
    the configuration holds, as PEFT draws them; a is its `scaling`.
    """
    spectrum = tensors["fourierft_spectrum"]
    generator = torch.Generator().manual_seed(int(tensors["fourier_seed"].item()))
    places = torch.randperm(weight.numel(), generator=generator)[: spectrum.shape[0]].to(weight.device)
    dense = torch.zeros(weight.numel(), dtype=spectrum.dtype, device=weight.device)
    dense[places] = spectrum
    inverse: Tensor = torch.fft.ifft2(dense.reshape(weight.shape)).real
    return inverse * float(tensors["fourier_scaling"].item())


def miss_size(tensors: Tensors) -> Size:
    """Check the block of a MiSS.

    Raises:
        BadTensors: it is none.

    """
    block = expect(tensors, "miss_block", 2, 3)
    if block.ndim == 2:
        return Size(rows=block.shape[1])
    if block.shape[1] != block.shape[2]:
        raise BadTensors("miss_block", f"has the shape {list(block.shape)}; its blocks are not square")
    return Size(rows=block.shape[0] * block.shape[2], step=block.shape[2])


def miss_rank(tensors: Tensors) -> int:
    """Return r, how many columns share a number."""
    return tensors["miss_block"].shape[-2]


def miss(weight: Tensor, tensors: Tensors) -> Tensor:
    """MiSS: one block B `(r, out)` for every r columns, dW[o, c] = B[c mod r, o]. https://arxiv.org/abs/2409.15371.

    With its `bat` B is `(out / r, r, r)`, and of each r x r block W of the weight dW = W B + B.
    """
    block = tensors["miss_block"]
    if block.ndim == 2:
        columns = torch.arange(weight.shape[1], device=weight.device) % block.shape[0]
        return block.T[:, columns]
    size = block.shape[-1]
    parts = weight.reshape(-1, size, weight.shape[1] // size, size).permute(2, 0, 1, 3)
    changed: Tensor = (parts @ block + block).permute(1, 2, 0, 3).reshape(weight.shape)
    return changed
