"""What is trained for one module's weight: the factors of LoRA, LoHa, LoKr and DoRA, and what each changes.

The formulas are those of the papers, written here apart from the service's own (`sdgrpc.lora`): a file that
was trained with one and drawn with the other shows that both mean the same.
"""

from dataclasses import dataclass
from math import gcd
from typing import Self

import torch
from torch import Tensor, nn

KOHYA = "lora_down.weight", "lora_up.weight"


@dataclass
class Factor:
    """LoRA: down [r, in] or [r, in, kh, kw], up [out, r]; the change is up @ down (alpha = rank)."""

    down: Tensor
    up: Tensor

    @classmethod
    def make(cls, weight: Tensor, rank: int, generator: torch.Generator) -> Self:
        """Random down, zero up: training starts at the base."""
        down = torch.randn((rank, *weight.shape[1:]), generator=generator) / weight[0].numel() ** 0.5
        return cls(down, torch.zeros(weight.shape[0], rank))

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Self:
        """The factors of a module that a file spells in kohya's names."""
        return cls(tensors[KOHYA[0]], tensors[KOHYA[1]].flatten(1))

    def delta(self) -> Tensor:
        """The change of the weight at strength 1, in the weight's shape."""
        return (self.up @ self.down.flatten(1)).unflatten(1, self.down.shape[1:])

    def change(self, _weight: Tensor) -> Tensor:
        """The change of this weight at strength 1."""
        return self.delta()

    def parameters(self) -> list[Tensor]:
        """What is trained."""
        return [self.down, self.up]

    def tensors(self) -> dict[str, Tensor]:
        """Suffix of kohya's spelling -> tensor."""
        kernel = (1,) * (self.down.dim() - 2)
        up = self.up.reshape(*self.up.shape, *kernel)
        return {KOHYA[0]: self.down, KOHYA[1]: up, "alpha": torch.tensor(float(len(self.down)))}


@dataclass
class Hadamard:
    """LoHa (FedPara, Hyeon-Woo et al. 2022): (w1_a @ w1_b) * (w2_a @ w2_b) / r, alpha being 1.

    `_a` [out, r], `_b` [r, columns].
    """

    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor

    @classmethod
    def make(cls, weight: Tensor, rank: int, generator: torch.Generator) -> Self:
        """Random factors but a zero w2_a: training starts at the base."""
        rows, columns = weight.shape[0], weight[0].numel()
        w1_a = torch.randn((rows, rank), generator=generator) * 0.1
        w1_b, w2_b = (torch.randn((rank, columns), generator=generator) for _ in range(2))
        return cls(w1_a, w1_b, torch.zeros(rows, rank), w2_b)

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Self:
        """The factors of a module that a file spells in LyCORIS's names."""
        return cls(*(tensors[f"hada_{name}"] for name in ("w1_a", "w1_b", "w2_a", "w2_b")))

    def change(self, weight: Tensor) -> Tensor:
        """The change of this weight at strength 1."""
        product = (self.w1_a @ self.w1_b) * (self.w2_a @ self.w2_b)
        return (product / len(self.w1_b)).reshape(weight.shape)

    def parameters(self) -> list[Tensor]:
        """What is trained."""
        return [self.w1_a, self.w1_b, self.w2_a, self.w2_b]

    def tensors(self) -> dict[str, Tensor]:
        """Suffix of LyCORIS's spelling -> tensor."""
        names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
        return dict(zip(names, self.parameters(), strict=True)) | {"alpha": torch.tensor(1.0)}


