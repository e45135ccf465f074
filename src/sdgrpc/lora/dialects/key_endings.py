"""What the ending of a key says: which tensor of which algorithm it is, in the names of every tool.

Sources: the loaders of kohya's sd-scripts, LyCORIS, diffusers, PEFT, OneTrainer and ComfyUI.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

SHARED_ENDINGS = ("A", "B")
SHARED = frozenset(f"vera_{ending}" for ending in SHARED_ENDINGS)
"""Roles of tensors that stand once in a file, for all modules of their algorithm."""

ROLES: Mapping[str, str] = {
    # kohya, and its malformed twin with an underscore
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_mid.weight": "mid",
    "_lora_down.weight": "down",
    "_lora_up.weight": "up",
    # diffusers: oldest and middle, then current, then its text encoders
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".lora_layer.down.weight": "down",
    ".lora_layer.up.weight": "up",
    # PEFT
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_B.bias": "up_bias",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
    ".oft_R.weight": "oft_R",
    ".oft_R.scaled_oft": "scaled_oft",
    **{f".delora_{part}": f"delora_{part}" for part in ("A", "B", "lambda", "w_norm")},
    **{f".gralora_{part}": f"gralora_{part}" for part in "AB"},
    **{f".gralora_{part}_general.weight": f"gralora_{part}_general" for part in "AB"},
    **{f".hira_{part}": f"hira_{part}" for part in "AB"},
    ".c3a_kernel": "c3a_kernel",
    **{f".vera_{part}": f"vera_{part}" for part in ("lambda_b", "lambda_d", *SHARED_ENDINGS)},
    ".shira_weight": "shira_weight",
    ".shira_indices": "shira_indices",
    ".fourierft_spectrum": "fourierft_spectrum",
    ".miss_block": "miss_block",
    ".hra_u": "hra_u",
    ".boft_R": "boft_R",
    ".boft_s": "boft_s",
    ".ia3_l": "ia3_l",
    ".road_theta": "road_theta",
    ".road_alpha": "road_alpha",
    ".ln_tuning_layers.weight": "ln_weight",
    ".ln_tuning_layers.bias": "ln_bias",
    # LyCORIS
    **{f".hada_{part}": f"hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{f".lokr_w{n}{part}": f"lokr_w{n}{part}" for n in (1, 2) for part in ("", "_a", "_b")},
    ".lokr_t1": "lokr_t1",
    ".lokr_t2": "lokr_t2",
    **{f".{part}.weight": part for part in ("a1", "a2", "b1", "b2", "bm")},
    ".on_input": "on_input",
    ".diff": "diff",
    ".diff_b": "diff_b",
    ".w_norm": "w_norm",
    ".b_norm": "b_norm",
    ".oft_blocks": "oft_blocks",
    ".oft_diag": "oft_diag",
    ".rescale": "rescale",
    ".dora_scale": "dora_scale",
    ".bias_indices": "bias_indices",
    ".bias_values": "bias_values",
    ".bias_size": "bias_size",
    # cloneofsimo, see `numbered`
    ":up": "up",
    ":down": "down",
    # everybody
    ".alpha": "alpha",
    "_lora.alpha": "alpha",
    ".lora.alpha": "alpha",
    ".lora_linear_layer.alpha": "alpha",
    ".scale": "scale",
}
"""Endings of keys -> the tensor's role in its algorithm."""


LEFT_OVER = frozenset({"alpha", "scale"})
"""What stays behind where a tool took the factors of a module out of a file: it means nothing alone."""


FOREIGN: Mapping[str, str] = {
    ".reshape_weight": "weights that are padded, which only Flux has",
    ".set_weight": "weights that are replaced, which only Flux has",
    ".lambda_layer": "T-LoRA, whose rank depends on the step",
    ".initial_norm": "DoRA of rotations as OneTrainer writes it",
    ".dora_multiplier": "DoRA of rotations as OneTrainer writes it",
    ".lora_E": "AdaLoRA",
    ".lora_diag": "KaSA",
    ".oft_r": "OFT as PEFT wrote it before 2025",
    ".oft_s": "OFT as PEFT wrote it before 2025",
    ".bone_block": "Bone",
}
"""Endings of what is recognised and refused by name."""

