"""Every algorithm that needs the weight, against its definition in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.functional import conv2d, linear

from sdgrpc.lora.algorithms import dora, multiplicative
from sdgrpc.lora.algorithms.tensors import BadTensors, Size

OUT, IN, RANK = 12, 10, 3
KERNELS = [(), (1, 1), (3, 3)]


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def layer(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return linear(x, weight) if weight.ndim == 2 else conv2d(x, weight, padding=weight.shape[-1] // 2)


def rows(kernel: tuple[int, ...]) -> torch.Tensor:
    return random(2, IN, 5, 5) if kernel else random(4, IN)


def along(values: torch.Tensor, kernel: tuple[int, ...]) -> torch.Tensor:
    """Shape one number per channel so that it scales a layer's input or output."""
    return values.view(-1, 1, 1) if kernel else values


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("on_input", [True, False])
def test_ia3_scales_the_channels_of_a_layer(kernel: tuple[int, ...], on_input: bool) -> None:
    """1 + w times each input or output channel of the layer."""
    weight, x = random(OUT, IN, *kernel), rows(kernel)
    vector = random(IN if on_input else OUT)
    shaped = vector.view(1, -1, 1, 1) if kernel else vector
    tensors = {"weight": shaped, "on_input": torch.tensor(on_input)}
    changed = weight + multiplicative.ia3(weight.flatten(1), tensors).view_as(weight)
    factor = along(1 + vector, kernel)
    expected = layer(weight, x * factor) if on_input else layer(weight, x) * factor
    torch.testing.assert_close(layer(changed, x), expected)
    assert multiplicative.ia3_size(tensors).fits(tuple(weight.shape))
    assert not multiplicative.ia3_size(tensors).fits((OUT + 1, IN + 1, *kernel))


def test_ia3_vectors_that_are_none() -> None:
    """A matrix is no vector and a vector no flag."""
    with pytest.raises(BadTensors, match="vector"):
        multiplicative.ia3_size({"weight": random(2, 2), "on_input": torch.tensor(1)})
    with pytest.raises(BadTensors, match="flag"):
        multiplicative.ia3_size({"weight": random(2), "on_input": torch.ones(2)})
    with pytest.raises(BadTensors, match="flag"):
        multiplicative.ia3_size({"weight": random(2), "on_input": torch.ones(0)})
    assert multiplicative.ia3_size({"weight": random(300), "on_input": torch.tensor(0)}) == Size(rows=300)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("alpha", [None, 2.0])
def test_glora_is_two_layers_beside_and_two_before(kernel: tuple[int, ...], alpha: float | None) -> None:
    """The layer sees x + A x, and B x is added: W (x + a A x) + a B x."""
    weight, x = random(OUT, IN, *kernel), rows(kernel)
    ones = tuple(1 for _ in kernel)
    tensors = {
        "a1": random(IN, RANK, *ones),
        "a2": random(RANK, IN, *ones),
        "b1": random(OUT, RANK, *ones),
        "b2": random(RANK, IN, *kernel),
    }
    factor = 1.0
    if alpha is not None:
        tensors["alpha"], factor = torch.tensor(alpha), alpha / RANK
    changed = weight + multiplicative.glora(weight.flatten(1), tensors).view_as(weight)
    inner = layer(tensors["a1"], layer(tensors["a2"], x))
    beside = layer(tensors["b1"], layer(tensors["b2"], x))
    torch.testing.assert_close(layer(changed, x), layer(weight, x + factor * inner) + factor * beside)
    assert multiplicative.glora_size(tensors).fits(tuple(weight.shape))
    assert multiplicative.glora_rank(tensors) == RANK


