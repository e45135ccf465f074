"""What is inside a LoRA file, without any model: base, algorithms, modules and how much each changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sdgrpc.errors import LoraError, LoraIncompatible, LoraMalformed
from sdgrpc.lora.bases.detect import base_of, no_base
from sdgrpc.lora.bases.placement import Placed
from sdgrpc.lora.describing.metadata import without_pictures
from sdgrpc.lora.dialects.adapt import adapt, read_config
from sdgrpc.lora.dialects.peft import PeftConfig
from sdgrpc.lora.files import reading
from sdgrpc.lora.fusing.changes import change_norm


def inspect(path: Path | str) -> dict[str, Any]:
    """Describe a file as `sdgrpc loras inspect --json` prints it.

    Returns:
        `file`, `sha256`, `base` (`sd15`, `sd2`, `sdxl`, `embedded` or `unknown`), `algorithms`, `tensors`
        (how many), `unmatched` (keys that find no place in the base), `refused` (None or the reason),
        `metadata` (without pictures) and `modules`: per changed module `component`, `module` (its dotted path
        in diffusers' layout), `algorithm`, `rank`, `alpha` (None where the file gives none) and `delta_norm`,
        the Frobenius norm of the weight's change at strength 1 (None where it depends on the weight).

    Raises:
        OSError: the file cannot be opened.

    """
    named, path = str(path), Path(path).resolve()  # the reader follows no links
    result: dict[str, Any] = {
        "file": named,
        "sha256": "",
        "base": "unknown",
        "algorithms": [],
        "tensors": 0,
        "unmatched": [],
        "refused": None,
        "metadata": {},
        "modules": [],
    }
    try:
        _describe(path, result)
    except LoraError as error:
        result["refused"] = error.message
    result["sha256"] = result["sha256"] or reading.sha256(path)
    return result


def _describe(path: Path, result: dict[str, Any]) -> None:
    """Fill in what is known, as far as the file allows."""
    file = reading.read(path, path.name)
    result["sha256"], result["tensors"] = file.sha256, len(file.tensors)
    result["metadata"] = without_pictures(file.metadata)
    adapter = adapt(file, PeftConfig.from_json(read_config(path)))
    result["algorithms"] = sorted({module.label for module in adapter.modules})
    found = base_of(adapter)
    if found is None:
        raise LoraIncompatible(file.name, no_base(adapter))
    base, placement = found
    result["base"], result["unmatched"] = base, placement.unmatched(adapter)
    if placement.misfits:
        raise LoraMalformed(file.name, placement.misfits[0].fault, key=placement.misfits[0].key)
    modules = [_describe_module(placed) for placed in placement.placed]
    if any((module["delta_norm"] or 0.0) > torch.finfo(torch.float32).max for module in modules):
        raise LoraMalformed(file.name, "a change is too large for a number: alpha or a factor is wrong")
    result["modules"] = modules


def _describe_module(placed: Placed) -> Mapping[str, Any]:
    source, target = placed.source, placed.target
    return {
        "component": target.component,
        "module": target.path,
        "algorithm": source.label,
        "rank": source.rank,
        "alpha": source.alpha,
        "delta_norm": change_norm(source, target.weight, torch.float64),
    }
