"""PEFT's configuration of a LoRA: where the alpha stands that its tensors do not hold.

It comes from `adapter_config.json` beside a file, or from the file's metadata: `lora_adapter_metadata`, as
diffusers writes it (one flat map, each name with its component before it).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

METADATA_KEY = "lora_adapter_metadata"
COMPONENTS = ("text_encoder_2.", "text_encoder.", "unet.")
PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """`values` maps a component's prefix (`unet.`, or nothing) to its PEFT configuration."""

    values: Mapping[str, Mapping[str, Any]]

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> PeftConfig | None:
        """Read what diffusers wrote into a file; None where there is nothing of use."""
        flat = _parse(metadata.get(METADATA_KEY, ""))
        values: dict[str, dict[str, Any]] = {}
        for name, value in flat.items():
            prefix = next((component for component in COMPONENTS if name.startswith(component)), "")
            values.setdefault(prefix, {})[name.removeprefix(prefix)] = value
        return cls(values) if values else None

    @classmethod
    def from_json(cls, text: str) -> PeftConfig | None:
        """Read an `adapter_config.json`; None where it is no configuration of a LoRA."""
        values = _parse(text)
        return cls({"": values}) if "lora_alpha" in values else None

    def alpha(self, spelling: str, rank: int) -> Tensor | None:
        """Return the alpha of a module such that alpha / rank is its scale; None where none is known.

        rsLoRA scales by alpha / sqrt(rank), https://arxiv.org/abs/2312.03732. `alpha_pattern` gives single
        modules another alpha; its names are compared as they stand, not run as patterns.
        """
        prefix = next((component for component in COMPONENTS if spelling.startswith(component)), "")
        values = self.values.get(prefix)
        if values is None:
            return None
        path = spelling.removeprefix(prefix)
        while path.startswith(PREFIX):
            path = path.removeprefix(PREFIX)
        alpha = values.get("lora_alpha")
        patterns = values.get("alpha_pattern")
        for name, special in (patterns if isinstance(patterns, dict) else {}).items():
            if path == name.removeprefix("^") or path.endswith(f".{name}"):
                alpha = special
        if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
            return None
        return torch.tensor(float(alpha) * (math.sqrt(rank) if values.get("use_rslora") is True else 1.0))


def _parse(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
