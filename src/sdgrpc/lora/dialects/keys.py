"""The dialects of LoRA files: keys -> modules with their tensors -> one Adapter.

A key is a module's spelling plus an ending that says which tensor of which algorithm it is. The endings are
listed in `key_endings.ROLES`, how spellings begin in `bases.module_names.PREFIXES`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from torch import Tensor

from sdgrpc.errors import LoraMalformed, LoraUnsupported
from sdgrpc.lora.algorithms.algorithm import Algorithm
from sdgrpc.lora.algorithms.differences import check_sparse
from sdgrpc.lora.algorithms.registry import LOKR, algorithm_of
from sdgrpc.lora.algorithms.tensors import BadTensors, expect
from sdgrpc.lora.dialects.adapter import Adapter, AdapterModule
from sdgrpc.lora.dialects.configured import Configurations
from sdgrpc.lora.dialects.key_endings import (
    LEFT_OVER,
    SHARED,
    flatten,
    foreign_method,
    owners,
    split,
    unknown_role,
    without_adapter_name,
    without_wrappers,
)
from sdgrpc.lora.dialects.numbered import numbered_order
from sdgrpc.lora.dialects.peft import MissingConfiguration, PeftConfig, UnknownPattern
from sdgrpc.lora.dialects.tokens import bundled
from sdgrpc.lora.files.reading import TensorFile


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
    _share(file.name, grouped)
    tokens = bundled(file.name, file.tensors, unmatched)
    in_tokens = {key for token in tokens for key in token.keys.values()}
    unmatched = [key for key in unmatched if key not in in_tokens]
    _refuse_unknown_roles(file.name, grouped, unmatched)
    configs = Configurations.of(file, grouped.values(), config)
    modules = [_module(file, spelling, keys, configs) for spelling, keys in sorted(grouped.items())]
    if order := numbered_order({module.spelling: module.size for module in modules}):
        modules = [replace(module, spelling=order + module.spelling) for module in modules]
    return Adapter(
        name=file.name,
        sha256=file.sha256,
        modules=tuple(modules),
        unmatched=tuple(unmatched),
        tokens=tokens,
        metadata=file.metadata,
        tensor_count=len(file.tensors),
        nbytes=file.nbytes,
        smaller=configs.smaller,
        autov3=file.autov3,
    )


def _group(file: TensorFile) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return module -> role -> key, and the keys that belong to none."""
    grouped: dict[str, dict[str, str]] = {}
    unmatched: list[str] = []
    for key in file.tensors:
        plain = without_adapter_name(key)
        spelling, role = split(plain)
        if role:
            roles = grouped.setdefault(spelling, {})
            if role in roles:
                raise LoraMalformed(
                    file.name, f"has {roles[role]!r} and {key!r}, which mean the same", key=key
                )
            roles[role] = key
        elif uses := foreign_method(plain):
            raise LoraUnsupported(file.name, f"uses {uses}, not applied by this version ({key!r})", key=key)
        else:
            unmatched.append(key)
    for key in list(unmatched):  # only beside (IA)^3's flag does a plain `.weight` mean a LoRA's tensor
        spelling = key.removesuffix(".weight")
        if spelling != key and "on_input" in grouped.get(spelling, {}):
            grouped[spelling]["weight"] = key
            unmatched.remove(key)
    return grouped, unmatched


def _share(name: str, grouped: dict[str, dict[str, str]]) -> None:
    """Give what stands once in a file to every module of its algorithm.

    Raises:
        LoraUnsupported: the modules need it and it is not there.

    """
    common = {role: key for keys in grouped.values() for role, key in keys.items() if role in SHARED}
    for spelling in [one for one, keys in grouped.items() if keys.keys() <= SHARED]:
        del grouped[spelling]
    for keys in grouped.values():
        if "vera_lambda_b" in keys:
            if common.keys() != SHARED:
                key = keys["vera_lambda_b"]
                lacking = "uses VeRA without its projections vera_A and vera_B, which are random"
                raise LoraUnsupported(name, f"{lacking} ({key!r})", key=key)
            keys.update(common)


def _refuse_unknown_roles(name: str, grouped: Mapping[str, Mapping[str, str]], keys: list[str]) -> None:
    """Refuse a file that says more of one of its modules than is understood: the rest would be wrong.

    Raises:
        LoraUnsupported: names the key.

    """
    known = {flatten(one): one for one, roles in grouped.items() if not roles.keys() <= LEFT_OVER}
    for key in keys:
        if (module := next((one for one in owners(key) if one in known), None)) is not None:
            raise LoraUnsupported(name, unknown_role(key, known[module]), key=key)


def _module(
    file: TensorFile, spelling: str, keys: Mapping[str, str], config: Configurations
) -> AdapterModule:
    tensors = {role: file.tensors[key] for role, key in keys.items()}
    spelling = without_wrappers(spelling)
    with _bad_tensors_named(file.name, keys):
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
    try:
        tensors |= config.of_module(algorithm, spelling, keys, tensors, is_wide=math.prod(size.kernel) > 1)
    except MissingConfiguration as error:
        raise LoraUnsupported(file.name, str(error), key=next(iter(keys.values()))) from error
    except UnknownPattern as error:
        raise LoraUnsupported(file.name, f"its configuration's {error}; it is not run") from error
    if "road_group" in tensors:  # the configuration decides about the size
        with _bad_tensors_named(file.name, keys):
            size = algorithm.size(tensors)
    return AdapterModule(spelling, algorithm, tensors, keys, size)


@contextmanager
def _bad_tensors_named(name: str, keys: Mapping[str, str]) -> Iterator[None]:
    """Say which key is to blame."""
    try:
        yield
    except BadTensors as error:
        key = keys[error.role]
        raise LoraMalformed(name, f"tensor {key!r} {error}", key=key) from error


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
