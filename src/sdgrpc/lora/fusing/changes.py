"""What a module of a file changes: the formula of its algorithm with all that may stand beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from sdgrpc.lora.algorithms.additive import lora_rank
from sdgrpc.lora.algorithms.differences import sparse
from sdgrpc.lora.algorithms.dora import dora
from sdgrpc.lora.algorithms.frobenius import loha_norm, lokr_norm, product_norm
from sdgrpc.lora.algorithms.tensors import scale
from sdgrpc.lora.dialects.adapter import AdapterModule

NORMS = {"loha": loha_norm, "lokr": lokr_norm}
"""Algorithms whose norm needs no change."""

SETTINGS = frozenset({"cayley_terms", "coft_eps", "fourier_seed", "fourier_scaling", "road_group"})
HOST_ROLES = SETTINGS | {"alpha", "scale", "on_input", "bias_size"}
"""Single numbers, read with `item()`: they stay on the CPU."""

PLACES = frozenset({"bias_indices", "shira_indices"})
"""Whole numbers, whatever the others are computed in."""

CPU = torch.device("cpu")


def on_device(source: AdapterModule, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Bring a module's tensors to a device in one dtype, indices and single numbers aside."""
    moved = {}
    for role, tensor in source.tensors.items():
        if role in HOST_ROLES:
            moved[role] = tensor
        elif role in PLACES:
            moved[role] = tensor.to(device)
        else:
            moved[role] = tensor.to(device=device, dtype=dtype)
    return moved


def factors(source: AdapterModule, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return `(out, r)` and `(r, columns)`, whose product a low-rank module adds at strength 1."""
    assert source.algorithm.factors is not None  # noqa: S101 - the caller asked `is_low_rank`
    return source.algorithm.factors(on_device(source, device, dtype))


def weight_change(
    source: AdapterModule, weight: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    """Return what a module adds to its weight at strength 1, `(out, columns)`.

    Args:
        source: the module of the file.
        weight: the pristine weight `(out, columns)` in `dtype`; may be None unless `source.needs_weight`.
        shape: the weight's own shape.
        dtype: what to compute in.

    """
    device = CPU if weight is None else weight.device
    tensors = on_device(source, device, dtype)
    algorithm = source.algorithm
    if algorithm.weighted is not None:
        assert weight is not None  # noqa: S101 - as the docstring demands
        formula = algorithm.on_kernels if algorithm.on_kernels and len(shape) == 4 else algorithm.weighted
        change = formula(weight, tensors)
    elif algorithm.change is not None:
        change = algorithm.change(tensors)
    else:
        up, down = factors(source, device, dtype)
        change = up @ down
    change = change.reshape(shape[0], -1)
    if "bias_values" in tensors:
        change = change + sparse(tensors, source.size) * scale(tensors, source.rank or 1)
    if source.has_dora:
        assert weight is not None  # noqa: S101 - as the docstring demands
        magnitude = tensors["dora_scale" if "dora_scale" in tensors else "magnitude"]
        return dora(weight, change, magnitude, inputs=source.dora_inputs(shape))
    return change


def bias_change(source: AdapterModule, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what a module adds to its pristine bias at strength 1, `(out,)`.

    diff_b and b_norm as they are; a bias of LoRA's up layer (PEFT's `lora_bias`) times a.
    """
    if source.algorithm.weighted_bias is not None:
        return source.algorithm.weighted_bias(bias.to(dtype), on_device(source, bias.device, dtype))
    assert source.bias_role is not None  # noqa: S101 - the caller asked
    change = source.tensors[source.bias_role].to(device=bias.device, dtype=dtype).flatten()
    return (
        change * scale(source.tensors, lora_rank(source.tensors)) if source.bias_role == "up_bias" else change
    )


def change_norm(
    source: AdapterModule, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> float | None:
    """Frobenius norm of the change of a weight at strength 1; None where it depends on the weight."""
    if not source.changes_weight:
        return 0.0
    if source.needs_weight:
        return None
    if source.is_low_rank:
        return product_norm(*factors(source, CPU, dtype))
    norm = NORMS.get(source.algorithm.name)
    if norm is not None and "bias_values" not in source.tensors:
        return norm(on_device(source, CPU, dtype))
    # A whole matrix: float32 is half the memory, and exact enough if the sum is not in float32.
    change = weight_change(source, None, shape, torch.float32)
    return float(torch.linalg.vector_norm(change, dtype=torch.float64))