def test_glora_with_a_core() -> None:
    """B may be three convolutions: b2 1x1, bm 3x3, b1 1x1."""
    weight, x = random(OUT, IN, 3, 3), rows((3, 3))
    tensors = {
        "a1": random(IN, RANK, 1, 1),
        "a2": random(RANK, IN, 1, 1),
        "b1": random(OUT, RANK, 1, 1),
        "b2": random(RANK, IN, 1, 1),
        "bm": random(RANK, RANK, 3, 3),
    }
    changed = weight + multiplicative.glora(weight.flatten(1), tensors).view_as(weight)
    inner = layer(tensors["a1"], layer(tensors["a2"], x))
    beside = layer(tensors["b1"], layer(tensors["bm"], layer(tensors["b2"], x)))
    torch.testing.assert_close(layer(changed, x), layer(weight, x + inner) + beside)
    assert multiplicative.glora_size(tensors) == Size(OUT, IN * 9, (3, 3), IN)


@pytest.mark.parametrize("out", [OUT, IN])
def test_glora_of_the_old_layout(out: int) -> None:
    """A * (b2 @ b1 + W @ a2 @ a1), recognised by its shapes, on a square weight too."""
    weight = random(out, IN)
    tensors = {
        "a1": random(RANK, IN),
        "a2": random(IN, RANK),
        "b1": random(RANK, IN),
        "b2": random(out, RANK),
        "alpha": torch.tensor(2.0),
    }
    expected = (tensors["b2"] @ tensors["b1"] + weight @ tensors["a2"] @ tensors["a1"]) * (2 / RANK)
    torch.testing.assert_close(multiplicative.glora(weight, tensors), expected)
    assert multiplicative.glora_is_old(tensors)
    assert multiplicative.glora_size(tensors) == Size(out, IN)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([(4, 5), (4, 5), (4, 5), (4, 5)], "partners do not fit"),
        ([(2, 10), (10, 2), (2, 11), (12, 2)], "a2 is for 10 columns"),
        ([(10, 2), (2, 10), (12, 2), (2, 15)], "a1 is for 10 inputs"),
        ([(2, 10), (10, 2), (2, 9), (12, 2)], "a2 is for 10 columns"),
        ([(10, 2), (2, 10), (12, 2), (2, 10), (3, 2, 3, 3)], "do not fit"),
        ([(10, 2), (2, 10), (12, 2), (2, 10), (1, 2, 3, 3)], "do not fit"),
        ([(10, 2), (2, 10), (12, 2), (2, 10, 3, 3), (2, 2, 3, 3)], "do not fit"),
    ],
)
def test_glora_of_neither_layout(shapes: list[tuple[int, ...]], words: str) -> None:
    """Shapes that fit no layout are said to."""
    tensors = {
        role: random(*shape) for role, shape in zip(("a1", "a2", "b1", "b2", "bm"), shapes, strict=False)
    }
    with pytest.raises(BadTensors, match=words):
        multiplicative.glora_size(tensors)


def test_layouts_of_glora_are_told_by_every_side() -> None:
    """All shapes of two numbers, beside what the layouts say; where both fit, the rank is the smaller."""
    for sides in itertools.product((300, 301), repeat=8):
        a1, a2, b1, b2 = zip(sides[::2], sides[1::2], strict=True)
        is_new = {a1[1]} == {a2[0], b1[1], b2[0]} and a1[0] == a2[1]
        is_old = {a1[0]} == {a2[1], b1[0], b2[1]} and a1[1] == a2[0]
        tensors = {
            role: torch.empty(shape, device="meta")
            for role, shape in zip(("a1", "a2", "b1", "b2"), (a1, a2, b1, b2), strict=True)
        }
        if is_new or is_old:
            rank_is_first = a1[0] < a1[1]
            assert multiplicative.glora_is_old(tensors) is (rank_is_first if is_new and is_old else is_old)
        else:
            with pytest.raises(BadTensors, match="partners"):
                multiplicative.glora_is_old(tensors)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("rescaled", [True, False])
