"""One LoRA set made: its members read, placed and fused, and what each of them did."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sdgrpc.domain import LoraReport
from sdgrpc.errors import LoraMalformed
from sdgrpc.lora.bases.detect import place_or_refuse
from sdgrpc.lora.bases.module_names import NameIndex
from sdgrpc.lora.dialects.adapter import Adapter
from sdgrpc.lora.dialects.tokens import embedding_widths
from sdgrpc.lora.fusing.fuser import Fuser, Member, Plan, Weights, plan
from sdgrpc.lora.fusing.lora_set import LoraSet, MemberKey, SetMember
from sdgrpc.lora.fusing.overlay import Overlay, Product
from sdgrpc.lora.fusing.placed_file import Parameter, PlacedFile
from sdgrpc.lora.fusing.prompt_part import PromptPart, prompt_part
from sdgrpc.lora.fusing.reports import report, unmatched_refused
from sdgrpc.lora.headers.made_for import made_for
from sdgrpc.lora.store.contents import FoundLora
from sdgrpc.machine.onednn.packing import packed_convolutions
from sdgrpc.machine.streams import finish_queue


@dataclass(frozen=True, slots=True)
class FusedSet:
    """A fused overlay, what each of its members did, and what they mean for prompts."""

    overlay: Overlay
    reports: Mapping[MemberKey, LoraReport]
    prompt_part: PromptPart


Room = Callable[[Mapping[Parameter, Tensor]], Mapping[Parameter, Tensor | None]]
"""Given the pristine weights that a set changes, counts their bytes and returns memory to fill for some."""


class Resident(Protocol):
    """Factors that are on the device already; `lora.resident.files` has them."""

    @property
    def pristine(self) -> Weights:
        """The weights of every component, never written."""
        ...

    @property
    def norms(self) -> Mapping[Parameter, float]:
        """Their Frobenius norms, as far as known."""
        ...

    def placed(self, identity: str) -> PlacedFile | None:
        """Where the modules of a file go whose factors are there."""
        ...

    def by_product(self, planned: Plan) -> set[Parameter]:
        """The parameters of a plan that change by low-rank products alone."""
        ...

    def products(
        self, members: Sequence[tuple[str, Member]], parameters: set[Parameter]
    ) -> Mapping[str, Sequence[Product]] | None:
        """What members, each with its file's identity, add to these; None if they must be fused whole."""
        ...


