"""Attention by oneDNN's products, a head at a time."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sdgrpc.machine.onednn import attention
from sdgrpc.machine.onednn.attention import attend, multiplies
from sdgrpc.machine.onednn.linear import MULTIPLY
from sdgrpc.machine.workers import Workers

HEADS = 3
# Root mean square of the error over that of the answer. Rounding an answer to bfloat16 is 1.7e-3 of it, and
# rounding the shares as much again; float32 sums of a thousand products are 1e-6.
TOLERANCES = {torch.bfloat16: 3e-3, torch.float32: 5e-6}


def tokens(dtype: torch.dtype, rows: int, many: int, told: int, width: int = 40) -> list[Tensor]:
    """Queries, keys and values, with scores of up to some ten."""
    drawn = torch.Generator().manual_seed(0)
    shapes = ((rows, many), (rows, told), (rows, told))
    query, *others = (torch.randn(*shape, HEADS * width, generator=drawn).to(dtype) for shape in shapes)
    return [query * 2, *others]


def exact(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The published formula in float64."""
    query, key, value = (
        one.double().unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in (query, key, value)
    )
    shares = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(-1)
    return (shares @ value).transpose(1, 2).flatten(2)


def on_pool() -> bool:
    return threading.current_thread().name.startswith("test-rows")


def attended(given: list[Tensor]) -> Tensor:
    query, key, value = given
    return attend(query, key, value, HEADS)


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).pow(2).mean().sqrt() / expected.pow(2).mean().sqrt())


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads of any size are computed so, 64 rows of 100 scores at a time."""
    monkeypatch.setattr(attention, "FEWEST_SCORES", dict.fromkeys(attention.FEWEST_SCORES, 0))
    monkeypatch.setattr(attention, "SCORES_AT_A_TIME", 6400)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("sizes", [(2, 200, 100), (1, 64, 100), (3, 70, 77), (2, 5, 1), (1, 3, 7000)])
def test_it_is_the_formula(sizes: tuple[int, int, int], dtype: torch.dtype) -> None:
    """With rows that come out and rows that don't, among themselves and to a prompt, and one at a time."""
    given = tokens(dtype, *sizes)
    copies = [one.clone() for one in given]
    with torch.inference_mode():
        found = attended(given)
    assert found.dtype == dtype
    assert found.shape == given[0].shape
    assert found.is_contiguous()
    assert error(found, exact(*given)) < TOLERANCES[dtype]
    assert all(torch.equal(one, copy) for one, copy in zip(given, copies, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_large_one_is_as_exact_as_torchs(dtype: torch.dtype) -> None:
    """In the sizes that pictures have, without a change of its limits."""
    given = tokens(dtype, 1, 1100, 1100)
    split = [one.unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in given]
    with torch.inference_mode():
        ours = error(attended(given), exact(*given))
        theirs = error(F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2), exact(*given))
    assert ours < 1.5 * theirs


@pytest.mark.usefixtures("few")
@pytest.mark.skipif(not multiplies(torch.bfloat16), reason="oneDNN's products are quicker on some only")
def test_threads_of_one_core_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """They compute all heads themselves, with the bits that others get, and never wait for a pool."""
    given = tokens(torch.bfloat16, 2, 200, 100)
    pool = Workers(2, "test-rows")
    monkeypatch.setattr(attention, "step_workers", lambda: pool)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1 if on_pool() else 2)
    threads: list[str] = []

    def seen(*arguments: object) -> Tensor:
        threads.append(threading.current_thread().name)
        product: Tensor = MULTIPLY(*arguments)
        return product

    monkeypatch.setattr(attention, "MULTIPLY", seen)
    with torch.inference_mode():
        many = attended(given)
    assert threads
    assert all(name.startswith("test-rows") for name in threads)
    alone: list[Tensor] = []

    @torch.inference_mode()
    def work(_: int) -> None:
        threads.clear()
        alone.append(attended(given))
        assert set(threads) == {threading.current_thread().name}

    pool.share(work, range(1))
    assert torch.equal(alone[0], many)


@pytest.mark.usefixtures("few")
@pytest.mark.skipif(not multiplies(torch.bfloat16), reason="oneDNN's products are quicker on some only")
def test_one_head_never_waits_for_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A VAE has one; its products are made in the thread that decodes, on all cores."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(attention, "step_workers", None)
    given = tokens(torch.bfloat16, 1, 200, 200)
    query, key, value = given
    found = attend(query, key, value, 1)
    shares = (query.double() @ key.double().transpose(1, 2) / query.shape[-1] ** 0.5).softmax(-1)
    assert error(found, shares @ value.double()) < TOLERANCES[torch.bfloat16]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_elsewhere_it_is_torchs(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, on processors where oneDNN is not quicker, and in other dtypes."""
    monkeypatch.setattr(attention, "multiplies", lambda _: False)
    given = tokens(dtype, 2, 200, 100)
    split = [one.unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in given]
    expected = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
    assert torch.equal(attended(given), expected)


def test_which_dtypes_are_multiplied() -> None:
    """None that has no limits; bfloat16 where float32 is."""
    assert not multiplies(torch.float64)
    assert not multiplies(torch.float16)
    assert multiplies(torch.float32) or not multiplies(torch.bfloat16)