def test_oft_turns_blocks_of_rows(kernel: tuple[int, ...], rescaled: bool) -> None:
    """Each block of outputs is turned by an orthogonal matrix, then rescaled; a layer's outputs show it."""
    weight, x = random(OUT, IN, *kernel), rows(kernel)
    tensors = {"oft_blocks": random(3, 4, 4)}
    if rescaled:
        tensors["rescale"] = random(OUT, *(1 for _ in range(weight.ndim - 1)))
    changed = weight + multiplicative.oft(weight.flatten(1), tensors).view_as(weight)
    turns = multiplicative.rotations(tensors["oft_blocks"], 0.0)
    torch.testing.assert_close(turns @ turns.mT, torch.eye(4, dtype=torch.float64).expand(3, 4, 4))
    q = tensors["oft_blocks"][1] - tensors["oft_blocks"][1].T
    identity = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(turns[1], (identity + q) @ torch.linalg.inv(identity - q))
    y = layer(weight, x).movedim(1, -1) if kernel else layer(weight, x)
    turned = y @ torch.block_diag(*turns)  # y' = R' y, written for rows
    turned = turned * tensors["rescale"].flatten() if rescaled else turned
    expected = turned.movedim(-1, 1) if kernel else turned
    torch.testing.assert_close(layer(changed, x), expected)
    assert multiplicative.oft_size(tensors) == Size(OUT)


def test_oft_is_held_to_its_constraint() -> None:
    """Beyond alpha times the rows, all Q are shortened together; within, nothing happens."""
    blocks, weight = random(3, 4, 4), random(OUT, IN)
    q = blocks - blocks.mT
    length = torch.linalg.vector_norm(q).item()
    tight, loose = length / 2 / OUT, length * 2 / OUT
    identity = torch.eye(4, dtype=torch.float64)
    half = torch.linalg.solve(identity - q / 2, identity + q / 2, left=False)
    expected = torch.block_diag(*half).T @ weight - weight
    actual = multiplicative.oft(weight, {"oft_blocks": blocks, "alpha": torch.tensor(tight).double()})
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-7)
    free = multiplicative.oft(weight, {"oft_blocks": blocks})
    held = multiplicative.oft(weight, {"oft_blocks": blocks, "alpha": torch.tensor(loose).double()})
    assert torch.equal(free, held)


def test_oft_of_old_files_is_the_rotation_itself() -> None:
    """`oft_diag` is R, not what R is made of."""
    turns, weight = random(3, 4, 4), random(OUT, IN)
    expected = torch.block_diag(*turns).T @ weight - weight
    torch.testing.assert_close(multiplicative.oft(weight, {"oft_diag": turns}), expected)


@pytest.mark.parametrize(
    ("stages", "block", "count"), [(1, 4, 4), (2, 4, 4), (3, 4, 4), (3, 2, 8), (2, 6, 4)]
)
def test_boft_is_a_product_of_butterflies(stages: int, block: int, count: int) -> None:
    """Stage i turns, with block j, the rows that the butterfly pairs there: an explicit sparse matrix."""
    size = block * count
    tensors = {"oft_blocks": random(stages, count, block, block)}
    weight = random(size, IN)
    turns = multiplicative.rotations(tensors["oft_blocks"], 0.0)
    total = weight
    for stage in range(stages):
        apart = 2**stage * block // 2
        groups = torch.arange(size).view(-1, 2, apart).transpose(1, 2).reshape(count, block)
        butterfly = torch.zeros(size, size, dtype=torch.float64)
        for number, group in enumerate(groups):
            butterfly[group[:, None], group[None, :]] = turns[stage, number]
        total = butterfly @ total
    torch.testing.assert_close(multiplicative.boft(weight, tensors), total - weight)
    torch.testing.assert_close(total.T @ total, weight.T @ weight)
    assert multiplicative.oft_size(tensors) == Size(size)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"oft_blocks": random(3, 4, 5)}, "not square"),
        ({"oft_blocks": random(3, 5, 4)}, "not square"),
        ({"oft_diag": random(2, 3, 4, 4)}, "does not know"),
        ({"oft_blocks": random(3, 4, 4), "rescale": random(13)}, "for 12 rows"),
        ({"oft_blocks": random(3, 2, 2, 2)}, "no butterfly"),
        ({"oft_blocks": random(2, 3, 4, 4)}, "no butterfly"),
        ({"oft_blocks": random(1, 4, 3, 3)}, "no butterfly"),
        ({"oft_blocks": random(3, 4, 4), "rescale": random(5)}, "for 12 rows"),
        ({"oft_blocks": random(4, 4)}, "does not know"),
    ],
)
def test_oft_blocks_that_are_none(tensors: dict[str, torch.Tensor], words: str) -> None:
    """Blocks must be square and fit together."""
    with pytest.raises(BadTensors, match=words):
        multiplicative.oft_size(tensors)


