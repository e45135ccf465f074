"""What tools write into a file's header in keys of their own: numbers, each perhaps after its component.

`lora_alpha`, `unet.lora_alpha`, `network_alpha`, `ss_network_alpha` and their like become the names that
PEFT's configuration has, so that one place knows what they mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from sdgrpc.lora.headers.components import COMPONENTS

EVERYBODY = ""
ALPHAS = ("lora_alpha", "network_alpha", "ss_network_alpha", "lora_network_alpha")
RANKS = ("r", "lora_r", "lora_rank", "rank", "network_dim", "network_rank", "ss_network_dim")
PLAIN = ("use_rslora", "init_lora_weights", "alpha_pattern", "rank_pattern")
"""Names that are PEFT's own already."""

NETWORK_ARGS = "ss_network_args"
"""kohya's and LyCORIS's arguments of a network, JSON."""


def flat_values(metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return component -> PEFT's name -> value; what is said of no component counts for each.

    kohya's convolutions wider than 1x1 may have their own: `conv_alpha` of `ss_network_args`, which is 1
    where its trainer was told a `conv_dim` alone.
    """
    common = _values(metadata, ("",)) | _convolutions(metadata)
    if "lora_alpha" not in common and "r" in common and (alpha := number(metadata.get("alpha"))) is not None:
        common["lora_alpha"] = alpha
    found = {EVERYBODY: common}
    for component in COMPONENTS:
        name = component.removesuffix(".")
        found[component] = common | _values(metadata, (f"{name}.", f"{name}_", f"{name}/", f"{name}:"))
    return found if any(found.values()) else {}


def network_args(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what kohya's trainers were told about the network; nothing where it cannot be read."""
    return parse_object(metadata.get(NETWORK_ARGS, ""))


def parse_object(text: str) -> dict[str, Any]:
    """Return the object that a JSON text holds; nothing where it holds none."""
    try:
        values = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def number(text: object) -> float | None:
    """Return the finite number that a header's text, or JSON, says; None for any other."""
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        return None
    try:
        value = float(text)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def said_true(text: object) -> bool:
    """Whether a header, or JSON, says yes."""
    return text is True or (isinstance(text, str) and text.strip().lower() in ("true", "1", "yes"))


def _values(metadata: Mapping[str, str], prefixes: tuple[str, ...]) -> dict[str, Any]:
    """Return what stands after one of these prefixes, by PEFT's names."""

    def first(names: tuple[str, ...]) -> float | None:
        texts = (metadata.get(prefix + name) for name in names for prefix in prefixes)
        return next((value for text in texts if (value := number(text)) is not None), None)

    found: dict[str, Any] = {
        name: value
        for name, names in (("lora_alpha", ALPHAS), ("r", RANKS))
        if (value := first(names)) is not None
    }
    for name in PLAIN:
        for prefix in prefixes:
            if (text := metadata.get(prefix + name)) is not None:
                found[name] = _plain(text)
    return found


def _plain(text: str) -> object:
    """Return what a header's text means: JSON, Python's own words, or the text."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return {"true": True, "false": False, "none": None}.get(text.strip().lower(), text.strip())
    return value


def _convolutions(metadata: Mapping[str, str]) -> dict[str, Any]:
    said = network_args(metadata)
    alpha = number(said.get("conv_alpha"))
    if alpha is None and number(said.get("conv_dim")) is not None:
        is_kohya = metadata.get("ss_network_module", "").startswith("networks.")
        alpha = 1.0 if is_kohya else None
    return {} if alpha is None else {"conv_alpha": alpha}
