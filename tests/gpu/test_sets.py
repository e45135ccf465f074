"""LoRA sets on a GPU: products from resident factors beside fused weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.domain import LoraRef
from sdgrpc.engine.models.device_options import DeviceOptions
from sdgrpc.engine.models.served_model import ServedModel
from sdgrpc.lora.store.library import LoraLibrary

SETS = ([("lora0", 0.8)], [("lora1", 0.3)], [("lora0", 0.5), ("lora1", 1.0)], [("lora0", 40.0)], [])
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 2e-3}
"""Relative to a weight: the same sums in another order; in bfloat16 at most two roundings apart."""


def served(folder: Path, device: torch.device, dtype: torch.dtype, *, resident: bool) -> ServedModel:
    model = load("tiny", folder / "model", device=device, dtype=dtype)
    options = DeviceOptions(compile="off", resident_factors="on" if resident else "off")
    return ServedModel.of(model, lora_cache_bytes=1 << 30, options=options)


def weights(subject: ServedModel) -> dict[str, Tensor]:
    return {
        f"{component}.{name}": weight.detach().float().cpu()
        for component, network in subject.model.lora_components().items()
        for name, weight in network.named_parameters()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_products_are_the_fused_weights(folder: Path, device: torch.device, dtype: torch.dtype) -> None:
    """Set after set within rounding; and the pristine weights come back to the bit."""
    library = LoraLibrary([folder])
    pair = [served(folder, device, dtype, resident=resident) for resident in (False, True)]
    pristine = weights(pair[0])
    for members in SETS:
        refs = [LoraRef(name=name, strength=s, text_encoder_strength=s) for name, s in members]
        leases = [one.sets.acquire([(library.find(ref), ref) for ref in refs]) for one in pair]
        for one, lease in zip(pair, leases, strict=True):
            for component in one.switches:
                one.use(component, lease)
        fused, multiplied = map(weights, pair)
        for name, weight in fused.items():
            error = (multiplied[name] - weight).norm() / weight.norm().clamp(min=1e-9)
            assert error <= TOLERANCES[dtype] * (10 if members and members[0][1] > 1 else 1), name
        if members:
            assert any(not torch.equal(fused[name], pristine[name]) for name in fused)
        for lease in leases:
            lease.release()
    assert all(torch.equal(multiplied[name], pristine[name]) for name in pristine)
