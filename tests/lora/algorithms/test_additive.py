"""Every additive algorithm against its formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv2d

from sdgrpc.lora.algorithms import additive
from sdgrpc.lora.algorithms.additive import lora, lora_size
from sdgrpc.lora.algorithms.frobenius import product_norm
from sdgrpc.lora.algorithms.tensors import BadTensors, Size

RANK = 3
OUT, IN = 12, 10


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected.flatten(1), rtol=1e-12, atol=1e-12)


def with_alpha(tensors: dict[str, torch.Tensor], alpha: float | None) -> dict[str, torch.Tensor]:
    return tensors if alpha is None else {**tensors, "alpha": torch.tensor(alpha)}


@pytest.mark.parametrize("alpha", [None, 0.5, 3.0, 0.0])
@pytest.mark.parametrize(("kernel", "stride"), [((), ()), ((1, 1), (1, 1)), ((3, 3), (1, 1))])
def test_lora_is_what_two_layers_compute(
    alpha: float | None, kernel: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    """The change does to an input what down and up in a row do, which is how LoRA is defined."""
    tensors = with_alpha({"down": random(RANK, IN, *kernel), "up": random(OUT, RANK, *stride)}, alpha)
    up, down = lora(tensors)
    delta = (up @ down).view(OUT, IN, *kernel)
    factor = 1.0 if alpha is None else alpha / RANK
    if kernel:
        image = random(2, IN, 6, 6)
        padding = kernel[0] // 2
        expected = conv2d(conv2d(image, tensors["down"], padding=padding), tensors["up"]) * factor
        torch.testing.assert_close(conv2d(image, delta, padding=padding), expected)
    else:
        rows = random(4, IN)
        torch.testing.assert_close(rows @ delta.T, rows @ tensors["down"].T @ tensors["up"].T * factor)
    assert lora_size(tensors).fits((OUT, IN, *kernel))


def test_tucker_lora_is_what_three_layers_compute() -> None:
    """With a core the change is down (1x1), mid (3x3), up (1x1) in a row."""
    tensors = {
        "down": random(RANK, IN, 1, 1),
        "mid": random(RANK, RANK, 3, 3),
        "up": random(OUT, RANK, 1, 1),
        "alpha": torch.tensor(2.0),
    }
    up, down = lora(tensors)
    image = random(2, IN, 6, 6)
    layers = conv2d(conv2d(conv2d(image, tensors["down"]), tensors["mid"], padding=1), tensors["up"])
    actual = conv2d(image, (up @ down).view(OUT, IN, 3, 3), padding=1)
    torch.testing.assert_close(actual, layers * (2 / RANK))
    flat = [tensors[role].flatten(1) for role in ("up", "down")]
    same(up @ down, torch.einsum("mnkl,im,nj->ijkl", tensors["mid"], *flat) * (2 / RANK))
    assert lora_size(tensors) == Size(OUT, IN * 9, (3, 3))


def test_a_scale_replaces_alpha_over_rank() -> None:
    """`.scale` is the factor itself, whatever alpha says."""
    tensors = {"down": random(RANK, IN), "up": random(OUT, RANK), "alpha": torch.tensor(7.0)}
    up, down = lora({**tensors, "scale": torch.tensor(0.25)})
    same(up @ down, 0.25 * tensors["up"] @ tensors["down"])


def test_product_norm_is_the_norm_of_the_product() -> None:
    """The norm is that of the full matrix, without making it."""
    up, down = random(40, RANK), random(RANK, 30)
    assert product_norm(up, down) == pytest.approx(torch.linalg.matrix_norm(up @ down).item(), rel=1e-12)
    assert product_norm(up * 0, down) == 0.0


@pytest.mark.parametrize("alpha", [None, 2.0, 0.0])
@pytest.mark.parametrize("columns", [IN, IN * 9])
def test_loha_is_a_product_of_two_products(alpha: float | None, columns: int) -> None:
    """Each entry is the product of the entries of two low-rank matrices."""
    parts = {f"hada_w{n}_a": random(OUT, RANK) + n for n in (1, 2)}
    parts |= {f"hada_w{n}_b": random(RANK, columns) - n for n in (1, 2)}
    tensors = with_alpha(parts, alpha)
    first, second = (tensors[f"hada_w{n}_a"] @ tensors[f"hada_w{n}_b"] for n in (1, 2))
    factor = 1.0 if alpha is None else alpha / RANK
    same(additive.loha(tensors), first * second * factor)
    assert additive.loha_size(tensors) == Size(OUT, columns)
    assert additive.loha_rank(tensors) == RANK


def test_loha_with_cores() -> None:
    """With Tucker's cores each matrix is a core with a factor for the rows and one for the inputs."""
    tensors = {"alpha": torch.tensor(1.5)}
    products = []
    for n in (1, 2):
        core, rows, inputs = random(RANK, RANK, 3, 3) + n, random(RANK, OUT) * n, random(RANK, IN) - n
        tensors |= {f"hada_t{n}": core, f"hada_w{n}_a": rows, f"hada_w{n}_b": inputs}
        products.append(torch.einsum("ijkl,jr,ip->prkl", core, inputs, rows))
    same(additive.loha(tensors), products[0] * products[1] * (1.5 / RANK))
    assert additive.loha_size(tensors) == Size(OUT, IN * 9, (3, 3))


