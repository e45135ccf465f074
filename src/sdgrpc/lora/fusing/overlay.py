"""Weights that stand in for a model's own, and the switch that puts them there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Product:
    """What a set adds to weights of one shape, `up` `(k, out, r)` times `down` `(k, r, columns)`.

    Both are in the weights' dtype. `slots` are the numbers of the k weights, in ascending order, in the stack
    of number `stack`; see `lora.resident.stacks`.
    """

    stack: int
    slots: tuple[int, ...]
    up: Tensor
    down: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of both factors."""
        return self.up.nbytes + self.down.nbytes


@dataclass(frozen=True, eq=False)
class Overlay:
    """The weights that a LoRA set changes: component -> parameter name -> tensor. Never written once made.

    `products` are, per component, what it adds to others where factors are resident.
    """

    tensors: Mapping[str, Tensors]
    products: Mapping[str, Sequence[Product]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes that the tensors and the factors hold."""
        whole = sum(tensor.nbytes for named in self.tensors.values() for tensor in named.values())
        return whole + sum(one.nbytes for products in self.products.values() for one in products)


class OverlaySwitch:
    """Points a module's parameters at an overlay's tensors, and back.

    It swaps the Parameter objects that the module looks up; neither the pristine ones nor the overlay's are
    ever written, so going back is exact to the bit. One thread uses one switch.
    """

    def __init__(self, module: nn.Module) -> None:
        self._slots = {
            f"{path}.{leaf}" if path else leaf: (owner, leaf, parameter)
            for path, owner in module.named_modules()
            for leaf, parameter in owner.named_parameters(recurse=False)
        }
        self._active: Tensors = {}

    def use(self, tensors: Tensors) -> None:
        """Put these tensors in place of the parameters they name, and the pristine ones elsewhere.

        No work if this very mapping is active already, or none is and none is wanted.

        Raises:
            KeyError: a name that the module does not have; nothing is changed then.

        """
        if tensors is self._active or not (tensors or self._active):
            return
        wanted = {name: (*self._slots[name][:2], tensor) for name, tensor in tensors.items()}
        for name in self._active.keys() - wanted.keys():
            owner, leaf, pristine = self._slots[name]
            owner._parameters[leaf] = pristine  # setattr would search three dictionaries
        for owner, leaf, tensor in wanted.values():
            owner._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
        self._active = tensors
