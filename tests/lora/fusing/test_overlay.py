"""The switch between weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sdgrpc.lora.fusing.overlay import Overlay, OverlaySwitch
from sdgrpc.lora.fusing.spare import Buffers


def layer() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).half()


def test_back_and_forth_is_exact() -> None:
    """A, then B, then none: each computes with its weights, and the base is what it was, bit for bit."""
    module = layer()
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    objects = dict(module.named_parameters())
    switch = OverlaySwitch(module)
    first = {"0.weight": torch.ones(3, 3).half(), "1.bias": torch.ones(2).half()}
    second = {"0.weight": torch.zeros(3, 3).half()}
    switch.use(first)
    assert torch.equal(module[0].weight, first["0.weight"])
    assert torch.equal(module[1].bias, first["1.bias"])
    switch.use(second)
    assert torch.equal(module[0].weight, second["0.weight"])
    assert torch.equal(module[1].bias, before["1.bias"])
    switch.use({})
    assert all(parameter is objects[name] for name, parameter in module.named_parameters())
    assert all(torch.equal(parameter, before[name]) for name, parameter in module.named_parameters())


def test_nothing_is_copied() -> None:
    """The module computes with the overlay's own memory."""
    module = layer()
    overlay = {"0.weight": torch.ones(3, 3).half()}
    OverlaySwitch(module).use(overlay)
    assert module[0].weight.data_ptr() == overlay["0.weight"].data_ptr()
    assert not module[0].weight.requires_grad


def test_the_same_mapping_again_is_no_work() -> None:
    """The parameter stays the very object that it was."""
    module = layer()
    switch = OverlaySwitch(module)
    overlay = {"0.weight": torch.ones(3, 3).half()}
    switch.use(overlay)
    parameter = module[0].weight
    switch.use(overlay)
    assert module[0].weight is parameter


def test_an_unknown_name_changes_nothing() -> None:
    """A tensor for a parameter that is not there is an error before any is moved."""
    module = layer()
    switch = OverlaySwitch(module)
    weight = module[0].weight
    with pytest.raises(KeyError):
        switch.use({"0.weight": torch.ones(3, 3).half(), "7.weight": torch.ones(1)})
    assert module[0].weight is weight


def test_in_inference_mode_too() -> None:
    """Engines switch inside `torch.inference_mode` and outside alike."""
    module = layer().float()
    switch = OverlaySwitch(module)
    rows = torch.ones(1, 3)
    base = module(rows)
    with torch.inference_mode():
        switch.use({"0.weight": torch.zeros(3, 3)})
        changed = module(rows)
    switch.use({})
    assert not torch.equal(changed, base)
    assert torch.equal(module(rows), base)


def test_an_overlay_knows_its_bytes() -> None:
    """The cache counts them."""
    assert Overlay({"unet": {"a": torch.ones(3).half()}, "text_encoder": {"b": torch.ones(2)}}).nbytes == 14


def test_buffers_serve_whatever_has_their_bytes() -> None:
    """Memory goes to tensors of other shapes, but of the same dtype and bytes, once each."""
    buffers = Buffers()
    tensor = torch.zeros(4, 6).half()
    buffers.give(Overlay({"unet": {"a": tensor}}))
    assert buffers.nbytes == 48
    assert buffers.take(torch.empty(4, 6).bfloat16()) is None
    assert buffers.take(torch.empty(5, 6).half()) is None
    taken = buffers.take(torch.empty(8, 3).half())
    assert taken is not None
    assert (taken.shape, taken.data_ptr(), taken.is_contiguous()) == ((8, 3), tensor.data_ptr(), True)
    assert (buffers.take(torch.empty(8, 3).half()), buffers.nbytes) == (None, 0)


def test_buffers_are_trimmed_to_a_bound() -> None:
    """The largest go first; what is left is within the bound."""
    buffers = Buffers()
    buffers.give(Overlay({"unet": {str(n): torch.zeros(n) for n in (1, 2, 3)}}))
    buffers.trim(12)
    assert buffers.nbytes == 12
    assert buffers.take(torch.empty(3)) is None
    buffers.trim(0)
    assert (buffers.take(torch.empty(1)), buffers.nbytes) == (None, 0)
