"""Low-rank changes added to weights, in float32 and in bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdgrpc.lora.fusing import products
from sdgrpc.lora.fusing.products import (
    BFLOAT16_PIECE,
    FEWEST_ROWS,
    PIECE,
    LowRank,
    Products,
    add_by_onednn,
    pieces,
)
from sdgrpc.machine.onednn.linear import multiplies_float32

RANKS = (16, 32, 8)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 3), (1000, 1000), (3, 1 << 19)])
def test_pieces_cover_every_row_once(rows: int, columns: int) -> None:
    """On the CPU each piece fits the cache, unless one row alone does not."""
    cut = pieces(torch.empty(rows, columns), PIECE)
    assert [row for piece in cut for row in range(piece.start, piece.stop)] == list(range(rows))
    assert all((piece.stop - piece.start) * columns <= max(PIECE, columns) for piece in cut)


def test_pieces_have_enough_rows() -> None:
    """However wide they are; the last one takes what is left."""
    cut = pieces(torch.empty(300, 1 << 14), BFLOAT16_PIECE, FEWEST_ROWS)
    assert [piece.stop - piece.start for piece in cut] == [128, 128, 44]


def test_other_devices_take_a_matrix_whole() -> None:
    """A kernel call costs more there than the cache saves."""
    assert pieces(torch.empty(10_000, 10_000, device="meta"), PIECE) == [slice(0, 10_000)]


def weight(rows: int, columns: int) -> Tensor:
    return (torch.randn(rows, columns, generator=torch.Generator().manual_seed(1)) * columns**-0.5).bfloat16()


def change(matrix: Tensor, ratio: float) -> LowRank:
    """Three LoRAs with factors as files have them, of `ratio` times the weight's norm together."""
    generator = torch.Generator().manual_seed(2)
    rows, columns = matrix.shape
    ups = [torch.randn(rows, rank, generator=generator).half().double() for rank in RANKS]
    downs = [torch.randn(rank, columns, generator=generator).half().double() for rank in RANKS]
    norm = (torch.cat(ups, 1) @ torch.cat(downs)).norm()
    scale = ratio * matrix.double().norm() / norm
    return LowRank(
        [(up * scale).float() for up in ups],
        [down.float() for down in downs],
        ratio * matrix.double().norm().item(),
    )


def fused(matrix: Tensor, product: LowRank) -> tuple[Tensor, Tensor]:
    """What is made of a weight, and what it should be, in float64."""
    out = torch.empty_like(matrix)
    Products().add(matrix, matrix.double().norm().item(), product, None, out)
    exact = (
        matrix.double() + torch.cat(list(product.ups), 1).double() @ torch.cat(list(product.downs)).double()
    )
    return out, exact


@pytest.fixture(params=["bfloat16", "float32", "float32 by torch"])
def multiplies(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A processor of each kind: whether it multiplies bfloat16; the last has no oneDNN."""
    monkeypatch.setattr(products, "has_bfloat16", lambda _: request.param == "bfloat16")
    monkeypatch.setattr(products, "multiplies_float32", lambda: request.param == "float32")
    return bool(request.param == "bfloat16")


@pytest.mark.parametrize("ratio", [0.02, 0.12, 0.13, 1.0])
def test_rounding_the_factors_hardly_adds_to_the_error(multiplies: bool, ratio: float) -> None:
    """The error of a bfloat16 weight is at most 1.6 % above that of rounding once, which nothing avoids."""
    matrix = weight(320, 640)
    out, exact = fused(matrix, change(matrix, ratio))
    error, rounding = (out.double() - exact).norm(), (exact.bfloat16().double() - exact).norm()
    assert error <= 1.016 * rounding
    split = ratio > products.SMALL
    if split or not multiplies:  # as good as float32, but for a few that lie halfway between two numbers
        assert (out != exact.bfloat16()).double().mean() < 0.005


def test_small_changes_take_the_short_way(multiplies: bool) -> None:
    """They are multiplied at their own rank, large ones at three times that."""
    matrix = weight(64, 96)
    assert change(matrix, 0.1).in_bfloat16(matrix.double().norm().item())[0].shape == (64, 56)
    assert change(matrix, 0.2).in_bfloat16(matrix.double().norm().item())[0].shape == (64, 168)
    assert products.multiplies_bfloat16(matrix) is multiplies
    assert not products.multiplies_bfloat16(matrix.float())


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch, multiplies: bool) -> None:  # noqa: ARG001
    """A weight that is cut is what it is whole."""
    matrix = weight(300, 200)
    whole, _ = fused(matrix, change(matrix, 0.1))
    monkeypatch.setattr(products, "PIECE", 200 * 64)
    monkeypatch.setattr(products, "ONEDNN_PIECE", 200 * 64)
    monkeypatch.setattr(products, "BFLOAT16_PIECE", 1)
    cut, _ = fused(matrix, change(matrix, 0.1))
    unit = 2.0**-7 * torch.maximum(whole.abs(), cut.abs()).float()
    assert ((whole.float() - cut.float()).abs() <= unit).all()  # sums in another order: a last place at most
    assert (whole != cut).double().mean() < 1e-3


@pytest.mark.skipif(not torch._C._has_mkldnn, reason="there is no oneDNN in this torch")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("rows", "columns"), [(320, 2880), (1, 768), (1280, 320)])
def test_onednn_gives_the_same(dtype: torch.dtype, rows: int, columns: int) -> None:
    """By oneDNN, a weight is what float64 makes of it, but for float32's rounding."""
    matrix, change_ = weight(rows, columns).to(dtype), change(weight(rows, columns), 0.5)
    out, exact = torch.empty_like(matrix), fused(matrix, change_)[1]
    add_by_onednn(matrix, change_.joined(), None, out)
    unit = torch.finfo(dtype).eps * exact.abs() + 2**-22 * sum(RANKS) * exact.abs().max()
    assert ((out.double() - exact).abs() <= 0.51 * unit).all()


def test_this_torch_can() -> None:
    """Its operator is private: one that has another would be slower, and nothing else would say so."""
    has_avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    assert multiplies_float32() == (has_avx512 and torch._C._has_mkldnn)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_changes_are_added_too(multiplies: bool, dtype: torch.dtype) -> None:  # noqa: ARG001
    """A change that is no product goes on top in float32, alone or beside one, and is rounded once."""
    matrix = weight(40, 30).to(dtype)
    added = torch.randn(40, 30, generator=torch.Generator().manual_seed(3)) * 0.1
    for product in (None, change(matrix, 0.3)):
        out = torch.empty_like(matrix)
        Products().add(matrix, 1.0, product, added, out)
        exact = matrix.double() + added.double()
        if product is not None:
            exact += torch.cat(list(product.ups), 1).double() @ torch.cat(list(product.downs)).double()
        unit = torch.finfo(dtype).eps * exact.abs()
        assert ((out.double() - exact).abs() <= 0.51 * unit + 1e-6).all()
