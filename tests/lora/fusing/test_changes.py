"""The change of one module, whatever its algorithm and what stands beside it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdgrpc.errors import LoraError
from sdgrpc.lora.dialects.adapter import AdapterModule
from sdgrpc.lora.dialects.key_endings import ROLES
from sdgrpc.lora.fusing.changes import bias_change, change_norm, weight_change
from tests.support.loras import adapter_of, every_algorithm

SHAPES = [(12, 10), (12, 10, 1, 1), (12, 10, 3, 3)]


def module(tensors: dict[str, torch.Tensor]) -> AdapterModule:
    (found,) = adapter_of({f"m{ending}": tensor for ending, tensor in tensors.items()}).modules
    return found


def weight(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("label", every_algorithm((12, 10)))
def test_every_algorithm_is_recognised_and_fits(shape: tuple[int, ...], label: str) -> None:
    """By its keys alone, on linear layers and convolutions; its change has the weight's size."""
    algorithms = every_algorithm(shape)
    name = "locon" if label == "lora" and shape[2:] == (3, 3) else label
    found = module(algorithms[name])
    assert found.label == (name if name != "sparse" else "locon" if shape[2:] == (3, 3) else "lora")
    assert found.fits(shape)
    assert not found.fits((13, 11, *shape[2:]))
    flat = weight(shape).flatten(1)
    change = weight_change(found, flat, shape, torch.float64)
    assert change.shape == flat.shape
    assert change.norm() > 0.01


@pytest.mark.parametrize("shape", SHAPES)
def test_norms_without_a_weight(shape: tuple[int, ...]) -> None:
    """Where the change does not depend on the weight its norm is known without; else it is not guessed."""
    for label, tensors in every_algorithm(shape).items():
        found = module(tensors)
        norm = change_norm(found, shape, torch.float64)
        if label in ("ia3", "glora", "oft", "boft", "oftv2") or label.startswith("dora"):
            assert norm is None
        else:
            change = weight_change(found, None, shape, torch.float64)
            assert norm == pytest.approx(change.norm().item(), rel=1e-6)


def test_float32_is_close_to_float64() -> None:
    """What is fused with differs from the exact change by rounding only."""
    for label, tensors in every_algorithm((12, 10, 3, 3)).items():
        found = module(tensors)
        flat = weight((12, 10, 3, 3)).flatten(1)
        exact = weight_change(found, flat, (12, 10, 3, 3), torch.float64)
        rough = weight_change(found, flat.float(), (12, 10, 3, 3), torch.float32)
        assert (rough.double() - exact).norm() <= 2e-6 * exact.norm(), label


def test_a_sparse_remainder_is_scaled_like_the_rest() -> None:
    """It is added before alpha / rank is applied."""
    tensors = every_algorithm((12, 10))
    plain, extended = module(tensors["lora"]), module(tensors["sparse"])
    difference = weight_change(extended, None, (12, 10), torch.float64) - weight_change(
        plain, None, (12, 10), torch.float64
    )
    values = tensors["sparse"][".bias_values"].double() * (1.5 / 2)
    assert difference[0, 1].item() == pytest.approx(values[0].item())
    assert difference[1, 0].item() == pytest.approx(values[1].item())
    assert (difference != 0).sum() == 2


@pytest.mark.parametrize(
    ("name", "shape", "inputs"),
    [
        ("dora_scale", (12, 1), None),
        ("dora_scale", (1, 10), 10),
        ("dora_scale", (12,), None),
        ("dora_scale", (10,), 10),
        ("lora_magnitude_vector", (12,), None),
        ("lora_magnitude_vector.weight", (12,), None),
        ("lora_magnitude_vector.default", (12,), None),
        ("lora_magnitude_vector.default.weight", (12,), None),
    ],
)
def test_the_axis_of_magnitudes(name: str, shape: tuple[int, ...], inputs: int | None) -> None:
    """Kohya's by shape, PEFT's always the rows."""
    found = module({**every_algorithm((12, 10))["lora"], f".{name}": torch.ones(shape)})
    assert found.label == "dora"
    assert found.dora_inputs((12, 10)) == inputs
    assert found.fits((12, 10))


def test_the_axis_of_magnitudes_on_a_square_weight() -> None:
    """A kohya vector that may be either is for the inputs, PEFT's for the rows, also on convolutions."""
    lora = every_algorithm((12, 12))["lora"]
    assert module({**lora, ".dora_scale": torch.ones(12)}).dora_inputs((12, 12)) == 12
    assert module({**lora, ".lora_magnitude_vector": torch.ones(12)}).dora_inputs((12, 12)) is None
    wide = every_algorithm((12, 12, 3, 3))["locon"]
    peft = module({**wide, ".lora_magnitude_vector": torch.ones(1, 12, 1, 1)})
    assert peft.dora_inputs((12, 12, 3, 3)) is None
    assert not module({**lora, ".dora_scale": torch.ones(7, 1)}).fits((12, 12))


def test_biases() -> None:
    """diff_b and b_norm as they are, PEFT's bias of the up layer with alpha / rank."""
    lora = every_algorithm((12, 10))["lora"]
    bias = torch.arange(12.0)
    cpu = torch.device("cpu")
    for tensors, factor in (
        ({**lora, ".diff_b": bias}, 1.0),
        ({".diff_b": bias}, 1.0),
        ({".w_norm": torch.ones(12), ".b_norm": bias}, 1.0),
        (
            {
                ".lora_A.weight": lora[".lora_down.weight"],
                ".lora_B.weight": lora[".lora_up.weight"],
                ".lora_B.bias": bias,
                ".alpha": torch.tensor(1.0),
            },
            0.5,
        ),
    ):
        found = module(tensors)
        assert torch.equal(
            bias_change(found, torch.zeros(len(bias), device=cpu), torch.float64), bias.double() * factor
        )
    alone = module({".diff_b": bias})
    assert not alone.changes_weight
    assert alone.label == "full"
    assert change_norm(alone, (12, 10)) == 0.0


ENDINGS = [*sorted(ROLES), ".weight"]


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_whatever_fits_can_be_applied(data: st.DataObject) -> None:
    """Random tensors under random endings are refused, do not fit, or are applied: never a crash."""
    base = data.draw(st.sampled_from(list(every_algorithm((12, 10, 3, 3)).values())))
    tensors = dict(base)
    for _ in range(data.draw(st.integers(1, 2))):
        ending = data.draw(st.sampled_from([*tensors, *ENDINGS]))
        if ending in tensors and data.draw(st.booleans()):
            del tensors[ending]
        else:
            size = data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 10, 12]), max_size=4))
            tensors[ending] = torch.ones(size)
    shape = data.draw(st.sampled_from([*SHAPES, (12,), (4, 2)]))
    try:
        modules = adapter_of(
            {f"m{ending}": tensor for ending, tensor in tensors.items()} | {"x": torch.ones(1)}
        ).modules
    except LoraError:
        return
    for found in modules:
        if found.changes_weight and found.fits(shape):
            flat = weight(shape).reshape(shape[0], -1)
            assert weight_change(found, flat, shape, torch.float64).shape == flat.shape
