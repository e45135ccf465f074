"""The mathematics of newer methods that PEFT trains: changes of full rank in few numbers.

Circulant blocks, numbers at places, a sparse spectrum, a block that is repeated. Notation as in `low_rank`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdgrpc.lora.algorithms.tensors import BadTensors, Size, Tensors, expect


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
