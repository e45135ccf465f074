"""Norms that are computed without the change, against the change itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sdgrpc.lora.algorithms import frobenius
from sdgrpc.lora.algorithms.additive import loha, lokr
from sdgrpc.lora.algorithms.frobenius import loha_norm, lokr_norm


def noise(*size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(sum(size) + 31 * seed)
    return torch.randn(size, dtype=torch.float64, generator=generator)


def hadamard(
    rows: int, inputs: int, rank: int, kernel: int = 1, *, tucker: bool = False
) -> dict[str, Tensor]:
    """The factors of a LoHa, and alpha."""
    found = {"alpha": torch.tensor(-3.0)}
    for n in (1, 2):
        if tucker:
            found |= {
                f"hada_t{n}": noise(rank, rank, kernel, kernel, seed=n),
                f"hada_w{n}_a": noise(rank, rows, seed=n),
                f"hada_w{n}_b": noise(rank, inputs, seed=n),
            }
        else:
            found |= {
                f"hada_w{n}_a": noise(rows, rank, seed=n),
                f"hada_w{n}_b": noise(rank, inputs * kernel * kernel, seed=n),
            }
    return found


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(1, 150),
    inputs=st.integers(1, 40),
    rank=st.integers(1, 12),
    kernel=st.sampled_from([1, 3]),
    tucker=st.booleans(),
)
def test_loha(rows: int, inputs: int, rank: int, kernel: int, tucker: bool) -> None:
    """By whichever way, it is the norm of the whole matrix, in float64 to its last digits."""
    tensors = hadamard(rows, inputs, rank, kernel, tucker=tucker)
    assert loha_norm(tensors) == pytest.approx(loha(tensors).norm().item(), rel=1e-9)


def test_both_ways_of_loha_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A low rank by Gram matrices, a high one some rows at a time, however many: all agree."""
    low, high = hadamard(200, 300, 2), hadamard(130, 90, 40)
    products: list[int] = []
    gram = frobenius.product_norm
    monkeypatch.setattr(
        frobenius, "product_norm", lambda up, down: products.append(up.shape[1]) or gram(up, down)
    )
    assert loha_norm(low) == pytest.approx(loha(low).norm().item(), rel=1e-12)
    assert products == [4]
    for rows in (1, 7, 64, 1000):
        monkeypatch.setattr(frobenius, "ROWS", rows)
        assert loha_norm(high) == pytest.approx(loha(high).norm().item(), rel=1e-12)
    assert products == [4]


@pytest.mark.parametrize(
    "tensors",
    [
        {"lokr_w1": (4, 2), "lokr_w2": (6, 5), "alpha": ()},
        {"lokr_w1": (4, 2), "lokr_w2": (6, 5, 3, 3), "alpha": ()},
        {"lokr_w1": (4, 2), "lokr_w2_a": (6, 3), "lokr_w2_b": (3, 45), "alpha": ()},
        {"lokr_w1_a": (4, 2), "lokr_w1_b": (2, 9), "lokr_w2": (6, 5), "alpha": ()},
        {"lokr_w1": (4, 2), "lokr_w2_a": (3, 6), "lokr_w2_b": (3, 5), "lokr_t2": (3, 3, 3, 3)},
    ],
)
def test_lokr(tensors: dict[str, tuple[int, ...]]) -> None:
    """Every factoring, with Tucker's core, and the alpha that two whole factors ignore."""
    filled = {role: noise(*shape, seed=number) for number, (role, shape) in enumerate(tensors.items())}
    assert lokr_norm(filled) == pytest.approx(lokr(filled).norm().item(), rel=1e-12)


def test_nothing_has_no_norm() -> None:
    """An untrained file: an all-zero factor gives 0, not a rounding error's root."""
    tensors = hadamard(9, 7, 2) | {"hada_w2_a": torch.zeros(9, 2, dtype=torch.float64)}
    assert loha_norm(tensors) == 0.0
    assert lokr_norm({"lokr_w1": torch.zeros(2, 2), "lokr_w2": noise(3, 3)}) == 0.0


@pytest.mark.parametrize(
    ("rows", "columns", "ranks", "by_gram"),
    [(100, 100, (4, 4), True), (100, 100, (5, 5), True), (100, 100, (6, 6), False), (300, 30, (4, 6), False)],
)
def test_the_cheaper_way_is_taken(
    rows: int, columns: int, ranks: tuple[int, int], by_gram: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gram matrices take (rows + columns) (r1 r2)^2 products, the change 2 rows columns (r1 + r2)."""
    taken, (first, second) = [], ranks
    known = frobenius.product_norm
    monkeypatch.setattr(frobenius, "product_norm", lambda up, down: taken.append(1) or known(up, down))
    tensors = {
        "hada_w1_a": torch.randn(rows, first).double(),
        "hada_w1_b": torch.randn(first, columns).double(),
        "hada_w2_a": torch.randn(rows, second).double(),
        "hada_w2_b": torch.randn(second, columns).double(),
        "alpha": torch.tensor(float(first)),
    }
    norm = frobenius.loha_norm(tensors)
    a, b, c, d = list(tensors.values())[:4]
    assert norm == pytest.approx(float(((a @ b) * (c @ d)).norm()), rel=1e-9)
    assert bool(taken) is by_gram
