"""W' = W + sum of the changes, for every weight that a set touches.

Each weight is touched once: the low-rank members become one product over their concatenated ranks, added to
the pristine weight and rounded once (`products`). What depends on the weight is computed from the pristine.
Members come in a fixed order, so the same set gives the same bits however it was asked for. On the CPU the
weights are shared out among threads; each is computed by one of them, so how many there are changes no bit.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdgrpc.domain import LoraRef
from sdgrpc.domain.blocks import part_of
from sdgrpc.lora.algorithms.frobenius import product_norm
from sdgrpc.lora.bases.module_names import UNET
from sdgrpc.lora.bases.placement import Placed
from sdgrpc.lora.fusing.changes import bias_change, change_norm, factors, weight_change
from sdgrpc.lora.fusing.placed_file import Parameter, PlacedFile
from sdgrpc.lora.fusing.products import LowRank, Products
from sdgrpc.machine.matrices import as_matrix, in_order_of
from sdgrpc.machine.onednn.packing import dense
from sdgrpc.machine.workers import workers

Weights = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a set and how strongly it is applied, on the U-Net and on the text encoders."""

    placed_file: PlacedFile
    strength: float
    text_encoder_strength: float
    block_factors: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, placed_file: PlacedFile, ref: LoraRef) -> Member:
        """A placed file at the strengths that are asked for."""
        return cls(placed_file, ref.strength, ref.text_encoder_strength, dict(ref.block_factors))

    def strength_at(self, component: str, path: str) -> float:
        """Return the strength for a module of a component."""
        strength = self.strength if component == UNET else self.text_encoder_strength
        if not self.block_factors or not strength:
            return strength
        return strength * self.block_factors.get(part_of(component, path), 1.0)

    def greatest_strength(self, component: str) -> float:
        """Return the largest that any module of a component may have, without its sign."""
        strength = self.strength if component == UNET else self.text_encoder_strength
        return abs(strength) * max(map(abs, (1.0, *self.block_factors.values())))

    @property
    def changes_text_encoders(self) -> bool:
        """Whether prompts are encoded with other weights because of it."""
        placed = self.placed_file.placement.placed
        return any(
            each.target.component != UNET and self.strength_at(each.target.component, each.target.path)
            for each in placed
        )

    def active(self) -> list[Placed]:
        """Return the modules that it changes: those whose place has a strength."""
        return [
            placed
            for placed in self.placed_file.placement.placed
            if self.strength_at(placed.target.component, placed.target.path)
        ]


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one member adds to one parameter."""

    placed_file: PlacedFile
    placed: Placed
    strength: float


Plan = dict[Parameter, list[Contribution]]


def plan(members: Sequence[Member]) -> Plan:
    """List for each touched parameter what is added to it, in the members' order."""
    touched: Plan = defaultdict(list)
    for member in members:
        for placed in member.active():
            strength = member.strength_at(placed.target.component, placed.target.path)
            for parameter in placed.parameters:
                touched[parameter].append(Contribution(member.placed_file, placed, strength))
    return touched


