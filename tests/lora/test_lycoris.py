"""Every LyCORIS algorithm against LyCORIS' own forward: its modules, written to a file and read by us.

Where the two differ on purpose or LyCORIS 4.1 is wrong, the case is left out:

- Its `get_diff_weight`, and with it merging, takes LoHa and LoKr by alpha / rank twice; `forward` does not.
- DoRA: its multiplier scales m / |W + dW| - 1 and leaves all of dW at 0; ours interpolates. Equal at 1.
- Rescaled OFT and BOFT: its multiplier leaves the rescaling on at 0. Equal at 1.
- BOFT of more than one stage: its multiplier interpolates each stage. Equal at 0 and 1.
- GLoRA's core `bm` stands in its formulas, but its constructor never makes one.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from sdgrpc.lora.fusing.changes import weight_change
from tests.support.loras import LINEAR, adapter_of, kohya

OUT, IN, RANK = 24, 20, 3
KERNELS = [None, 1, 3]
STRENGTHS = [0.0, 0.5, 1.0]


def layer_of(kernel: int | None, dtype: torch.dtype) -> nn.Module:
    """A layer with a bias, which no algorithm here changes."""
    torch.manual_seed(1)
    layer = nn.Linear(IN, OUT) if kernel is None else nn.Conv2d(IN, OUT, kernel, padding=kernel // 2)
    return layer.to(dtype)


def compare(
    kind: type[nn.Module],
    kernel: int | None,
    strength: float,
    label: str,
    *,
    dtype: torch.dtype = torch.float64,
    tolerance: float = 1e-12,
    **options: Any,
) -> set[str]:
    """Compare outputs of a layer, by LyCORIS' module and by the weight that we make of its file.

    `tolerance` is relative to the largest output. Returns the endings of the file's keys.
    """
    layer = layer_of(kernel, dtype)
    module = kind("", layer, multiplier=strength, lora_dim=options.pop("rank", RANK), **options)
    module = module.to(dtype).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.4
            parameter.copy_(noise.abs() + 0.5 if name in ("dora_scale", "rescale") else noise)
    prefix = kohya(LINEAR)
    state = {f"{prefix}.{key}": tensor.detach() for key, tensor in module.state_dict().items()}
    (source,) = adapter_of(state).modules
    assert source.label == label
    shape = tuple(layer.weight.shape)
    assert source.fits(shape)
    assert set(source.keys.values()) == state.keys()
    weight = layer.weight.detach()
    change = weight_change(source, weight.flatten(1), shape, dtype).view(shape)
    assert change.norm() > 0.1 * weight.norm()
    x = torch.randn((4, IN) if kernel is None else (2, IN, 7, 7), generator=generator).to(dtype)
    with torch.no_grad():
        theirs = module(x)
        ours = output(x, weight + strength * change, layer)
        untouched = output(x, weight, layer)
    scale = theirs.abs().max()
    assert (ours - theirs).abs().max() <= tolerance * scale
    assert ((theirs - untouched).abs().max() > 0.01 * scale) == (strength != 0)
    return {key.removeprefix(f"{prefix}.") for key in state}


def output(x: Tensor, weight: Tensor, layer: nn.Module) -> Tensor:
    """What the layer computes with another weight."""
    if weight.ndim == 2:
        return linear(x, weight, layer.bias)
    return conv2d(x, weight, layer.bias, padding=layer.padding)  # type: ignore[call-overload]


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("alpha", [1.0, 6.0])
def test_lora_and_locon(kernel: int | None, strength: float, alpha: float) -> None:
    """Two layers, with LyCORIS' alpha."""
    compare(LoConModule, kernel, strength, "locon" if kernel == 3 else "lora", alpha=alpha)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize(("kind", "core"), [(LoConModule, "lora_mid.weight"), (LohaModule, "hada_t1")])
