"""Rotations of three tools from one kind of tensor: PEFT, OneTrainer, sd-scripts."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from sdgrpc.lora.dialects.keys import parse
from sdgrpc.lora.files.reading import TensorFile
from sdgrpc.lora.fusing.changes import weight_change
from tests.support.loras import adapter_of

PEFT = "base_model.model.down_blocks.0.attentions.0.proj_in"
DIFFUSERS = "unet.down_blocks.0.attentions.0.proj_in"
KOHYA = "lora_unet_down_blocks_0_attentions_0_proj_in"
ONETRAINER = {"ot_branch": "master", "ot_revision": "abc"}
SD_SCRIPTS = {"ss_network_module": "networks.oft_v2"}
SHAPES = {"linear": (6, 12), "1x1": (6, 12, 1, 1), "2x2": (6, 3, 2, 2)}


def noise(*size: int, seed: int = 1) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rotation(packed: Tensor, block: int, *, divisor: float = 1.0, eps: float | None = None) -> Tensor:
    """R of all columns, `(columns, columns)`, by the papers' series I + 2 Q + 2 Q^2 + 2 Q^3 + Q^4."""
    blocks = []
    for row in packed:
        q = torch.zeros(block, block, dtype=torch.float64)
        q[torch.triu(torch.ones(block, block), 1).bool()] = row
        q = q - q.T
        bound = math.inf if eps is None else eps / math.sqrt(len(packed))
        q = q * min(1.0, bound / float(q.norm())) / divisor
        blocks.append(torch.eye(block) + 2 * q + 2 * q @ q + 2 * q @ q @ q + q @ q @ q @ q)
    return torch.block_diag(*blocks)


def changed(
    tensors: dict[str, Tensor], weight: Tensor, metadata: dict[str, str] | None = None
) -> tuple[Tensor, Tensor]:
    """The flat weight before and after a file of one module."""
    (source,) = parse(TensorFile("x", "", tensors, metadata or {})).modules
    assert source.fits(tuple(weight.shape))
    flat = weight.flatten(1)
    return flat, flat + weight_change(source, flat, tuple(weight.shape), torch.float64)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    ("module", "metadata", "convolutions_forward"),
    [
        (PEFT, {}, False),
        (DIFFUSERS, {}, False),
        (DIFFUSERS, ONETRAINER, True),
        (KOHYA, ONETRAINER, True),
        (KOHYA, SD_SCRIPTS, True),
        (KOHYA, {}, True),
        (PEFT, {"ss_network_module": "networks.lora"}, False),
    ],
)
def test_the_direction_is_the_tools(
    module: str, metadata: dict[str, str], convolutions_forward: bool, shape: tuple[int, ...]
) -> None:
    """W R' for linear layers; for convolutions W R of OneTrainer and sd-scripts, W R' of PEFT."""
    packed, weight = noise(3, 6) * 0.2, noise(*shape, seed=2)
    flat, after = changed({f"{module}.oft_R.weight": packed}, weight, metadata)
    r = rotation(packed, 4)
    forward = convolutions_forward and len(shape) == 4
    torch.testing.assert_close(after, flat @ (r if forward else r.T))
    assert not torch.allclose(flat @ r, flat @ r.T, atol=0.1)


@pytest.mark.parametrize("block", [4, 32])
@pytest.mark.parametrize("mark", [torch.tensor(True), torch.tensor(1), torch.zeros(0)], ids=str)
def test_scaled_rotations(block: int, mark: Tensor) -> None:
    """The mark `oft_R.scaled_oft` divides what is stored by 2 sqrt(b - 1); OneTrainer alone writes it."""
    packed, weight = noise(2, block * (block - 1) // 2), noise(6, 2 * block, seed=2)
    tensors = {f"{DIFFUSERS}.oft_R.weight": packed, f"{DIFFUSERS}.oft_R.scaled_oft": mark}
    flat, after = changed(tensors, weight)
    r = rotation(packed, block, divisor=2 * math.sqrt(block - 1))
    torch.testing.assert_close(after, flat @ r.T)
    _, turned = changed(tensors, weight[:, :, None, None])
    torch.testing.assert_close(turned, flat @ r)


def test_a_mark_that_says_no() -> None:
    """A mark that is false scales nothing."""
    packed, weight = noise(3, 6) * 0.2, noise(6, 12, seed=2)
    tensors = {f"{PEFT}.oft_R.weight": packed, f"{PEFT}.oft_R.scaled_oft": torch.tensor(False)}
    flat, after = changed(tensors, weight)
    torch.testing.assert_close(after, flat @ rotation(packed, 4).T)


def test_a_mark_in_a_file() -> None:
    """It is a tensor of whether, and no key is left over."""
    adapter = adapter_of(
        {f"{KOHYA}.oft_R.weight": torch.ones(3, 6), f"{KOHYA}.oft_R.scaled_oft": torch.tensor(True)}
    )
    assert adapter.unmatched == ()
    assert adapter.modules[0].tensors.keys() == {"oft_R", "scaled_oft", "kernels_forward"}


@pytest.mark.parametrize(
    "metadata",
    [
        {"ot_config": json.dumps({"oft_coft": True, "coft_eps": 0.3})},
        {**SD_SCRIPTS, "ss_network_args": json.dumps({"coft": "True", "coft_eps": "0.3"})},
    ],
)
def test_constrained_rotations_of_other_tools(metadata: dict[str, str]) -> None:
    """The bound that OneTrainer and sd-scripts trained with stands in their own headers."""
    packed, weight = noise(3, 6), noise(6, 12, seed=2)
    flat, after = changed({f"{KOHYA}.oft_R.weight": packed}, weight, metadata)
    torch.testing.assert_close(after, flat @ rotation(packed, 4, eps=0.3).T)
    assert not torch.allclose(after, flat @ rotation(packed, 4).T, atol=0.1)


def test_the_bound_goes_before_the_scale() -> None:
    """What is stored is bounded, then scaled, as OneTrainer does."""
    packed, weight = noise(3, 6), noise(6, 12, seed=2)
    tensors = {f"{KOHYA}.oft_R.weight": packed, f"{KOHYA}.oft_R.scaled_oft": torch.tensor(True)}
    flat, after = changed(tensors, weight, {"ot_config": json.dumps({"oft_coft": True, "coft_eps": 0.3})})
    torch.testing.assert_close(after, flat @ rotation(packed, 4, eps=0.3, divisor=2 * math.sqrt(3)).T)
