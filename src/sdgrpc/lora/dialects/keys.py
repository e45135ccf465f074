"""The dialects of LoRA files: keys -> modules with their tensors -> one Adapter.

A key is a module's spelling plus an ending that says which tensor of which algorithm it is. The endings are
listed here, the spellings in `names`. Sources: the loaders of kohya's sd-scripts, LyCORIS, diffusers, PEFT
and ComfyUI.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from sdgrpc.errors import LoraMalformed, LoraUnsupported
from sdgrpc.lora.algorithms.differences import check_sparse
from sdgrpc.lora.algorithms.registry import LOHA, LOKR, Algorithm, algorithm_of
from sdgrpc.lora.algorithms.tensors import BadTensors, expect
from sdgrpc.lora.dialects.adapter import Adapter, AdapterModule
from sdgrpc.lora.dialects.numbered import numbered_order
from sdgrpc.lora.dialects.peft import PeftConfig, UnknownPattern
from sdgrpc.lora.dialects.tokens import bundled
from sdgrpc.lora.files.reading import TensorFile

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
    ".lora_E": "AdaLoRA",
    ".ia3_l": "(IA)^3 as PEFT writes it",
    ".boft_R": "BOFT as PEFT writes it",
    ".oft_r": "OFT as PEFT wrote it before 2025",
    ".vera_lambda_b": "VeRA",
    ".hra_u": "Householder reflections (HRA)",
    ".fourierft_spectrum": "FourierFT",
    ".miss_block": "MiSS",
    ".bone_block": "Bone",
}
"""Endings of what is recognised and refused by name."""


def _ending(endings: Mapping[str, str]) -> re.Pattern[str]:
    return re.compile("(?:" + "|".join(map(re.escape, endings)) + r")\Z")


_ADAPTER_NAME = re.compile(
    r"(\.(?:lora_(?:[ABE]|magnitude_vector)|oft_[Rr]|(?:hada|lokr)_\w+|ia3_l|boft_[Rs]|vera_lambda_[bd]|hra_u"
    r"|fourierft_spectrum|(?:miss|bone)_block))\.(?!(?:weight|bias)$)[^.]+(\.weight|\.bias|)$"
)
"""The name that PEFT gives an adapter, mostly `default`, in the middle of an ending or behind it."""

_WRAPPER = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|module)\.")
"""Levels that torch puts around a model that is compiled or spread, left in the names by some trainers."""

LONGEST = max(map(len, (*ROLES, *FOREIGN)))

_ROLE = _ending(ROLES)
_FOREIGN = _ending(FOREIGN)


def _split(key: str, endings: re.Pattern[str]) -> tuple[str, str]:
    """Split a key before the longest of the endings that leaves something; `("", "")` if it has none."""
    found = endings.search(key, max(1, len(key) - LONGEST))
    return (key[: found.start()], found.group()) if found else ("", "")


def parse(file: TensorFile, config: PeftConfig | None = None) -> Adapter:
    """Sort a file's tensors into modules.

    Args:
        file: the file's tensors and metadata.
        config: what stands in an `adapter_config.json` beside the file; the file's own metadata goes first.

    Raises:
        LoraMalformed: half of a pair is missing, ranks differ, an alpha is no number; names the key.
        LoraUnsupported: something that is not applied; says what.

    """
    grouped, unmatched = _group(file)
    for spelling in [spelling for spelling, keys in grouped.items() if keys.keys() <= LEFT_OVER]:
        unmatched += grouped.pop(spelling).values()
    configs = PeftConfig.from_metadata(file.metadata) or config or PeftConfig({})
    modules = [_module(file, spelling, keys, configs) for spelling, keys in sorted(grouped.items())]
    tokens = bundled(file.name, file.tensors, unmatched)
    in_tokens = {key for token in tokens for key in token.keys.values()}
    if order := numbered_order({module.spelling: module.size for module in modules}):
        modules = [replace(module, spelling=order + module.spelling) for module in modules]
    return Adapter(
        name=file.name,
        sha256=file.sha256,
        modules=tuple(modules),
        unmatched=tuple(key for key in unmatched if key not in in_tokens),
        tokens=tokens,
        metadata=file.metadata,
        tensor_count=len(file.tensors),
        nbytes=file.nbytes,
    )


def _group(file: TensorFile) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return module -> role -> key, and the keys that belong to none."""
    grouped: dict[str, dict[str, str]] = {}
    unmatched: list[str] = []
    for key in file.tensors:
        plain = _ADAPTER_NAME.sub(r"\1\2", key)
        spelling, ending = _split(plain, _ROLE)
        if ending:
            role = ROLES[ending]
            roles = grouped.setdefault(spelling, {})
            if role in roles:
                raise LoraMalformed(
                    file.name, f"has {roles[role]!r} and {key!r}, which mean the same", key=key
                )
            roles[role] = key
        elif ending := _split(plain, _FOREIGN)[1]:
            uses = FOREIGN[ending]
            raise LoraUnsupported(file.name, f"uses {uses}, not applied by this version ({key!r})", key=key)
        else:
            unmatched.append(key)
    for key in list(unmatched):  # only beside (IA)^3's flag does a plain `.weight` mean a LoRA's tensor
        spelling = key.removesuffix(".weight")
        if spelling != key and "on_input" in grouped.get(spelling, {}):
            grouped[spelling]["weight"] = key
            unmatched.remove(key)
    return grouped, unmatched


