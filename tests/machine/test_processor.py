"""What the processor is asked before work is given to it."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.machine.processor import has_bfloat16


@pytest.mark.parametrize(("avx512", "amx"), [(True, False), (False, True), (False, False)])
def test_cpus(monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool) -> None:
    """Either instruction set is enough."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert has_bfloat16(torch.device("cpu")) is (avx512 or amx)


def test_a_torch_without_these_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is no, not an error."""
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert has_bfloat16(torch.device("cpu")) is False


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA says so itself, emulation aside; other devices are taken not to have it."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda **asked: asked == {"including_emulation": False}
    )
    assert has_bfloat16(torch.device("cuda")) is True
    assert has_bfloat16(torch.device("mps")) is False