KRON = {
    "whole and whole": {"lokr_w1": (3, 2), "lokr_w2": (4, 5)},
    "whole and product": {"lokr_w1": (3, 2), "lokr_w2_a": (4, RANK), "lokr_w2_b": (RANK, 5)},
    "product and whole": {"lokr_w1_a": (3, RANK), "lokr_w1_b": (RANK, 2), "lokr_w2": (4, 5)},
    "product and product": {
        "lokr_w1_a": (3, 2),
        "lokr_w1_b": (2, 2),
        "lokr_w2_a": (4, RANK),
        "lokr_w2_b": (RANK, 5),
    },
    "kernel, whole": {"lokr_w1": (3, 2), "lokr_w2": (4, 5, 3, 3)},
    "kernel, product": {"lokr_w1": (3, 2), "lokr_w2_a": (4, RANK), "lokr_w2_b": (RANK, 45)},
    "kernel, core": {
        "lokr_w1": (3, 2),
        "lokr_t2": (RANK, RANK, 3, 3),
        "lokr_w2_a": (RANK, 4),
        "lokr_w2_b": (RANK, 5),
    },
}


@pytest.mark.parametrize("alpha", [None, 2.0])
@pytest.mark.parametrize("name", KRON)
def test_lokr_is_a_kronecker_product(name: str, alpha: float | None) -> None:
    """Block (i, j) of the change is w1[i, j] times w2, in every factoring, with the kernel inside w2."""
    tensors = with_alpha({role: random(*shape) for role, shape in KRON[name].items()}, alpha)  # type: ignore[attr-defined]
    first, second = (tensors.get(f"lokr_w{n}") for n in (1, 2))
    if first is None:
        first = tensors["lokr_w1_a"] @ tensors["lokr_w1_b"]
    if "lokr_t2" in tensors:
        second = torch.einsum(
            "ijkl,jr,ip->prkl", tensors["lokr_t2"], tensors["lokr_w2_b"], tensors["lokr_w2_a"]
        )
    elif second is None:
        second = tensors["lokr_w2_a"] @ tensors["lokr_w2_b"]
    if "kernel" in name:
        second = second.reshape(4, 5, 3, 3)
    whole = {"lokr_w1", "lokr_w2"} <= tensors.keys()
    factor = 1.0 if alpha is None or whole else alpha / RANK
    expected = torch.empty(12, 10, *second.shape[2:], dtype=torch.float64)
    for i in range(3):
        for j in range(2):
            expected[4 * i : 4 * i + 4, 5 * j : 5 * j + 5] = first[i, j] * second
    same(additive.lokr(tensors), expected * factor)
    assert additive.lokr_size(tensors).fits(tuple(expected.shape))
    assert additive.lokr_rank(tensors) == (None if whole else RANK)


def test_lokr_of_2023_splits_the_kernel_over_both_factors() -> None:
    """w1 20x60 and w2 16x48 make a 320x320x3x3 convolution by a plain reshape."""
    tensors = {"lokr_w1": random(20, 60), "lokr_w2": random(16, 48)}
    assert additive.lokr_size(tensors).fits((320, 320, 3, 3))
    same(additive.lokr(tensors), torch.kron(tensors["lokr_w1"], tensors["lokr_w2"]))


def test_lokr_of_rank_one_obeys_alpha() -> None:
    """Rank 1 is a rank like any other."""
    tensors = {"lokr_w1": random(3, 2), "lokr_w2_a": random(4, 1), "lokr_w2_b": random(1, 5)}
    whole = torch.kron(tensors["lokr_w1"], tensors["lokr_w2_a"] @ tensors["lokr_w2_b"])
    same(additive.lokr(with_alpha(tensors, 0.5)), 0.5 * whole)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"up": random(7, 2), "down": random(3, 5)}, "rank 2"),
        ({"up": random(7, 3, 3, 3), "down": random(3, 5)}, "1x1"),
        ({"up": random(7), "down": random(3, 5)}, "does not know"),
        ({"up": random(7, 0), "down": random(0, 5)}, "does not know"),
        ({"up": random(7, 3), "down": random(3, 5, 1)}, "does not know"),
        ({"up": random(7, 3), "down": random(3, 5), "mid": random(2, 3, 3, 3)}, "rank 3"),
        ({"up": random(7, 3), "down": random(2, 5), "mid": random(3, 4, 3, 3)}, "rank 2"),
        ({"up": random(7, 3), "down": random(5, 5), "mid": random(3, 4, 3, 3)}, "rank 5"),
        ({"up": random(7, 3), "down": random(3, 5), "mid": random(3, 3)}, "does not know"),
        ({"up": random(7, 3), "down": random(3, 5, 3, 3), "mid": random(3, 3, 3, 3)}, "beside a core"),
    ],
)
def test_factors_that_contradict_each_other(tensors: dict[str, torch.Tensor], words: str) -> None:
    """Shapes that are no LoRA's are said to be none."""
    with pytest.raises(BadTensors, match=words):
        lora_size(tensors)