class Fuser:
    """Makes fused weights from pristine ones, whose `norms` may be known. Thread safe."""

    def __init__(self, pristine: Weights, norms: Mapping[Parameter, float] | None = None) -> None:
        self._pristine = pristine
        self._products = Products()
        self._norms = dict(norms or {})

    def fuse(
        self,
        planned: Plan,
        outs: Mapping[Parameter, Tensor | None],
        packers: Mapping[Parameter, Callable[[Tensor], Tensor]] | None = None,
    ) -> dict[Parameter, Tensor]:
        """Return every planned parameter, in its `out` where there is one, which lies as the pristine does.

        What has a packer is packed once it is fused. On the CPU the process's workers do it, the largest
        weight first; elsewhere one call after the other.
        """
        fused: dict[Parameter, Tensor] = {}

        def work(parameter: Parameter) -> None:
            # Tensors made in inference mode could not be used outside of it.
            with torch.inference_mode(False), torch.no_grad():
                weight = self._weight(parameter)
                out = outs.get(parameter)
                out = torch.empty_like(weight) if out is None else out
                self._fuse(parameter, planned[parameter], weight, out)
                packer = (packers or {}).get(parameter)
                fused[parameter] = out if packer is None else packer(out)

        weights = {parameter: self._pristine[parameter[0]][parameter[1]] for parameter in planned}
        largest_first = sorted(weights, key=lambda parameter: weights[parameter].numel(), reverse=True)
        if all(weight.device.type == "cpu" for weight in weights.values()):
            workers().share(work, largest_first)
        else:
            for parameter in largest_first:
                work(parameter)
        return fused

    def _weight(self, parameter: Parameter) -> Tensor:
        component, name = parameter
        return dense(self._pristine[component][name])

    def _fuse(
        self, parameter: Parameter, contributions: Sequence[Contribution], weight: Tensor, out: Tensor
    ) -> None:
        if parameter[1].endswith(".bias"):
            added, product = _biases(parameter, contributions, weight), None
        else:
            added = _full(parameter, contributions, weight)
            product = _low_rank(parameter, contributions, weight)
        # The norm is computed here too: by the thread that reads the weight, not by the one that waits.
        norm = self.weight_norm(parameter, weight)
        self._products.add(as_matrix(weight), norm, product, added, as_matrix(out))

    def weight_norm(self, parameter: Parameter, weight: Tensor | None = None) -> float:
        """Frobenius norm of a pristine parameter, computed once, of its `weight` if that is at hand."""
        if parameter not in self._norms:
            known = self._weight(parameter) if weight is None else weight
            self._norms[parameter] = torch.linalg.vector_norm(known, dtype=torch.float32).item()
        return self._norms[parameter]

    def measure(self, member: Member) -> None:
        """Note the norms of a file's changes where they are not known, without fusing it."""
        for parameter, contributions in plan([member]).items():
            if parameter in member.placed_file.norms:
                continue
            weight = self._weight(parameter)
            if parameter[1].endswith(".bias"):
                _biases(parameter, contributions, weight)
            else:
                _full(parameter, contributions, weight)
                _low_rank(parameter, contributions, weight)

    def relative_norm(self, member: Member) -> float:
        """||dW|| / ||W|| over what a fused or measured member touches at its strengths; 0 if nothing."""
        change = weight = 0.0
        norms = member.placed_file.norms
        for placed in member.active():
            strength = member.strength_at(placed.target.component, placed.target.path)
            for parameter in placed.parameters:
                if parameter not in norms:
                    norms[parameter] = change_norm(placed.source, placed.target.weight) or 0.0
                change += (strength * norms[parameter]) ** 2
                weight += self.weight_norm(parameter) ** 2
        return math.sqrt(change / weight) if weight else 0.0


def _biases(parameter: Parameter, contributions: Sequence[Contribution], bias: Tensor) -> Tensor | None:
    """Sum what is added to a bias, `(out, 1)`."""
    total: Tensor | None = None
    for each in contributions:
        change = bias_change(each.placed.source, bias, torch.float32)[:, None]
        each.placed_file.norms.setdefault(parameter, float(change.norm()))
        total = change * each.strength if total is None else total.add_(change, alpha=each.strength)
    return total


def _full(parameter: Parameter, contributions: Sequence[Contribution], weight: Tensor) -> Tensor | None:
    """Sum the changes that are no low-rank products, each computed from the pristine weight."""
    total: Tensor | None = None
    pristine: Tensor | None = None
    for each in contributions:
        source = each.placed.source
        if source.is_low_rank:
            continue
        if pristine is None:
            pristine = weight.reshape(weight.shape[0], -1).to(torch.float32)
        change = weight_change(source, pristine, tuple(weight.shape), torch.float32)
        if parameter not in each.placed_file.norms:
            each.placed_file.norms[parameter] = float(change.norm())
        total = change * each.strength if total is None else total.add_(change, alpha=each.strength)
    return None if total is None else in_order_of(weight, total)


def _low_rank(parameter: Parameter, contributions: Sequence[Contribution], weight: Tensor) -> LowRank | None:
    """Collect all low-rank changes, their strengths multiplied into `up`."""
    ups, downs, norm = [], [], 0.0
    for each in contributions:
        if each.placed.source.is_low_rank:
            up, down = factors(each.placed.source, weight.device, torch.float32)
            norms = each.placed_file.norms
            if parameter not in norms:
                norms[parameter] = product_norm(up, down)
            ups.append(up * each.strength)
            downs.append(in_order_of(weight, down))
            norm += abs(each.strength) * norms[parameter]
    return LowRank(ups, downs, norm) if ups else None
