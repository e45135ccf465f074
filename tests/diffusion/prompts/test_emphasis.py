"""Weights on what a text encoder says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdgrpc.diffusion.prompts.emphasis import emphasised


def hidden(mean: float, rows: int = 1) -> Tensor:
    """Chunks of 8 tokens and 16 channels around that mean, `[rows, 8, 16]`."""
    noise = torch.randn(rows, 8, 16, generator=torch.Generator().manual_seed(3))
    return noise - noise.mean(dim=(1, 2), keepdim=True) + mean


def weights(*values: float, rows: int = 1) -> Tensor:
    """Weights of the first tokens of the first chunk; all others are 1."""
    made = torch.ones(rows, 8)
    made[0, : len(values)] = torch.tensor(values)
    return made


def test_without_weights_nothing_changes() -> None:
    """Not a bit, and no copy is made."""
    given = hidden(0.5)
    assert emphasised(given, weights()) is given


def test_tokens_are_multiplied_and_the_mean_is_restored() -> None:
    """As A1111's web UI does it: times the weight, then times old mean over new mean."""
    given = hidden(0.5)
    expected = given * weights(1.0, 1.4, 0.7)[..., None]
    expected = expected * (given.mean() / expected.mean())
    found = emphasised(given, weights(1.0, 1.4, 0.7))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.mean(), given.mean())


@pytest.mark.parametrize("values", [(1.0, 1.4), (0.5, 0.5), (1.0, 0.0), (1.0, -1.0)])
def test_a_mean_of_nothing_is_not_restored(values: tuple[float, ...]) -> None:
    """Where it is zero but for rounding, its quotient would be any number."""
    given = hidden(0.0)
    torch.testing.assert_close(emphasised(given, weights(*values)), given * weights(*values)[..., None])


def test_a_mean_that_flips_is_not_restored() -> None:
    """Terms of both signs can cancel: then the quotient is far beyond the weights, or negative."""
    given = torch.full((1, 8, 16), -0.1)
    given[0, 1] = 0.6
    for weight in (1.2, 1.1, 2.0):
        given_weights = weights(1.0, weight)
        torch.testing.assert_close(emphasised(given, given_weights), given * given_weights[..., None])


def test_each_chunk_for_itself() -> None:
    """Chunks without weights keep their bits, whatever their neighbours have."""
    given = hidden(0.5, rows=2)
    found = emphasised(given, weights(2.0, 2.0, rows=2))
    assert not torch.equal(found[0], given[0])
    assert torch.equal(found[1], given[1])
    torch.testing.assert_close(found[:1], emphasised(given[:1], weights(2.0, 2.0)))


def test_it_is_computed_in_float32() -> None:
    """A mean in bfloat16 would be off by more than the weights change it; the result has the input's type."""
    given = hidden(0.5).to(torch.bfloat16)
    found = emphasised(given, weights(1.0, 1.4))
    assert found.dtype is torch.bfloat16
    assert torch.equal(found, emphasised(given.float(), weights(1.0, 1.4)).to(torch.bfloat16))
