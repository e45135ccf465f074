"""What is trained starts at the base, reads back, and means in the service what it meant in training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from sdgrpc.lora.bases.module_names import NameIndex
from sdgrpc.lora.bases.placement import place
from sdgrpc.lora.dialects.adapt import adapt
from sdgrpc.lora.files.reading import read
from sdgrpc.lora.fusing.changes import weight_change
from tools.tiny_model import lora
from tools.tiny_model.factors import KINDS
from tools.tiny_model.models import make_unet
from tools.tiny_model.train_lora import EVERYWHERE


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    """The embedded model's UNet, untrained."""
    torch.manual_seed(0)
    return make_unet().requires_grad_(False)


@pytest.mark.parametrize("kind", KINDS)
def test_training_starts_at_the_base(kind: str, unet: UNet2DConditionModel) -> None:
    """Fresh factors of every kind change nothing, and every one of their tensors is trained."""
    made = lora.make(unet, lora.targets(unet, EVERYWHERE), 4, torch.Generator().manual_seed(0), kind)
    for name, factor in made.items():
        change = factor.change(unet.get_submodule(name).weight)
        assert change.abs().max() < 1e-6
    assert all(tensor.requires_grad for tensor in lora.parameters(made))


@pytest.mark.parametrize("kind", KINDS)
def test_the_service_computes_what_was_trained(kind: str, unet: UNet2DConditionModel, tmp_path: Path) -> None:
    """A written file's changes, by the service's formulas in float64, are those that training saw."""
    generator = torch.Generator().manual_seed(1)
    made = lora.make(unet, lora.targets(unet, (".conv1", "attn2.")), 4, generator, kind)
    for tensor in lora.parameters(made):
        tensor.requires_grad_(False).copy_(0.3 * torch.randn(tensor.shape, generator=generator) + 0.1)
    path = tmp_path / "a.safetensors"
    lora.write(lora.kohya(made), {}, path)
    trained, _ = lora.read(path, unet, unet)
    shapes = {"unet": {name: tuple(p.shape) for name, p in unet.named_parameters()}}
    placed = place(adapt(read(path, "a")), NameIndex(shapes)).placed
    assert {each.target.path for each in placed} == trained.keys() == made.keys()
    for each in placed:
        assert each.source.label.replace("locon", "lora") == kind
        weight = unet.get_submodule(each.target.path).weight
        flat = weight.double().flatten(1)
        served = weight_change(each.source, flat, tuple(weight.shape), torch.float64)
        assert torch.allclose(
            served.float(), trained[each.target.path].change(weight).flatten(1), rtol=1e-3, atol=1e-4
        )