def _module(file: TensorFile, spelling: str, keys: Mapping[str, str], config: PeftConfig) -> AdapterModule:
    tensors = {role: file.tensors[key] for role, key in keys.items()}
    if "mod" in spelling:
        spelling = _WRAPPER.sub("", spelling)
    try:
        algorithm = algorithm_of(tensors)
        for role in ("alpha", "scale"):
            if role in tensors and tensors[role].numel() != 1:
                raise BadTensors(role, "is not one number")
        for role in ("dora_scale", "magnitude"):
            if role in tensors:
                expect(tensors, role, 1, 2, 4)
        size = algorithm.size(tensors)
        _check_alpha(algorithm, tensors)
        if any(role.startswith("bias_") for role in tensors):
            check_sparse(tensors, size)
    except BadTensors as error:
        key = keys[error.role]
        raise LoraMalformed(file.name, f"tensor {key!r} {error}", key=key) from error
    try:
        tensors |= _configured(algorithm, spelling, keys, tensors, config)
    except UnknownPattern as error:
        raise LoraUnsupported(file.name, f"its configuration's {error}; it is not run") from error
    return AdapterModule(spelling, algorithm, tensors, keys, size)


def _check_alpha(algorithm: Algorithm, tensors: dict[str, Tensor]) -> None:
    """Drop an infinite alpha that is ignored: LyCORIS writes 100,000, which half precision cannot hold.

    Raises:
        BadTensors: it counts.

    """
    alpha = tensors.get("alpha")
    if alpha is None or alpha.is_meta or math.isfinite(alpha.item()):
        return
    if algorithm is not LOKR or algorithm.rank(tensors) is not None:
        raise BadTensors("alpha", "holds NaN or infinity")
    del tensors["alpha"]


def _configured(
    algorithm: Algorithm,
    spelling: str,
    keys: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    config: PeftConfig,
) -> Mapping[str, Tensor]:
    """Return what PEFT's configuration adds to a module, by role; only PEFT's names have its alpha."""
    if "oft_R" in tensors:
        return config.rotation(spelling)
    if "alpha" in tensors:
        return {}
    if ".lora_A." in keys.get("down", ""):
        alpha = config.alpha(spelling, tensors["down"].shape[0])
        return {} if alpha is None else {"alpha": alpha}
    if algorithm in (LOHA, LOKR):
        return config.lycoris(algorithm.name.upper(), spelling, algorithm.rank(tensors))
    return {}