class SetMaker:
    """Makes LoRA sets for one model, one at a time; remembers how files are placed. Thread safe.

    Args:
        components: `unet`, `text_encoder`, `text_encoder_2` -> the module. Their parameters are read, never
            written, and must be the pristine ones now.
        base: what the model is: `sd15`, `sd2`, `sdxl` or `embedded`.
        resident: what low-rank changes are multiplied from, and who has the pristine weights then.

    """

    def __init__(
        self, components: Mapping[str, nn.Module], *, base: str, resident: Resident | None = None
    ) -> None:
        self._base, self._resident = base, resident
        self._pristine: Weights = {
            component: {name: parameter.detach() for name, parameter in module.named_parameters()}
            for component, module in components.items()
        }
        self._packers = {
            (component, f"{path}.weight"): convolution.packed
            for component, module in components.items()
            for path, convolution in packed_convolutions(module)
        }
        if resident is not None:
            self._pristine = resident.pristine
        self._device = next(iter(next(iter(self._pristine.values())).values())).device
        self._names = NameIndex(
            {
                component: {name: tuple(weight.shape) for name, weight in weights.items()}
                for component, weights in self._pristine.items()
            }
        )
        self._fuser = Fuser(self._pristine, {} if resident is None else resident.norms)
        self._token_widths = embedding_widths(self._pristine)
        self._placed: WeakKeyDictionary[Adapter, PlacedFile] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._fuse_lock = threading.Lock()

    @property
    def names(self) -> NameIndex:
        """The names of the model's modules, which files are judged against."""
        return self._names

    def make(self, wanted: LoraSet, room: Room) -> FusedSet:
        """Read, check, place and fuse the members of a set.

        Args:
            wanted: the set.
            room: asked for memory once it is known how much is needed.

        Raises:
            LoraMalformed, LoraUnsupported, LoraIncompatible: one cannot be used.

        """
        members = [Member.of(self._place(one.file), one.ref) for one in wanted.members]
        planned = plan(members)
        # Tensors made in inference mode could not be written outside of it.
        with torch.inference_mode(False), torch.no_grad(), self._fuse_lock:
            products = self._products(wanted, members, planned)
            spare = room({(component, name): self._pristine[component][name] for component, name in planned})
            overlay = Overlay(self._fill(planned, spare), products)
            reports = {
                one.key: report(one, member, self._fuser)
                for one, member in zip(wanted.members, members, strict=True)
            }
            finish_queue(self._device)  # others read it on streams of their own
        for made in reports.values():
            _check_finite(made)
        return FusedSet(overlay, reports, prompt_part(list(zip(wanted.members, members, strict=True))))

    def _products(
        self, wanted: LoraSet, members: Sequence[Member], planned: Plan
    ) -> Mapping[str, Sequence[Product]]:
        """Take out of a plan what resident factors are multiplied for, and return that."""
        if self._resident is None:
            return {}
        chosen = self._resident.by_product(planned)
        named = [(one.file.identity, member) for one, member in zip(wanted.members, members, strict=True)]
        products = self._resident.products(named, chosen)
        for parameter in chosen if products is not None else ():
            del planned[parameter]
        return products or {}

    def _fill(
        self, planned: Plan, spare: Mapping[Parameter, Tensor | None]
    ) -> Mapping[str, Mapping[str, Tensor]]:
        named: dict[str, dict[str, Tensor]] = defaultdict(dict)
        fused = self._fuser.fuse(planned, spare, self._packers)
        for component, name in planned:
            named[component][name] = fused[component, name]
        return dict(named)

    def _place(self, file: FoundLora) -> PlacedFile:
        """Read, check and place a file; what is known already is not done again."""
        if self._resident is not None and (placed := self._resident.placed(file.identity)) is not None:
            return placed
        adapter = file.adapter()
        with self._lock:
            known = self._placed.get(adapter)
        if known is None:
            placement = place_or_refuse(adapter, self._names, self._base)
            known = PlacedFile.of(adapter, placement, self._token_widths)
            with self._lock:
                known = self._placed.setdefault(adapter, known)
        return known

    def _measured(self, asked: SetMember) -> LoraReport:
        member = Member.of(self._place(asked.file), asked.ref)
        with torch.no_grad():
            self._fuser.measure(member)
        made = report(asked, member, self._fuser)
        _check_finite(made)
        return made

    def reports(self, wanted: LoraSet, known: Mapping[MemberKey, LoraReport]) -> tuple[LoraReport, ...]:
        """Say what each file of a request does, in the request's order; `known` are the set's reports.

        Raises:
            LoraMalformed, LoraUnsupported, LoraIncompatible: one cannot be used, or `strict` was asked for
                and a tensor finds no place.

        """
        made = []
        for one in wanted.asked:
            found = known.get(one.key)
            if found is None:  # of no set, or of another, but what it says must be true all the same
                found = self._measured(one)
            if one.ref.strict and found.unmatched_tensors:
                raise unmatched_refused(one.file.name, found)
            if found.name != one.file.name:  # which may say what the first name of the content did not
                recommended = found.recommended or made_for(one.file.name)
                found = replace(found, name=one.file.name, recommended=recommended)
            made.append(found)
        return tuple(made)


def _check_finite(made: LoraReport) -> None:
    if not math.isfinite(made.relative_norm):
        raise LoraMalformed(made.name, "its change is too large for a number: alpha or a factor is wrong")
