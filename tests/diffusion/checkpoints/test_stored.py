"""Tensors read straight from a safetensors file."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sdgrpc.diffusion.checkpoints.stored import PIECE, Stored, Unfilled, read_all, stored_tensors
from sdgrpc.errors import ModelError
from sdgrpc.machine.onednn.packing import dense, pack_convolutions

CPU = torch.device("cpu")
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn]


@pytest.fixture
def saved(tmp_path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Stored]]:
    """Tensors of many dtypes and shapes, one larger than a piece, and what is read of them."""
    tensors = {str(dtype): torch.randn(5, 7).to(dtype) for dtype in DTYPES}
    tensors |= {"long": torch.randn(2 * PIECE + 3), "one": torch.randn(()), "none": torch.zeros(0)}
    tensors |= {"pixel": torch.randn(4, 3, 1, 1), "whole": torch.arange(3)}
    save_file(tensors, tmp_path / "file.safetensors", metadata={"said": "so"})
    stored, metadata = stored_tensors(tmp_path / "file.safetensors")
    assert metadata == {"said": "so"}
    return tensors, stored


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_are_the_files(
    saved: tuple[dict[str, torch.Tensor], dict[str, Stored]], dtype: torch.dtype
) -> None:
    """Every tensor in every dtype is what torch converts it to."""
    tensors, stored = saved
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            assert torch.equal(stored[name].read(dtype, CPU), tensor.to(dtype)), name


def test_every_float16_becomes_its_nearest_bfloat16(tmp_path: Path) -> None:
    """The step by way of float32 rounds no number otherwise: subnormals, infinities and NaNs included."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.float16)
    save_file({"every": every}, tmp_path / "file.safetensors")
    read = stored_tensors(tmp_path / "file.safetensors")[0]["every"].read(torch.bfloat16, CPU)
    torch.testing.assert_close(read, every.bfloat16(), rtol=0, atol=0, equal_nan=True)


def test_views(saved: tuple[dict[str, torch.Tensor], dict[str, Stored]]) -> None:
    """Rows, transposed matrices and convolutions of one pixel, as checkpoints are converted with."""
    tensors, stored = saved
    matrix, kept = tensors["torch.float32"], stored["torch.float32"]
    assert torch.equal(kept[2:4].read(torch.float32, CPU), matrix[2:4])
    assert torch.equal(kept[3:, :].clone().detach().read(torch.bfloat16, CPU), matrix[3:].bfloat16())
    assert torch.equal(kept.T.contiguous().read(torch.float32, CPU), matrix.T)
    assert torch.equal(stored["pixel"][:, :, 0, 0].read(torch.float32, CPU), tensors["pixel"][:, :, 0, 0])
    assert (kept.T.shape, kept[1:].ndim, stored["pixel"][:, :, 0].shape) == ((7, 5), 2, (4, 3, 1))
    for source, index in ((kept, (slice(None), 0)), (kept.T, slice(2)), (kept, slice(None, None, 2))):
        with pytest.raises(IndexError, match="has no part"):
            source[index]


def test_what_no_network_holds(saved: tuple[dict[str, torch.Tensor], dict[str, Stored]]) -> None:
    """Whole numbers in a parameter's place are refused by name."""
    module = nn.Linear(1, 3, bias=False)
    module.weight = nn.Parameter(torch.zeros(3))
    with pytest.raises(ModelError, match="the network has whole numbers or an unknown dtype in weight"):
        Unfilled("the network", module, {"weight": saved[1]["whole"]}).checked()


def test_a_filled_network_is_frozen(saved: tuple[dict[str, torch.Tensor], dict[str, Stored]]) -> None:
    """It owns contiguous weights, is in evaluation mode and trains nothing."""
    with torch.device("meta"):
        module = nn.Linear(7, 5, bias=False)
    found = Unfilled("it", module, {"weight": saved[1]["torch.float32"]}).checked().fill(CPU, torch.float32)
    weight = found.get_parameter("weight")
    assert torch.equal(weight, saved[0]["torch.float32"])
    assert weight.is_contiguous()
    assert not weight.requires_grad
    assert not found.training


@pytest.mark.parametrize("content", [b"", b"nothing", b"\xff" * 8 + b"{}"])
def test_what_is_no_file_of_that_kind(tmp_path: Path, content: bytes) -> None:
    """Broken headers say so."""
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"is no whole \.safetensors file"):
        stored_tensors(path)


def test_convolutions_are_laid_out_as_they_are_read(tmp_path: Path) -> None:
    """Of many sizes, by several readers that use their memory again: every number is in its place."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(8, 4, 3, 3), (4, 6, 1, 1), (2, 3, 3, 3), (16, 8, 3, 3), (5, 7), (9,)]
    tensors = {str(at): torch.randn(shapes[at % 6], generator=generator) for at in range(60)}
    save_file(tensors, tmp_path / "a.safetensors")
    found, _ = stored_tensors(tmp_path / "a.safetensors")
    for dtype in (torch.float32, torch.bfloat16):
        read = read_all([found[key] for key in tensors], CPU, dtype, torch.channels_last)
        for tensor, one in zip(tensors.values(), read, strict=True):
            assert torch.equal(one, tensor.to(dtype))
            assert one.is_contiguous(
                memory_format=torch.channels_last if one.ndim == 4 else torch.contiguous_format
            )
        assert len({one.data_ptr() for one in read}) == len(read)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolutions_are_packed_as_they_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    """With the bits that packing afterwards gives, by several readers; the rest lies as it would."""
    network = nn.Sequential(
        *(nn.Conv2d(8, 8 * (at % 3 + 1), at % 2 * 2 + 1) for at in range(20)), nn.Linear(9, 5)
    )
    save_file(network.half().state_dict(), tmp_path / "a.safetensors")
    found, _ = stored_tensors(tmp_path / "a.safetensors")
    filled, later = (
        Unfilled("it", copy.deepcopy(network).to("meta"), found).fill(
            CPU, dtype, torch.channels_last, packed=packed
        )
        for packed in (True, False)
    )
    pack_convolutions(later)
    assert [type(one) for one in filled.modules()] == [type(one) for one in later.modules()]
    expected = later.state_dict()
    for name, weight in filled.state_dict().items():
        assert weight.is_mkldnn == expected[name].is_mkldnn
        assert torch.equal(dense(weight), network.state_dict()[name].to(dtype))
        if not weight.is_mkldnn:
            assert weight.stride() == expected[name].stride()
    assert not any(weight.requires_grad for weight in filled.parameters())
