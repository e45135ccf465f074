"""What switching between sets costs a compiled UNet: no compilation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.lora.fusing.overlay import OverlaySwitch
from tests.support.models import save_model

SETS = 20
TOUCHED = 6
SHAPES = list(product(range(1, 9), (8, 16)))


@pytest.fixture
def unet(tmp_path: Path) -> nn.Module:
    """A tiny UNet as the service loads it."""
    unet: nn.Module = load("tiny", save_model(tmp_path), device=torch.device("cpu"), dtype=None).unet
    return unet


def counting(compiled: list[int]) -> Callable[..., Callable[..., object]]:
    """A backend of torch.compile that notes each graph and runs it as it is."""

    def backend(graph: torch.fx.GraphModule, _inputs: object) -> Callable[..., object]:
        compiled.append(len(graph.graph.nodes))
        return graph.forward

    return backend


def overlays(unet: nn.Module) -> list[dict[str, torch.Tensor]]:
    """Sets that change other weights each, and some the same."""
    names = [name for name, one in unet.named_parameters() if name.endswith("weight") and one.ndim > 1]
    drawn = torch.Generator().manual_seed(0)
    parameters = dict(unet.named_parameters())
    return [
        {
            name: parameters[name].detach() + 0.1 * torch.randn(parameters[name].shape, generator=drawn)
            for name in (names[(7 * index + step) % len(names)] for step in range(TOUCHED))
        }
        for index in range(SETS)
    ]


@torch.inference_mode()
def run(called: Callable[..., tuple[torch.Tensor]], rows: int, side: int) -> torch.Tensor:
    sample = torch.ones(rows, 4, side, side)
    states = torch.ones(rows, 77, 32)
    return called(sample, torch.ones(rows), encoder_hidden_states=states, return_dict=False)[0]


def test_one_compilation_per_shape_and_none_per_set(unet: nn.Module) -> None:
    """Over 20 sets, rows 1 to 8 and two sizes; and what is compiled computes with the set's weights."""
    compiled: list[int] = []
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=len(SHAPES) + 1):
        called = torch.compile(unet, backend=counting(compiled), dynamic=False, fullgraph=True)
        for rows, side in SHAPES:
            run(called, rows, side)
        assert len(compiled) == len(SHAPES)
        switch = OverlaySwitch(unet)
        pictures = []
        for index, overlay in enumerate(overlays(unet)):
            switch.use(overlay)
            pictures.append(run(called, *SHAPES[index % len(SHAPES)]))
            torch.testing.assert_close(pictures[-1], run(unet, *SHAPES[index % len(SHAPES)]))
        switch.use({})
        run(called, *SHAPES[0])
    assert len(compiled) == len(SHAPES)
    torch._dynamo.reset()


def test_parameters_of_base_and_overlay_want_no_gradient(unet: nn.Module) -> None:
    """Compiled code is bound to that: where the two differed each switch would compile anew."""
    assert not any(one.requires_grad for one in unet.parameters())
    OverlaySwitch(unet).use(overlays(unet)[0])
    assert not any(one.requires_grad for one in unet.parameters())