def test_with_tuckers_core(kind: type[nn.Module], core: str, strength: float) -> None:
    """LoCon and LoHa of a 3x3 convolution with a core."""
    label = "loha" if kind is LohaModule else "locon"
    assert core in compare(kind, 3, strength, label, alpha=2.0, use_tucker=True)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("alpha", [1.0, 6.0])
def test_loha(kernel: int | None, strength: float, alpha: float) -> None:
    """LoHa with alpha below and above the rank."""
    compare(LohaModule, kernel, strength, "loha", alpha=alpha)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("options", "roles"),
    [
        ({"rank": 2, "factor": 2}, {"lokr_w1", "lokr_w2_a", "lokr_w2_b"}),
        (
            {"rank": 1, "factor": 4, "decompose_both": True},
            {"lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"},
        ),
        ({"rank": 1, "factor": 4, "unbalanced_factorization": True}, {"lokr_w1", "lokr_w2_a", "lokr_w2_b"}),
        ({"rank": 2, "factor": -1, "full_matrix": True}, {"lokr_w1", "lokr_w2"}),
    ],
)
def test_lokr(kernel: int | None, strength: float, options: dict[str, Any], roles: set[str]) -> None:
    """LoKr in every factoring; where both factors are whole alpha means nothing."""
    found = compare(LokrModule, kernel, strength, "lokr", alpha=3.0, **options)
    assert found == roles | {"alpha"}


@pytest.mark.parametrize("strength", STRENGTHS)
def test_lokr_with_tuckers_core(strength: float) -> None:
    """LoKr of a 3x3 convolution whose second factor has a core."""
    found = compare(LokrModule, 3, strength, "lokr", alpha=3.0, rank=2, factor=2, use_tucker=True)
    assert "lokr_t2" in found


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("on_input", [True, False])
def test_ia3(kernel: int | None, strength: float, on_input: bool) -> None:
    """(IA)^3 of the inputs and of the outputs."""
    compare(IA3Module, kernel, strength, "ia3", train_on_input=on_input)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_glora(kernel: int | None, strength: float) -> None:
    """GLoRA in the new layout, the only one that LyCORIS writes now."""
    compare(GLoRAModule, kernel, strength, "glora", alpha=2.0)


# LyCORIS inverts in float32 whatever the dtype, so both compute in it: 2e-5 is 170 units of its last place,
# for sums of up to 180 products behind an inverse and three stages.
SINGLE: dict[str, Any] = {"dtype": torch.float32, "tolerance": 2e-5}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("strength", "options"),
    [
        *((strength, {}) for strength in STRENGTHS),
        *((strength, {"constraint": 0.05}) for strength in STRENGTHS),
        (1.0, {"rescaled": True}),
    ],
)
def test_diagonal_oft(kernel: int | None, strength: float, options: dict[str, Any]) -> None:
    """Diagonal OFT, free, held to its constraint, and rescaled."""
    compare(DiagOFTModule, kernel, strength, "oft", rank=4, **SINGLE, **options)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("strength", "options"),
    [(0.0, {}), (1.0, {}), (1.0, {"constraint": 0.05}), (1.0, {"rescaled": True})],
)
def test_boft(kernel: int | None, strength: float, options: dict[str, Any]) -> None:
    """BOFT of three stages."""
    compare(ButterflyOFTModule, kernel, strength, "boft", rank=6, **SINGLE, **options)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("on_out", [True, False])
@pytest.mark.parametrize(
    ("kind", "label"), [(LoConModule, "dora"), (LohaModule, "dora+loha"), (LokrModule, "dora+lokr")]
)
def test_dora(kind: type[nn.Module], label: str, kernel: int | None, on_out: bool) -> None:
    """DoRA of both axes on LoRA, LoHa and LoKr; it adds a float64's epsilon to the norm, we a float32's."""
    options = {"weight_decompose": True, "wd_on_out": on_out, "alpha": 2.0}
    found = compare(kind, kernel, 1.0, label, tolerance=1e-6, **options)
    assert "dora_scale" in found
