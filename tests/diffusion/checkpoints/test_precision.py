"""Which dtype `auto` is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdgrpc.diffusion.checkpoints import precision
from sdgrpc.diffusion.checkpoints.loading import load, open_model
from sdgrpc.diffusion.model import Model
from tests.support.original import save_original
from tests.support.published import save_published

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"),
    [(True, False, torch.bfloat16), (False, True, torch.bfloat16), (False, False, torch.float32)],
)
def test_cpus(monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool, expected: torch.dtype) -> None:
    """bfloat16 where the CPU computes in it."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert precision.fastest_dtype(CPU) is expected


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_gpus(monkeypatch: pytest.MonkeyPatch, native: bool, expected: torch.dtype) -> None:
    """bfloat16 where the GPU has it and does not emulate it, float16 elsewhere."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: native)
    assert precision.fastest_dtype(CUDA) is expected
    assert precision.fastest_dtype(MPS) is torch.float16


def test_small_models_stay_exact(folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the UNet's own number of parameters; a large one is loaded in the device's dtype."""
    count = sum(parameter.numel() for parameter in model.unet.parameters())
    monkeypatch.setattr(precision, "fastest_dtype", lambda _: torch.bfloat16)
    assert precision.automatic_dtype(count, CPU) is torch.float32
    assert load("small", folder, device=CPU, dtype=None).unet.dtype is torch.float32
    monkeypatch.setattr(precision, "SMALLEST_HALVED", count)
    assert load("large", folder, device=CPU, dtype=None).unet.dtype is torch.bfloat16


def test_single_files_are_counted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the UNet's tensors of the file count."""
    folder = save_published(tmp_path / "folder", "sd15", inpainting=False)
    model = load("folder", folder, device=CPU, dtype=None)
    count = sum(parameter.numel() for parameter in model.unet.parameters())
    path = save_original(model, tmp_path / "one.safetensors")
    monkeypatch.setattr(precision, "fastest_dtype", lambda _: torch.bfloat16)
    for smallest, expected in ((count, torch.bfloat16), (count + 1, torch.float32)):
        monkeypatch.setattr(precision, "SMALLEST_HALVED", smallest)
        opened = open_model("one", path, tokenizer=folder / "tokenizer")
        assert opened.dtype(CPU) is expected


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.bfloat16),
    ],
)
def test_the_vae_never_overflows(folder: Path, dtype: torch.dtype, expected: torch.dtype) -> None:
    """float16 holds too little for it; bfloat16 has float32's range."""
    loaded = load("one", folder, device=CPU, dtype=dtype)
    assert (loaded.unet.dtype, loaded.vae.dtype) == (dtype, expected)


def test_large_models_have_their_channels_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where convolutions gain by it; the UNet and the VAE alike, and not a value is another."""
    assert precision.memory_format(precision.SMALLEST_HALVED, CPU) is torch.channels_last
    assert precision.memory_format(precision.SMALLEST_HALVED, CUDA) is torch.channels_last
    assert precision.memory_format(precision.SMALLEST_HALVED, MPS) is torch.contiguous_format
    small = load("small", folder, device=CPU, dtype=torch.float32)
    monkeypatch.setattr(precision, "SMALLEST_HALVED", 1)
    large = load("large", folder, device=CPU, dtype=torch.float32)
    for one, other in ((small.unet, large.unet), (small.vae, large.vae)):
        for name, parameter in one.named_parameters():
            assert torch.equal(parameter, other.get_parameter(name))
    for network in (large.unet, large.vae):
        conv_in = network.get_submodule("conv_in" if network is large.unet else "decoder.conv_in")
        assert not conv_in.weight.is_contiguous()
