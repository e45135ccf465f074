"""The files whose factors are on the device, those used last, bounded in bytes; and sets made from them."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sdgrpc.lora.fusing.fuser import Member, Plan
from sdgrpc.lora.fusing.overlay import Product
from sdgrpc.lora.fusing.placed_file import Parameter, PlacedFile
from sdgrpc.lora.resident.assembling import assemble
from sdgrpc.lora.resident.factors import FileFactors, file_factors
from sdgrpc.lora.resident.stacks import LiveWeights
from sdgrpc.lora.resident.uploading import Uploader

LARGEST = {torch.float16: 60_000.0}
"""Above it a scaled factor overflows in the dtype."""


class ResidentFiles:
    """Factors of files on the device, by the files' identity. Thread safe.

    Beside the factors each file's own tensors stay in the machine's memory, for sets that are not made by
    products alone.

    Args:
        components: `unet`, `text_encoder`, `text_encoder_2` -> the network, whose parameters become live.
        capacity_bytes: how much the factors may hold together; those used longest ago go first.

    """

    def __init__(self, components: Mapping[str, nn.Module], *, capacity_bytes: int) -> None:
        self.live = {name: LiveWeights(network) for name, network in components.items()}
        device = next(iter(next(iter(self.live.values())).live.values())).device
        self._uploader = Uploader(device)
        self._capacity = capacity_bytes
        self._files: OrderedDict[str, tuple[PlacedFile, FileFactors]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def pristine(self) -> Mapping[str, Mapping[str, Tensor]]:
        """The weights of every component, never written."""
        return {name: live.pristine for name, live in self.live.items()}

    @property
    def norms(self) -> dict[Parameter, float]:
        """Frobenius norms of those in stacks."""
        return {
            (component, name): norm
            for component, live in self.live.items()
            for stack in live.stacks
            for name, norm in zip(stack.names, stack.norms, strict=True)
        }

    @property
    def weight_bytes(self) -> int:
        """What the pristine weights take beside those that the networks compute with."""
        return sum(live.nbytes for live in self.live.values())

    def release(self) -> None:
        """Let go of all weights and factors, once no thread uses the model."""
        with self._lock:
            self._files.clear()
        self.live.clear()

    @property
    def nbytes(self) -> int:
        """Bytes of all factors that are kept."""
        with self._lock:
            return sum(file.nbytes for _, file in self._files.values())

    @property
    def count(self) -> int:
        """How many files are there."""
        with self._lock:
            return len(self._files)

    def by_product(self, planned: Plan) -> set[Parameter]:
        """The parameters of a plan that change by low-rank products alone."""
        chosen = set()
        for parameter, contributions in planned.items():
            component, name = parameter
            if name in self.live[component].places and all(
                each.placed.source.is_low_rank and each.placed.source.changes_weight for each in contributions
            ):
                chosen.add(parameter)
        return chosen

    def products(
        self, members: Sequence[tuple[str, Member]], parameters: set[Parameter]
    ) -> dict[str, tuple[Product, ...]] | None:
        """Return what these members, each with its file's identity, add to the parameters, per component.

        None where a factor would overflow in the weights' dtype: then they have to be fused as a whole.
        """
        files = [self._file(identity, member.placed_file) for identity, member in members]
        made: dict[str, tuple[Product, ...]] = {}
        for component, live in self.live.items():
            largest = LARGEST.get(live.stacks[0].live.dtype, float("inf")) if live.stacks else float("inf")
            strong = [
                (file, member)
                for file, (_, member) in zip(files, members, strict=True)
                if member.greatest_strength(component)
            ]
            if any(member.greatest_strength(component) * file.largest > largest for file, member in strong):
                return None
            made[component] = assemble(strong, component, live, _slots(parameters, component, live))
        return made

    def placed(self, identity: str) -> PlacedFile | None:
        """Where the modules of a file go whose factors are there."""
        with self._lock:
            known = self._files.get(identity)
            return None if known is None else known[0]

    def _file(self, identity: str, placed_file: PlacedFile) -> FileFactors:
        with self._lock:
            if known := self._files.get(identity):
                self._files.move_to_end(identity)
                return known[1]
        made = file_factors(placed_file.placement.placed, self.live, self._uploader)
        for parameter, norm in made.norms(self.live).items():
            placed_file.norms.setdefault(parameter, norm)
        with self._lock:
            self._files[identity] = placed_file, made
            held = sum(file.nbytes for _, file in self._files.values())
            while held > self._capacity and len(self._files) > 1:
                held -= self._files.popitem(last=False)[1][1].nbytes
        return made


def _slots(parameters: set[Parameter], component: str, live: LiveWeights) -> dict[int, set[int]]:
    """The chosen weights of a component: number of the stack -> their numbers in it."""
    chosen: dict[int, set[int]] = defaultdict(set)
    for owner, name in parameters:
        if owner == component:
            place = live.places[name]
            chosen[place.stack].add(place.index)
    return chosen
