"""Which base a file is for, and what is not for us at all, by its name.

Names and shapes decide. Metadata only breaks a tie between bases that the file fits equally well, since it
lies: a published Flux file says `ss_base_model_version: sd_1.5`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from sdgrpc.errors import LoraIncompatible, LoraMalformed
from sdgrpc.lora.adapter import Adapter
from sdgrpc.lora.architectures import TITLES, index, known_bases
from sdgrpc.lora.formats import parse
from sdgrpc.lora.names import NameIndex
from sdgrpc.lora.peft import PeftConfig
from sdgrpc.lora.placement import Placement, place
from sdgrpc.lora.reading import TensorFile

ENOUGH = 0.75
"""A file is applied if this share of its modules finds a place; one that only half fits is refused."""

NO_BASE = "fits no base that is known (SD1.5, SD2, SDXL or the embedded model)"

FOREIGN: Sequence[tuple[str, str]] = (
    (
        r"lora_controlnet|controlnet_cond_embedding|controlnet_(?:down|mid)_block|input_hint_block",
        "a ControlNet",
    ),
    (r"lllite_unet_", "ControlNet-LLLite"),
    (r"(?:^|[._])(?:double_blocks|single_blocks|single_transformer_blocks)[._]", "Flux"),
    (r"(?:^|[._])joint_blocks[._]", "Stable Diffusion 3"),
    (
        r"^(?:lora_unet_|transformer\.|diffusion_model\.)transformer_blocks[._]\d+[._](?:img|txt)_(?:mlp|mod)",
        "Qwen-Image",
    ),
    (r"^lora_unet_transformer_blocks_\d", "Qwen-Image"),
    (
        r"^(?:transformer\.)?transformer_blocks\.\d+\.",
        "a transformer model (Stable Diffusion 3, Flux or Qwen-Image)",
    ),
    (r"^(?:lora_unet_|diffusion_model\.)blocks[._]\d+[._]", "a video or Anima transformer (Wan, Anima)"),
    (r"^lora_prior_", "Stable Cascade's prior"),
    (r"^lora_te3_", "Stable Diffusion 3"),
    (r"^(?:diffusion_model|lora_unet)[._](?:layers|cap_embedder)[._]", "Lumina"),
)
"""Patterns of keys that only other architectures have -> what they are for. The first match wins."""

_ANY_FOREIGN = re.compile("|".join(f"(?:{pattern})" for pattern, _ in FOREIGN))

CHECKPOINT = re.compile(
    r"^(?:model\.diffusion_model\.|first_stage_model\.|cond_stage_model\.|conditioner\.embedders\.)"
)
EMBEDDING = re.compile(
    r"^(?:emb_params|string_to_param.*|string_to_token.*|clip_l|clip_g|<.*>|text_encoders_\d)$"
)


def reject_foreign(name: str, keys: Iterable[str]) -> None:
    """Refuse what is for another architecture or no LoRA at all.

    Raises:
        LoraIncompatible: says what the file is.

    """
    keys = list(keys)
    suspects = [key for key in keys if _ANY_FOREIGN.search(key)]  # one pass over thousands of keys, mostly
    for pattern, what in FOREIGN:
        expression = re.compile(pattern)
        if key := next((key for key in suspects if expression.search(key)), None):
            raise LoraIncompatible(
                name, f"is for {what}, not for Stable Diffusion 1, 2 or XL ({key!r})", key=key
            )
    if any(CHECKPOINT.match(key) for key in keys):
        raise LoraIncompatible(name, "is a full checkpoint, not a LoRA; serve it with --model")
    if keys and all(EMBEDDING.match(key) for key in keys):
        raise LoraIncompatible(name, "is a textual inversion (a token's embedding), not a LoRA")


def adapt(file: TensorFile, config: PeftConfig | None = None) -> Adapter:
    """Turn a file into an adapter unless it is for another architecture.

    Raises:
        LoraIncompatible: says what the file is for.
        LoraMalformed, LoraUnsupported: as `formats.parse` does.

    """
    reject_foreign(file.name, file.tensors)
    return adapt_own(file, config)


def adapt_own(file: TensorFile, config: PeftConfig | None = None) -> Adapter:
    """The same for a file whose keys `reject_foreign` has seen."""
    adapter = parse(file, config)
    if not adapter.modules:
        raise LoraIncompatible(file.name, "holds no LoRA tensors of any format that is known")
    return adapter


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
        return placement
    found = base_of(adapter)
    if found and found[0] != base and found[1].share > placement.share:
        raise LoraIncompatible(adapter.name, other_base(found[0], index(found[0]), base, loaded))
    if placement.share < ENOUGH:
        raise LoraIncompatible(
            adapter.name,
            f"fits the loaded model ({TITLES.get(base, base)}) only in {len(placement.placed)} of "
            f"{len(adapter.modules)} modules; {placement.unmatched(adapter)[0]!r} finds no place",
        )
    if placement.misfits:
        raise LoraMalformed(adapter.name, placement.misfits[0].fault, key=placement.misfits[0].key)
    return placement


def _refuse_other_base_of_equal_fit(adapter: Adapter, loaded: NameIndex, base: str) -> None:
    """SD1 and SD2 share the shapes of self-attention: there the metadata has the last word."""
    said = base_in_metadata(adapter.metadata)
    if (
        said
        and said != base
        and base in TITLES
        and base != "embedded"
        and place(adapter, index(said)).complete
    ):
        raise LoraIncompatible(
            adapter.name, other_base(said, index(said), base, loaded) + " (both fit; the metadata says which)"
        )


def other_base(theirs: str, their_names: NameIndex, ours: str, our_names: NameIndex) -> str:
    """Say which base a file is for and which is loaded, with the widths that tell them apart."""
    return (
        f"is for {TITLES[theirs]} (cross-attention width {their_names.cross_attention_width}); "
        f"the loaded model is {TITLES.get(ours, ours)} ({our_names.cross_attention_width})"
    )