def test_ranks_are_compared_as_numbers() -> None:
    """However large they are."""
    rank = 300
    core = random(rank, rank, 1, 1)
    tensors = {"up": random(7, rank), "down": random(rank, 5), "mid": core}
    assert lora_size(tensors) == Size(7, 5, (1, 1))
    pairs = {f"hada_w{n}_a": random(rank, 7) for n in (1, 2)} | {
        f"hada_w{n}_b": random(rank, 5) for n in (1, 2)
    }
    assert additive.loha_size(pairs | {"hada_t1": core, "hada_t2": core}) == Size(7, 5, (1, 1))
    plain = {f"hada_w{n}_a": random(7, rank) for n in (1, 2)} | {
        f"hada_w{n}_b": random(rank, 5) for n in (1, 2)
    }
    assert additive.loha_size(plain) == Size(7, 5)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"hada_w1_a": random(OUT, 2)}, "rank 2"),
        ({"hada_w2_a": random(OUT + 1, RANK)}, "the first pair for"),
        ({"hada_w1_a": random(OUT, RANK + 1)}, f"rank {RANK + 1}"),
        ({"hada_t1": random(RANK, RANK, 3, 3)}, "come in pairs"),
        ({"hada_t2": random(RANK, RANK, 3, 3)}, "come in pairs"),
        *(
            ({name: random(*ranks, 3, 3) for name in ("hada_t1", "hada_t2")}, "do not fit")
            for ranks in ((2, RANK), (RANK + 1, RANK), (RANK, RANK - 1), (RANK, RANK + 1))
        ),
    ],
)
def test_loha_factors_that_contradict_each_other(changed: dict[str, torch.Tensor], words: str) -> None:
    """The same for LoHa."""
    tensors = {
        f"hada_w{n}_{p}": random(OUT, RANK) if p == "a" else random(RANK, IN) for n in (1, 2) for p in "ab"
    }
    with pytest.raises(BadTensors, match=words) as caught:
        additive.loha_size(tensors | changed)
    assert caught.value.role in changed


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"lokr_w1": random(2, 2)}, "lokr_w2_a and lokr_w2_b, is missing"),
        ({"lokr_w1_a": random(2, 2), "lokr_w2": random(2, 2)}, "is missing"),
        ({"lokr_w1": random(2, 2), "lokr_w2_a": random(2, 2), "lokr_w2_b": random(3, 2)}, "rank 2"),
        ({"lokr_w1": random(2), "lokr_w2": random(2, 2)}, "does not know"),
    ],
)
def test_lokr_factors_that_contradict_each_other(tensors: dict[str, torch.Tensor], words: str) -> None:
    """The same for LoKr."""
    with pytest.raises(BadTensors, match=words):
        additive.lokr_size(tensors)


@pytest.mark.parametrize(
    ("size", "weight", "fits"),
    [
        (Size(4, 6), (4, 6), True),
        (Size(4, 6), (4, 6, 1, 1), True),
        (Size(4, 6, (1, 1)), (4, 6), True),
        (Size(4, 6), (6, 4), False),
        (Size(4, 6), (4, 5), False),
        (Size(4, 54, (3, 3)), (4, 6, 3, 3), True),
        (Size(4, 54, (3, 3)), (4, 54), True),
        (Size(4, 54, (1, 1)), (4, 6, 3, 3), False),
        (Size(None, 6), (9, 6), True),
        (Size(9, None), (9, 6), True),
        (Size(9, 1), (9,), True),
        (Size(inputs=6), (4, 6, 3, 3), True),
        (Size(inputs=6), (4, 54), False),
        (Size(inputs=1), (9,), True),
        (Size(step=4), (9, 8), True),
        (Size(step=4), (9, 6), False),
    ],
)
def test_sizes_fit_their_weights(size: Size, weight: tuple[int, ...], fits: bool) -> None:
    """Linear and 1x1 convolution are the same; nothing is ever transposed."""
    assert size.fits(weight) is fits


def test_sizes_are_said_in_words() -> None:
    """For messages."""
    assert (str(Size(4, 6)), str(Size(inputs=6)), str(Size(4))) == ("4 x 6", "any x 6", "4 x any")
