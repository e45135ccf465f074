"""Plain differences and sparse remainders."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.lora.algorithms import differences
from sdgrpc.lora.algorithms.tensors import BadTensors, Size

OUT, IN = 12, 10


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("shape", [(OUT, IN), (OUT, IN, 3, 3), (OUT,)])
def test_full_differences_are_themselves(shape: tuple[int, ...]) -> None:
    """The difference has the weight's own shape, and no alpha scales it."""
    tensors = {"diff": random(*shape), "alpha": torch.tensor(0.1)}
    assert torch.equal(differences.full(tensors).view(shape), tensors["diff"])
    assert differences.full_size(tensors).fits(shape)


def test_norm_differences_are_themselves() -> None:
    """One number per channel."""
    tensors = {"w_norm": random(OUT)}
    assert torch.equal(differences.norm(tensors).view(OUT), tensors["w_norm"])
    assert differences.norm_size(tensors).fits((OUT,))
    assert not differences.norm_size(tensors).fits((OUT, 2))


def test_a_sparse_remainder_is_a_matrix_of_few_numbers() -> None:
    """Values at their indices, twice at one place added up."""
    tensors = {
        "bias_indices": torch.tensor([[0, 2, 2], [1, 0, 0]]),
        "bias_values": torch.tensor([5.0, 1.0, 2.0]),
        "bias_size": torch.tensor([3, 2]),
    }
    differences.check_sparse(tensors, Size(3, 2))
    assert differences.sparse(tensors, Size(3, 2)).tolist() == [[0, 5], [0, 0], [3, 0]]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"bias_indices": torch.tensor([[0, 3], [1, 0]])}, "outside"),
        ({"bias_indices": torch.tensor([[0, -1], [1, 0]])}, "outside"),
        ({"bias_indices": torch.tensor([[0], [1]])}, r"not \(2, 2\)"),
        ({"bias_indices": torch.tensor([[0.0, 1.0], [1.0, 0.0]])}, r"not \(2, 2\)"),
        ({"bias_size": torch.tensor([1 << 40, 1 << 40])}, "says"),
        ({"bias_values": None}, "without bias_values"),
    ],
)
def test_sparse_remainders_that_lie(changed: dict[str, torch.Tensor | None], words: str) -> None:
    """Nothing of the size that they claim is made before it is checked."""
    tensors = {
        "bias_indices": torch.tensor([[0, 2], [1, 0]]),
        "bias_values": torch.tensor([5.0, 1.0]),
        "bias_size": torch.tensor([3, 2]),
        **changed,
    }
    with pytest.raises(BadTensors, match=words):
        differences.check_sparse({k: v for k, v in tensors.items() if v is not None}, Size(3, 2))
