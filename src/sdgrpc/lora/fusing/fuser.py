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

from sdgrpc.domain import LoraRef, RecommendedSampling
from sdgrpc.domain.blocks import part_of
from sdgrpc.lora.algorithms.frobenius import product_norm
from sdgrpc.lora.bases.module_names import UNET
from sdgrpc.lora.bases.placement import Placed, Placement
from sdgrpc.lora.dialects.adapter import Adapter
from sdgrpc.lora.dialects.tokens import NO_TOKENS, Vocabulary
from sdgrpc.lora.fusing.changes import bias_change, change_norm, factors, weight_change
from sdgrpc.lora.fusing.matrices import as_matrix, in_order_of
from sdgrpc.lora.fusing.products import LowRank, Products
from sdgrpc.lora.headers.made_for import made_for
from sdgrpc.machine.packing import dense
from sdgrpc.machine.workers import workers

Weights = Mapping[str, Mapping[str, Tensor]]
Parameter = tuple[str, str]
"""A component and the name of one of its parameters."""


@dataclass(eq=False)
class PlacedFile:
    """A file that has its place in the model, and the norms of its changes at strength 1, as far as known.

    It does not hold the adapter: it is kept as long as somebody else keeps that. `warned` are the warnings of
    a report with how many norms were known when they were made.
    """

    placement: Placement
    unmatched: tuple[str, ...]
    vocabulary: Vocabulary = NO_TOKENS
    autov3: str = ""
    recommended: RecommendedSampling | None = None
    norms: dict[Parameter, float] = field(default_factory=dict)
    warned: tuple[int, tuple[str, ...]] = (-1, ())

    @classmethod
    def of(cls, adapter: Adapter, placement: Placement, widths: Mapping[str, int]) -> PlacedFile:
        """Keep of an adapter what reports and prompts need; `widths` are the model's token embeddings'."""
        vocabulary = Vocabulary.of(adapter.tokens, widths)
        unmatched = (*placement.unmatched(adapter), *vocabulary.unmatched)
        return cls(placement, unmatched, vocabulary, adapter.autov3, _recommended(adapter, placement))


def _recommended(adapter: Adapter, placement: Placement) -> RecommendedSampling | None:
    paths = [f"{one.target.component}.{one.target.path}" for one in placement.placed]
    return made_for(adapter.name, adapter.metadata, paths, [one.source.rank for one in placement.placed])


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
        """Return every planned parameter, in its `out` where there is one.

        That lies in memory as the pristine one does. What has a packer is packed once it is fused. On the CPU
        the process's workers do it, the largest weight first; elsewhere one call after the other.
        """
        weights = {parameter: self._pristine[parameter[0]][parameter[1]] for parameter in planned}
        here = [parameter for parameter, weight in weights.items() if weight.device.type != "cpu"]
        shared = [parameter for parameter, weight in weights.items() if weight.device.type == "cpu"]
        shared.sort(key=lambda parameter: weights[parameter].numel(), reverse=True)
        fused: dict[Parameter, Tensor] = {}

        def work(parameter: Parameter) -> None:
            # Tensors made in inference mode could not be used outside of it.
            with torch.inference_mode(False), torch.no_grad():
                weight = dense(weights[parameter])
                out = outs.get(parameter)
                out = torch.empty_like(weight) if out is None else out
                self._fuse(parameter, planned[parameter], weight, out)
                packer = (packers or {}).get(parameter)
                fused[parameter] = out if packer is None else packer(out)

        for parameter in here:
            work(parameter)
        if shared:
            workers().share(work, shared)
        return fused

    def _fuse(
        self, parameter: Parameter, contributions: Sequence[Contribution], weight: Tensor, out: Tensor
    ) -> None:
        _, name = parameter
        if name.endswith(".bias"):
            added, product = _biases(parameter, contributions, weight), None
        else:
            added = _full(parameter, contributions, weight)
            product = _low_rank(parameter, contributions, weight)
        # The norm is computed here too: by the thread that reads the weight, not by the one that waits.
        norm = self._norm(parameter, weight)
        self._products.add(as_matrix(weight), norm, product, added, as_matrix(out))

    def weight_norm(self, parameter: Parameter) -> float:
        """Frobenius norm of a pristine parameter, computed once."""
        return self._norm(parameter, self._pristine[parameter[0]][parameter[1]])

    def _norm(self, parameter: Parameter, weight: Tensor) -> float:
        if parameter not in self._norms:
            norm = torch.linalg.vector_norm(dense(weight), dtype=torch.float32)
            self._norms[parameter] = norm.item()
        return self._norms[parameter]

    def measure(self, member: Member) -> None:
        """Note the norms of a file's changes where they are not known, without fusing it."""
        for parameter, contributions in plan([member]).items():
            if parameter in member.placed_file.norms:
                continue
            weight = self._pristine[parameter[0]][parameter[1]]
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
