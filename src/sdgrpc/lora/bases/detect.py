"""Which base a file is for.

Names and shapes decide. Metadata only breaks a tie between bases that the file fits equally well, since it
lies: a published Flux file says `ss_base_model_version: sd_1.5`. `foreign` tells what is not for us at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdgrpc.domain.bases import BASES, OWN
from sdgrpc.errors import LoraIncompatible, LoraMalformed, LoraUnsupported
from sdgrpc.lora.bases.architectures import PLANS, index, known_bases
from sdgrpc.lora.bases.module_names import UNET, NameIndex
from sdgrpc.lora.bases.placement import Placement, place
from sdgrpc.lora.bases.smaller import smaller_by_blocks
from sdgrpc.lora.dialects.adapter import Adapter, AdapterModule
from sdgrpc.lora.dialects.key_endings import flatten, owners, unknown_role

ENOUGH = 0.75
"""A file is applied if this share of its modules finds a place; one that only half fits is refused."""

REFINER_WIDTH = 1280
"""What SDXL's refiner attends to; the bases' widths are in their names."""


def no_base(adapter: Adapter) -> str:
    """Say that a file fits no base, and which part of it is for which.

    A part is named by one of its modules. Where no part fits any base, it is what the file attends to, where
    it says so, or one of its modules.
    """
    said = "fits no base that is known (SD1.5, SD2, SDXL or the embedded model)"
    parts = parts_of(adapter)
    if len(parts) > 1:
        return f"fits no base as a whole: {say_parts(adapter, parts)}; files for different bases were merged"
    ends = ("attn2_to_k", "attn2_to_v")
    widths = (module.size.columns for module in adapter.modules if flatten(module.spelling).endswith(ends))
    width = next((width for width in widths if width is not None), None)
    known = {index(base).cross_attention_width for base in known_bases()}
    if width is None or width in known:
        return f"{said}; {adapter.modules[0].spelling!r} is one of its modules"
    refiner = ", as SDXL's refiner's is" if width == REFINER_WIDTH else ""
    return f"{said}; its cross-attention width is {width}{refiner}"


def base_of(adapter: Adapter) -> tuple[str, Placement] | None:
    """Return the base that the file is for and its placement there; None if it fits none well enough."""
    placements = {base: place(adapter, index(base)) for base in known_bases()}
    best = max(placement.share for placement in placements.values())
    if best < ENOUGH:
        return None
    tied = [base for base, placement in placements.items() if placement.share == best]
    base = break_tie(tied, adapter)
    return base, placements[base]


def break_tie(bases: Sequence[str], adapter: Adapter) -> str:
    """Choose among bases that fit equally: by the metadata, else by the prefix, else the first."""
    said = base_in_metadata(adapter.metadata)
    if said in bases:
        return said
    if "sdxl" in bases and any(module.spelling.startswith("lora_te1_") for module in adapter.modules):
        return "sdxl"
    return bases[0]


def base_in_metadata(metadata: Mapping[str, str]) -> str:
    """Return the base that a trainer wrote down: `sd15`, `sd2`, `sdxl` or nothing."""
    said = f"{metadata.get('modelspec.architecture', '')} {metadata.get('ss_base_model_version', '')}".lower()
    if "xl" in said:
        return "sdxl"
    if "stable-diffusion-v2" in said or "sd_v2" in said or metadata.get("ss_v2", "").lower() == "true":
        return "sd2"
    if "stable-diffusion-v1" in said or "sd_v1" in said or "sd_1.5" in said:
        return "sd15"
    return ""


def place_or_refuse(adapter: Adapter, loaded: NameIndex, base: str) -> Placement:
    """Place a file in the loaded model if it is for it.

    Args:
        adapter: the file.
        loaded: the names of the loaded model.
        base: what the loaded model is: `sd15`, `sd2`, `sdxl` or `embedded`.

    Raises:
        LoraIncompatible: the file is for another base, or too little of it fits.
        LoraMalformed: it is for this base but a module has a wrong shape.

    """
    placement = place(adapter, loaded)
    if placement.complete:
        _refuse_other_base_of_equal_fit(adapter, loaded, base)
        check(adapter, placement, loaded)
        return placement
    found = base_of(adapter)
    if found and found[0] != base and found[1].share > placement.share:
        raise LoraIncompatible(adapter.name, other_base(found[0], index(found[0]), base, loaded))
    if placement.share < ENOUGH:
        parts = parts_of(adapter)
        unplaced = f"{placement.unmatched(adapter)[0]!r} finds no place"
        raise LoraIncompatible(
            adapter.name,
            f"fits the loaded model ({title(base, loaded)}) only in {len(placement.placed)} of "
            f"{len(adapter.modules)} modules; {say_parts(adapter, parts) if len(parts) > 1 else unplaced}",
        )
    check(adapter, placement, loaded)
    return placement


def check(adapter: Adapter, placement: Placement, names: NameIndex) -> None:
    """Refuse a file that is for a base but cannot be applied to it rightly.

    Args:
        adapter: the file.
        placement: where it goes.
        names: the names of the model, or of the base, that it was placed in.

    Raises:
        LoraIncompatible: it is for a smaller relative of the base.
        LoraMalformed: a module has a wrong shape.
        LoraUnsupported: a tensor of a module that the model has is of no known kind; names the key.

    """
    unet = (placed.target.path for placed in placement.placed if placed.target.component == UNET)
    theirs, ours = adapter.smaller or smaller_by_blocks(unet), smaller_by_blocks(names.paths(UNET))
    if theirs and theirs != ours:
        raise LoraIncompatible(
            adapter.name, f"is for {theirs}, whose U-Net is a part of {ours or 'the base'}'s, trained anew"
        )
    if placement.misfits:
        raise LoraMalformed(adapter.name, placement.misfits[0].fault, key=placement.misfits[0].key)
    for key in adapter.unmatched:
        if module := next((one for owner in owners(key) for one in names.find(owner)), None):
            raise LoraUnsupported(adapter.name, unknown_role(key, module.path), key=key)


def parts_of(adapter: Adapter) -> list[tuple[str, list[AdapterModule]]]:
    """Return each base that a part of the file is for, with that part, the largest first."""
    left, parts = list(adapter.modules), []
    placed = {base: {id(one.source) for one in place(adapter, index(base)).placed} for base in PLANS}
    while left:
        base = max(placed, key=lambda base: sum(id(module) in placed[base] for module in left))
        part = [module for module in left if id(module) in placed[base]]
        if not part:
            break
        parts.append((base, part))
        left = [module for module in left if id(module) not in placed[base]]
    return parts


def say_parts(adapter: Adapter, parts: Sequence[tuple[str, Sequence[AdapterModule]]]) -> str:
    """Say which part of a file is for which base."""
    total = len(adapter.modules)
    said = [
        f"{len(part)} of {total} modules are for {BASES[base].short} ({part[0].spelling!r})"
        for base, part in parts
    ]
    rest = total - sum(len(part) for _, part in parts)
    return ", ".join([*said, f"{rest} for none that is known"] if rest else said)


def title(base: str, names: NameIndex) -> str:
    """Return what a model is called: a smaller relative of SDXL by its own name."""
    return smaller_by_blocks(names.paths(UNET)) or (BASES[base].short if base in BASES else base)


def _refuse_other_base_of_equal_fit(adapter: Adapter, loaded: NameIndex, base: str) -> None:
    """SD1 and SD2 share the shapes of self-attention: there the metadata has the last word."""
    said = base_in_metadata(adapter.metadata)
    if said and said != base and base in BASES and base != OWN and place(adapter, index(said)).complete:
        raise LoraIncompatible(
            adapter.name, other_base(said, index(said), base, loaded) + " (both fit; the metadata says which)"
        )


def other_base(theirs: str, their_names: NameIndex, ours: str, our_names: NameIndex) -> str:
    """Say which base a file is for and which is loaded, with the widths that tell them apart."""
    return (
        f"is for {BASES[theirs].short} (cross-attention width {their_names.cross_attention_width}); "
        f"the loaded model is {title(ours, our_names)} ({our_names.cross_attention_width})"
    )