@dataclass
class Kronecker:
    """LoKr (Yeh et al. 2023): kron(w1, w2), w1 [f, f].

    For linear layers w2 is whole, [out/f, in/f], and alpha says nothing; for convolutions it is
    w2_a [out/f, r] @ w2_b [r, in/f * kh * kw] / r, alpha being 1.
    """

    w1: Tensor
    w2_a: Tensor | None
    w2_b: Tensor

    @classmethod
    def make(cls, weight: Tensor, rank: int, generator: torch.Generator) -> Self:
        """Random factors but a zero second one: training starts at the base."""
        f = gcd(gcd(weight.shape[0], weight.shape[1]), 4)
        rows, columns = weight.shape[0] // f, weight[0].numel() // f
        w1 = torch.randn((f, f), generator=generator) / f**0.5
        if weight.dim() == 2:
            return cls(w1, None, torch.zeros(rows, columns))
        return cls(w1, torch.randn((rows, rank), generator=generator), torch.zeros(rank, columns))

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Self:
        """The factors of a module that a file spells in LyCORIS's names."""
        whole = tensors.get("lokr_w2")
        if whole is not None:
            return cls(tensors["lokr_w1"], None, whole)
        return cls(tensors["lokr_w1"], tensors["lokr_w2_a"], tensors["lokr_w2_b"])

    def change(self, weight: Tensor) -> Tensor:
        """The change of this weight at strength 1: block (i, j) is w1[i, j] * w2, the kernel last."""
        second = self.w2_b if self.w2_a is None else self.w2_a @ self.w2_b / len(self.w2_b)
        return torch.kron(self.w1, second).reshape(weight.shape)

    def parameters(self) -> list[Tensor]:
        """What is trained."""
        return [t for t in (self.w1, self.w2_a, self.w2_b) if t is not None]

    def tensors(self) -> dict[str, Tensor]:
        """Suffix of LyCORIS's spelling -> tensor."""
        alpha = {"alpha": torch.tensor(1.0)}
        if self.w2_a is None:
            return {"lokr_w1": self.w1, "lokr_w2": self.w2_b} | alpha
        return {"lokr_w1": self.w1, "lokr_w2_a": self.w2_a, "lokr_w2_b": self.w2_b} | alpha


@dataclass
class Decomposed:
    """DoRA (Liu et al. 2024) on a LoRA: W' = m * (W + up @ down) / ||W + up @ down||, a norm per row.

    The magnitudes m [out, 1(, 1, 1)] are those of the rows, LyCORIS's `wd_on_out`, its default today.
    """

    factor: Factor
    magnitude: Tensor

    @classmethod
    def make(cls, weight: Tensor, rank: int, generator: torch.Generator) -> Self:
        """Fresh factors, and the base's own magnitudes: training starts at the base."""
        return cls(Factor.make(weight, rank, generator), row_norms(weight).detach().clone())

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Self:
        """The factors and magnitudes of a module that a file spells in kohya's names."""
        return cls(Factor.of(tensors), tensors["dora_scale"])

    def change(self, weight: Tensor) -> Tensor:
        """The change of this weight at strength 1: W' - W."""
        moved = weight + self.factor.delta()
        return self.magnitude * moved / row_norms(moved) - weight

    def parameters(self) -> list[Tensor]:
        """What is trained."""
        return [*self.factor.parameters(), self.magnitude]

    def tensors(self) -> dict[str, Tensor]:
        """Suffix of kohya's spelling -> tensor."""
        return self.factor.tensors() | {"dora_scale": self.magnitude}


Trained = Factor | Hadamard | Kronecker | Decomposed
Factors = dict[str, Trained]
KINDS: dict[str, type[Factor] | type[Hadamard] | type[Kronecker] | type[Decomposed]] = {
    "lora": Factor,
    "loha": Hadamard,
    "lokr": Kronecker,
    "dora": Decomposed,
}


def row_norms(weight: Tensor) -> Tensor:
    """[out, 1(, 1, 1)]: the norm of each row of a weight [out, in(, kh, kw)]."""
    return weight.flatten(1).norm(dim=1).reshape(-1, *(1,) * (weight.dim() - 1))


def of_tensors(tensors: dict[str, Tensor]) -> Trained:
    """What a module's tensors (suffix -> tensor) are the factors of."""
    if "dora_scale" in tensors:
        return Decomposed.of(tensors)
    if "hada_w1_a" in tensors:
        return Hadamard.of(tensors)
    return Kronecker.of(tensors) if "lokr_w1" in tensors else Factor.of(tensors)


def make(
    model: nn.Module, names: list[str], rank: int, generator: torch.Generator, kind: str = "lora"
) -> Factors:
    """Fresh trainable factors of the named modules: a model with them draws what it drew before."""
    made: Factors = {
        name: KINDS[kind].make(model.get_submodule(name).weight.detach(), rank, generator)  # type: ignore[operator]
        for name in names
    }
    for tensor in parameters(made):
        tensor.requires_grad_(True)
    return made


def parameters(factors: Factors) -> list[Tensor]:
    """All trainable tensors of some factors."""
    return [tensor for factor in factors.values() for tensor in factor.parameters()]