_PREFIXES: Mapping[str, str] = {
    "adamss": "AdaMSS",
    "beft": "BEFT",
    "deft": "DEFT",
    "frod": "FRoD",
    "glora": "GLoRA as PEFT writes it",
    "hira": "HiRA",
    "lily": "Lily",
    "osf": "OSF",
    "peanut": "PEANuT",
    "poly_lora": "Poly",
    "psoft": "PSOFT",
    "pvera": "PVeRA",
    "randlora": "RandLoRA",
    "shadow": "Shadow",
    "supertuning": "SuperTuning",
    "tinylora": "TinyLoRA",
    "trainable_tokens": "trainable tokens",
    "unilora": "Uni-LoRA",
    "vblora": "VB-LoRA",
    "waveft": "WaveFT",
    "xlora": "X-LoRA",
}
"""How PEFT's methods begin the names of their tensors -> the method, where it is not applied."""


def _ending(endings: Mapping[str, str]) -> re.Pattern[str]:
    return re.compile("(?:" + "|".join(map(re.escape, endings)) + r")\Z")


_ADAPTER_NAME = re.compile(
    r"(\.(?:lora_(?:[ABE]|magnitude_vector)|oft_[Rr]|(?:hada|lokr)_\w+|ia3_l|boft_[Rs]|hra_u|bone_block"
    r"|(?:delora|gralora|hira|c3a|vera|shira|fourierft|miss|road|ln_tuning)_\w+))"
    r"\.(?!(?:weight|bias|scaled_oft|cans_oft|cans_exp)$)[^.]+(\.weight|\.bias|)$"
)
"""The name that PEFT gives an adapter, mostly `default`, in the middle of an ending or behind it."""

_METHOD = re.compile(r"(?:^|\.)(" + "|".join(_PREFIXES) + r")_[^.]*(?:\.[^.]+)*$")
_WRAPPER = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|module)\.")
"""Levels that torch puts around a model that is compiled or spread, left in the names by some trainers."""

_DEEPEST = 6
"""Parts, between dots or underscores, that the ending of a key may have."""

_LONGEST = max(map(len, (*ROLES, *FOREIGN)))
_ROLE, _FOREIGN = _ending(ROLES), _ending(FOREIGN)


def without_adapter_name(key: str) -> str:
    """Return a key without the name that PEFT gives an adapter: `a.lora_A.default.weight`."""
    return _ADAPTER_NAME.sub(r"\1\2", key)


def without_wrappers(spelling: str) -> str:
    """Return a module's spelling without the levels that torch puts around models."""
    return _WRAPPER.sub("", spelling) if "mod" in spelling else spelling


def split(plain: str) -> tuple[str, str]:
    """Split a key into its module's spelling and the tensor's role; `("", "")` if it has no role.

    The longest ending counts that leaves something for the module.
    """
    found = _ROLE.search(plain, max(1, len(plain) - _LONGEST))
    return (plain[: found.start()], ROLES[found.group()]) if found else ("", "")


def flatten(name: str) -> str:
    """Write a name as kohya does: underscores for dots."""
    return name.replace(".", "_")


def owners(key: str) -> Iterator[str]:
    """Yield the flat names of the modules that a key of an unknown role may be of, the longest first."""
    name = flatten(without_wrappers(key))
    for _ in range(_DEEPEST):
        name, _, last = name.rpartition("_")
        if not name or not last:
            return
        yield name


def unknown_role(key: str, module: str) -> str:
    """Say that a tensor's module is known and that what it does is not."""
    return (
        f"tensor {key!r} is of no kind that is known, so its module ({module!r}) cannot be applied rightly; "
        "convert the file to a plain LoRA, or take the tensor out if it means nothing"
    )


def foreign_method(plain: str) -> str:
    """Return the name of the method that a key is of and that is not applied; nothing if none is known."""
    if found := _FOREIGN.search(plain, max(1, len(plain) - _LONGEST)):
        return FOREIGN[found.group()]
    named = _METHOD.search(plain)
    return _PREFIXES[named.group(1)] if named else ""
