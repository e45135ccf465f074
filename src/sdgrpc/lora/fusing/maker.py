"""One LoRA set made: its members read, placed and fused, and what each of them did."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sdgrpc.domain import LoraRef, LoraReport
from sdgrpc.errors import LoraIncompatible, LoraMalformed
from sdgrpc.lora.bases.detect import place_or_refuse
from sdgrpc.lora.bases.names import NameIndex
from sdgrpc.lora.dialects.adapter import Adapter
from sdgrpc.lora.dialects.tokens import embedding_widths
from sdgrpc.lora.fusing.fuser import Fuser, Member, Parameter, Plan, Prepared, plan
from sdgrpc.lora.fusing.lora_set import MemberKey, member_key
from sdgrpc.lora.fusing.overlay import Overlay
from sdgrpc.lora.fusing.prompt_part import PromptPart, prompt_part
from sdgrpc.lora.fusing.reports import report
from sdgrpc.lora.store.contents import LoraFile


@dataclass(frozen=True, slots=True)
class FusedSet:
    """A fused overlay, what each of its members did, and what they mean for prompts."""

    overlay: Overlay
    reports: Mapping[MemberKey, LoraReport]
    prompt_part: PromptPart


@dataclass(frozen=True, slots=True)
class Recipe:
    """A set that is ready to be fused: its files in their fixed order, and what each weight gets of them."""

    files: Sequence[tuple[LoraFile, LoraRef]]
    members: Sequence[Member]
    planned: Plan


class SetMaker:
    """Makes LoRA sets for one model, one at a time; remembers how files are placed. Thread safe.

    Args:
        components: `unet`, `text_encoder`, `text_encoder_2` -> the module. Their parameters are read, never
            written, and must be the pristine ones now.
        base: what the model is: `sd15`, `sd2`, `sdxl` or `embedded`.

    """

    def __init__(self, components: Mapping[str, nn.Module], *, base: str) -> None:
        self._base = base
        self._pristine = {
            component: {name: parameter.detach() for name, parameter in module.named_parameters()}
            for component, module in components.items()
        }
        self._names = NameIndex(
            {
                component: {name: tuple(weight.shape) for name, weight in weights.items()}
                for component, weights in self._pristine.items()
            }
        )
        self._fuser = Fuser(self._pristine)
        self._token_widths = embedding_widths(self._pristine)
        self._prepared: WeakKeyDictionary[Adapter, Prepared] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._fuse_lock = threading.Lock()

    @property
    def names(self) -> NameIndex:
        """The names of the model's modules, which files are judged against."""
        return self._names

    def pristine(self, parameter: Parameter) -> Tensor:
        """Return the weight that a set changes, as it is without any."""
        component, name = parameter
        return self._pristine[component][name]

    def plan(self, active: Sequence[tuple[LoraFile, LoraRef]]) -> Recipe:
        """Read, check and place the files of a set.

        Raises:
            LoraMalformed, LoraUnsupported, LoraIncompatible: one cannot be used.

        """
        files = sorted(active, key=lambda member: member_key(*member))
        members = [
            Member(self._prepare(file), ref.strength, ref.text_encoder_strength) for file, ref in files
        ]
        return Recipe(files, members, plan(members))

    def make(self, recipe: Recipe, spare: Mapping[Parameter, Tensor | None]) -> FusedSet:
        """Fuse a set into spare memory, and into fresh where there is none.

        Raises:
            LoraMalformed: a change is too large for a number.

        """
        # Tensors made in inference mode could not be written outside of it.
        with torch.inference_mode(False), torch.no_grad(), self._fuse_lock:
            overlay = self._fill(recipe.planned, spare)
            reports = {
                member_key(file, ref): report(file, ref, member, self._fuser)
                for (file, ref), member in zip(recipe.files, recipe.members, strict=True)
            }
        for made in reports.values():
            if not math.isfinite(made.relative_norm):
                raise LoraMalformed(
                    made.name, "its change is too large for a number: alpha or a factor is wrong"
                )
        parts = list(zip(recipe.files, recipe.members, strict=True))
        return FusedSet(overlay, reports, prompt_part(parts))

    def _fill(self, planned: Plan, spare: Mapping[Parameter, Tensor | None]) -> Overlay:
        outs: dict[Parameter, Tensor] = {}
        named: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for component, name in planned:
            out = spare[component, name]
            if out is None:
                out = torch.empty_like(self._pristine[component][name])
            outs[component, name] = named[component][name] = out
        self._fuser.fuse(planned, outs)
        return Overlay(dict(named))

    def _prepare(self, file: LoraFile) -> Prepared:
        """Read, check and place a file; what is known already is not done again."""
        adapter = file.adapter()
        with self._lock:
            prepared = self._prepared.get(adapter)
        if prepared is None:
            placement = place_or_refuse(adapter, self._names, self._base)
            prepared = Prepared.of(adapter, placement, self._token_widths)
            with self._lock:
                prepared = self._prepared.setdefault(adapter, prepared)
        return prepared

    def report(self, file: LoraFile, ref: LoraRef, known: Mapping[MemberKey, LoraReport]) -> LoraReport:
        """Say what a file of a set does; `known` are the reports of the set's members.

        Raises:
            LoraMalformed, LoraUnsupported, LoraIncompatible: it cannot be used, or `strict` was asked for and
                a tensor finds no place.

        """
        made = known.get(member_key(file, ref))
        if made is None:  # without strength it is no member, but what it says must be true all the same
            made = report(file, ref, Member(self._prepare(file), 0.0, 0.0), self._fuser)
        if ref.strict and made.unmatched_tensors:
            examples = ", ".join(repr(key) for key in made.unmatched_examples)
            raise LoraIncompatible(
                file.name,
                f"{made.unmatched_tensors} tensors find no place in the model ({examples}), "
                "and strict was asked for",
                key=made.unmatched_examples[0],
            )
        return replace(made, name=file.name)
