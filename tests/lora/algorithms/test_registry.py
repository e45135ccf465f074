"""Recognising algorithms by their tensors."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.lora.algorithms.registry import BIAS, BOFT, OFT, algorithm_of
from sdgrpc.lora.algorithms.tensors import BadTensors
from tests.support.loras import adapter_of, every_algorithm

RANKS = {
    "lora": 2,
    "loha": 2,
    "lokr": 2,
    "full": None,
    "ia3": None,
    "glora": 2,
    "oft": 4,
    "boft": 4,
    "oftv2": 2,
    "dora": 2,
    "dora+loha": 2,
    "sparse": 2,
}


@pytest.mark.parametrize("label", RANKS)
def test_ranks_as_they_are_reported(label: str) -> None:
    """Of an OFT the size of its blocks, of what has no rank nothing."""
    tensors = every_algorithm((12, 10))[label]
    (module,) = adapter_of({f"m{ending}": tensor for ending, tensor in tensors.items()}).modules
    assert module.rank == RANKS[label]
    assert module.uses_alpha == (label not in ("full", "ia3", "oft", "boft", "oftv2"))


def test_two_kinds_of_oft() -> None:
    """Blocks in one row are a diagonal OFT, in several a butterfly."""
    assert algorithm_of({"oft_blocks": torch.ones(3, 4, 4)}) is OFT
    assert algorithm_of({"oft_blocks": torch.ones(1, 3, 4, 4)}) is BOFT
    assert algorithm_of({"diff_b": torch.ones(3)}) is BIAS


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        (["up", "down", "hada_w1_a"], "no tensor of LoRA"),
        (["hada_w1_a"], "without its partner"),
        (["alpha"], "stands alone"),
        (["rescale"], "oft_blocks or oft_diag"),
        (["oft_blocks", "oft_diag"], "not both"),
    ],
)
def test_what_is_no_algorithm(roles: list[str], words: str) -> None:
    """Mixed, halved and lonely tensors are named."""
    with pytest.raises(BadTensors, match=words) as caught:
        algorithm_of({role: torch.ones(2, 2, 2) for role in roles})
    assert caught.value.role in roles
