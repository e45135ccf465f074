"""Weights that stand in for a model's own, and the switch that puts them there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Overlay:
    """The weights that a LoRA set changes: component -> parameter name -> tensor. Never written once made."""

    tensors: Mapping[str, Tensors]

    @property
    def nbytes(self) -> int:
        """Bytes that the tensors hold."""
        return sum(tensor.nbytes for named in self.tensors.values() for tensor in named.values())


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


class Buffers:
    """Memory of evicted sets, to be filled again: fresh memory costs more than the arithmetic.

    A buffer serves any tensor of its bytes and dtype; `nbytes` is what waits here. Not thread safe.
    """

    def __init__(self) -> None:
        self._free: dict[Kind, list[Tensor]] = defaultdict(list)
        self.nbytes = 0

    def give(self, overlay: Overlay) -> None:
        """Take over the memory of an overlay that nobody uses any more."""
        for tensors in overlay.tensors.values():
            for tensor in tensors.values():
                self._free[kind(tensor)].append(tensor.as_strided((tensor.numel(),), (1,)))
                self.nbytes += tensor.nbytes

    def take(self, like: Tensor) -> Tensor | None:
        """Return memory for a tensor like this dense one, in its layout; None if none waits."""
        free = self._free.get(kind(like))
        if not free:
            return None
        self.nbytes -= like.nbytes
        return free.pop().as_strided(like.shape, like.stride())

    def trim(self, nbytes: int) -> None:
        """Give memory back to the system, the largest buffers first, until at most `nbytes` wait."""
        for key in sorted(self._free, key=lambda key: key[0], reverse=True):
            free = self._free[key]
            while free and self.nbytes > nbytes:
                self.nbytes -= free.pop().nbytes


Kind = tuple[int, torch.dtype, torch.device]


def kind(tensor: Tensor) -> Kind:
    """Return what two tensors have in common if one can have the other's memory."""
    return tensor.nbytes, tensor.dtype, tensor.device