def test_oft_of_large_blocks() -> None:
    """With a number for each row; a constraint below 0 is none."""
    assert multiplicative.oft_size({"oft_blocks": random(1, 300, 300), "rescale": random(300)}) == Size(300)
    blocks = random(2, 3, 3)
    assert torch.equal(multiplicative.rotations(blocks, -1.0), multiplicative.rotations(blocks, 0.0))


class Net(nn.Module):
    """One layer, for PEFT to wrap."""

    def __init__(self, kernel: tuple[int, ...]) -> None:
        super().__init__()
        self.a = nn.Conv2d(IN, OUT, kernel, bias=False) if kernel else nn.Linear(IN, OUT, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("by_inputs", [True, False])
def test_dora_gives_the_columns_or_rows_their_magnitudes(kernel: tuple[int, ...], by_inputs: bool) -> None:
    """Afterwards each row (or input channel) is as long as its magnitude and points where W + dW does."""
    weight, change = random(OUT, IN, *kernel), random(OUT, IN, *kernel) / 2
    magnitude = random(IN if by_inputs else OUT).abs()
    inputs = IN if by_inputs else None
    flat = dora.dora(weight.flatten(1), change.flatten(1), magnitude, inputs=inputs)
    changed = (weight + flat.view_as(weight)).transpose(0, 1 if by_inputs else 0).flatten(1)
    target = (weight + change).transpose(0, 1 if by_inputs else 0).flatten(1)
    torch.testing.assert_close(changed.norm(dim=1), magnitude, rtol=1e-6, atol=1e-6)
    cosine = nn.functional.cosine_similarity(changed, target)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_dora_is_what_peft_computes(kernel: tuple[int, ...]) -> None:
    """The merged weight of PEFT's own DoRA layer, at strength 1."""
    torch.manual_seed(0)
    net = Net(kernel).double()
    weight = net.a.weight.detach().clone()
    config = LoraConfig(r=RANK, lora_alpha=6, target_modules=["a"], use_dora=True, init_lora_weights=False)
    model = get_peft_model(net, config).double()
    wrapped = model.base_model.model.a
    up, down = (wrapped.lora_B["default"].weight.detach(), wrapped.lora_A["default"].weight.detach())
    magnitude = wrapped.lora_magnitude_vector["default"].weight.detach() * 1.3
    wrapped.lora_magnitude_vector["default"].weight.data = magnitude
    merged = model.merge_and_unload().a.weight.detach()
    change = 6 / RANK * up.flatten(1) @ down.flatten(1)
    flat = dora.dora(weight.flatten(1), change, magnitude, inputs=None)
    torch.testing.assert_close(weight + flat.view_as(weight), merged, rtol=1e-5, atol=1e-6)
    assert math.prod(magnitude.shape) == OUT


def test_dora_of_a_row_near_nothing_stays_small() -> None:
    """LyCORIS adds float32's epsilon to the norm: a row that long gets half of its magnitude."""
    small = torch.finfo(torch.float32).eps
    weight = torch.tensor([[small, 0.0], [3.0, 4.0]], dtype=torch.float64)
    flat = dora.dora(weight, torch.zeros_like(weight), torch.tensor([2.0, 10.0]).double(), inputs=None)
    torch.testing.assert_close(weight + flat, torch.tensor([[1.0, 0.0], [6.0, 8.0]]).double())
