"""PEFT's configuration of an adapter: what its tensors do not hold, as alpha or how rotations are made.

It comes from `adapter_config.json` beside a file, or from the file's metadata: `lora_adapter_metadata`, as
diffusers writes it (one flat map, each name with its component before it), and single keys (see `flat`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor

from sdgrpc.lora.headers.components import COMPONENTS, component_of
from sdgrpc.lora.headers.flat import flat_values, parse_object
from sdgrpc.lora.headers.initialization import fault_of

METADATA_KEY = "lora_adapter_metadata"
PREFIX = "base_model.model."
DEFAULT_COFT_EPS = 6e-5
METHODS: Mapping[str, Mapping[str, str]] = {
    "GRALORA": {"alpha": "alpha"},
    "FOURIERFT": {"scaling": "fourier_scaling", "random_loc_seed": "fourier_seed"},
    "ROAD": {"group_size": "road_group"},
    "HRA": {},
}
"""Newer methods with settings that count -> the name of each -> its role."""

LARGEST = 2**62
"""Settings beyond are none: no generator takes such a seed."""

MAX_CAYLEY_TERMS = 100
"""More terms change no bit; a file may not keep the server busy by asking for a million."""

_NAME = re.compile(r"\^?(?:[\w-]|\\?\.)+\$?")


class UnknownPattern(ValueError):
    """A pattern of modules' names that is no plain name: whose number it is cannot be told."""


class MissingConfiguration(ValueError):
    """An algorithm cannot be computed without its configuration, which is not there."""


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """`values` maps a component's prefix (`unet.`, or nothing) to its PEFT configuration."""

    values: Mapping[str, Mapping[str, Any]]

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> PeftConfig | None:
        """Read what diffusers and others wrote into a file; None where there is nothing of use."""
        values = flat_values(metadata)
        for name, value in parse_object(metadata.get(METADATA_KEY, "")).items():
            prefix = next((component for component in COMPONENTS if name.startswith(component)), "")
            values.setdefault(prefix, {})[name.removeprefix(prefix)] = value
        return cls(values) if values else None

    @classmethod
    def from_json(cls, text: str) -> PeftConfig | None:
        """Read an `adapter_config.json`; None where it is no configuration of an adapter that is applied."""
        values = parse_object(text)
        kind = values.get("peft_type")
        known = values.keys() & {"lora_alpha", "init_lora_weights"} or kind == "OFT"
        known = known or (kind in ("LOHA", "LOKR") and "alpha" in values) or kind in METHODS
        return cls({"": values}) if known else None

    @property
    def fault(self) -> str:
        """Why a LoRA with this configuration cannot be applied as a sum; nothing where it can."""
        return next((fault for values in self.values.values() if (fault := fault_of(values))), "")

    def alpha(self, spelling: str, rank: int, *, is_wide: bool = False) -> Tensor | None:
        """Return the alpha of a LoRA's module such that alpha / rank is its scale; None where none is known.

        rsLoRA scales by alpha / sqrt(rank), https://arxiv.org/abs/2312.03732. `is_wide` is a convolution
        wider than 1x1, for which kohya's trainers have an alpha of its own.

        Raises:
            UnknownPattern: `alpha_pattern` has more than names.

        """
        prefix, values = self._of(spelling)
        if values is None:
            return None
        name = "conv_alpha" if is_wide and "conv_alpha" in values else "lora_alpha"
        alpha = _of_module(values, name, "alpha_pattern", spelling.removeprefix(prefix))
        if alpha is None:
            return None
        return torch.tensor(alpha * (math.sqrt(rank) if values.get("use_rslora") is True else 1.0))

    def lycoris(self, kind: str, spelling: str, rank: int | None) -> dict[str, Tensor]:
        """Return the alpha of a module of a LoHa or LoKr, by role, as far as it is known.

        `kind` is what PEFT calls the algorithm. A LoKr of two whole factors has no rank: PEFT scales it by
        its configuration's alpha / r all the same.

        Raises:
            UnknownPattern: as `alpha` does.

        """
        prefix, values = self._of(spelling)
        if values is None or values.get("peft_type") != kind:
            return {}
        path = spelling.removeprefix(prefix)
        alpha = _of_module(values, "alpha", "alpha_pattern", path)
        if alpha is None or rank is not None:
            return {} if alpha is None else {"alpha": torch.tensor(alpha)}
        configured = _of_module(values, "r", "rank_pattern", path)
        return {"scale": torch.tensor(alpha / configured)} if configured else {}

    def method(self, kind: str, spelling: str) -> dict[str, Tensor]:
        """Return what a newer method's tensors do not hold, by role, as far as it is known.

        GraLoRA's alpha; FourierFT's scaling and the seed of its places; whether HRA orders its vectors.
        """
        _, values = self._of(spelling)
        if values is None or values.get("peft_type") != kind:
            return {}
        found = {
            role: torch.tensor(values[name])
            for name, role in METHODS.get(kind, {}).items()
            if _is_number(values.get(name)) and abs(values[name]) < LARGEST
        }
        return found | ({"gram_schmidt": torch.tensor(True)} if values.get("apply_GS") is True else {})

    def rotation(self, spelling: str) -> dict[str, Tensor]:
        """Return how an OFTv2 makes its rotations, by role, as far as it is said and not PEFT's default.

        `cayley_terms` is the length of the series, 0 for the exact map (`use_cayley_neumann` false);
        `coft_eps` the bound of constrained OFT (`coft`).
        """
        _, values = self._of(spelling)
        if values is None:
            return {}
        found = {}
        terms = values.get("num_cayley_neumann_terms")
        if values.get("use_cayley_neumann") is False:
            found["cayley_terms"] = torch.tensor(0)
        elif _is_number(terms):  # without any term PEFT leaves the identity, as with one
            found["cayley_terms"] = torch.tensor(min(max(int(terms), 1), MAX_CAYLEY_TERMS))
        if values.get("coft") is True:
            eps = values.get("eps", DEFAULT_COFT_EPS)
            found["coft_eps"] = torch.tensor(float(eps) if _is_number(eps) else DEFAULT_COFT_EPS)
        return found

    def _of(self, spelling: str) -> tuple[str, Mapping[str, Any] | None]:
        """Return the component that a module's spelling begins with, and its configuration."""
        prefix = next((component for component in COMPONENTS if spelling.startswith(component)), "")
        own = prefix or component_of(spelling)
        return prefix, self.values.get(own, None if prefix else self.values.get(""))


def _of_module(values: Mapping[str, Any], name: str, pattern: str, path: str) -> float | None:
    """Return the number that a configuration gives a module: its own by `pattern`, else everybody's.

    Of the patterns the first that fits counts, as in PEFT. They are taken as the names that they nearly
    always are, which fit a path's end; regular expressions from strangers are not run.
    """
    while path.startswith(PREFIX):
        path = path.removeprefix(PREFIX)
    found, special = values.get(name), values.get(pattern)
    for written, value in (special if isinstance(special, dict) else {}).items():
        if not _NAME.fullmatch(written):
            raise UnknownPattern(f"{pattern} has {written!r:.80}, which is no module's name")
        plain = written.replace("\\.", ".").removesuffix("$")
        if path == plain.removeprefix("^") or path.endswith(f".{plain}"):
            found = value
            break
    return float(found) if _is_number(found) else None


def _is_number(value: object) -> TypeGuard[int | float]:
    """Whether JSON gave a number that counts: `true` is none, nor is infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
