"""CivitAI's ids: `urn:air:sd1:lora:civitai:MODEL@VERSION`, down to `civitai:MODEL`.

The form is that of https://developer.civitai.com/site/guide/air:
`urn:air:{ecosystem}:{type}:{source}:{id}[@{version}][+{file}][.{format}]`, where `urn:`, `air:`, ecosystem
and type may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_AIR = re.compile(
    r"(?:urn:)?(?:air:)?(?:(?P<ecosystem>[\w-]+):)?(?:(?P<type>\w+):)?civitai:(?P<model>[0-9]{1,18})"
    r"(?:@(?P<version>[0-9]{1,18}))?(?:\+(?P<file>[0-9]{1,18}))?(?:\.\w+)?",
    re.ASCII | re.IGNORECASE,
)
_HASH = re.compile(r"[0-9a-f]{12}|[0-9a-f]{64}")
LORAS = frozenset({"", "lora", "lycoris", "locon", "dora"})
_ECOSYSTEMS = (("sd 1", "sd1"), ("sd 2", "sd2"), ("sdxl", "sdxl"))


@dataclass(frozen=True, slots=True)
class Air:
    """A version of a model on CivitAI.

    Of a request `version` 0 is any, and `file` 0 is any of the version's files. Of a record `hashes` are
    those of its files, by their ids: SHA-256, and AutoV3, which stays where only metadata were changed.
    """

    model: int
    version: int = 0
    file: int = 0
    ecosystem: str = ""
    kind: str = ""
    hashes: tuple[tuple[int, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Air | None:
        """Read what a request calls a LoRA; None where it is no such id."""
        found = _AIR.fullmatch(text.strip())
        if found is None:
            return None
        first, second = (found["ecosystem"] or "").lower(), (found["type"] or "").lower()
        model, version, file = (int(found[name] or 0) for name in ("model", "version", "file"))
        kind = second or (first if first in LORAS else "")
        return cls(model, version, file, first if second else "", kind)

    def __str__(self) -> str:
        version = f"@{self.version}" if self.version else ""
        file = f"+{self.file}" if self.file else ""
        return (
            f"urn:air:{self.ecosystem or 'other'}:{self.kind or 'lora'}:civitai:{self.model}{version}{file}"
        )

    def is_of(self, wanted: Air) -> bool:
        """Whether a record is of the version that a request means."""
        return self.model == wanted.model and wanted.version in (0, self.version)

    def hashes_of(self, file: int) -> frozenset[str]:
        """Return the hashes of one of its files, or of all for 0."""
        return frozenset(digits for owner, digits in self.hashes if file in (0, owner))


def air_of(record: Mapping[str, Any]) -> Air | None:
    """Return what CivitAI's record of a version identifies; None where it has no ids."""
    model, version = _number(record.get("modelId")), _number(record.get("id"))
    if not model or not version:
        return None
    base = record.get("baseModel")
    name = base.lower() if isinstance(base, str) else ""
    ecosystem = next((short for start, short in _ECOSYSTEMS if name.startswith(start)), "")
    return Air(
        model,
        version,
        ecosystem=ecosystem or re.sub(r"[^a-z0-9]+", "", name)[:32],
        hashes=tuple(_hashes(record.get("files"))),
    )


def _hashes(files: object) -> Iterator[tuple[int, str]]:
    for file in files if isinstance(files, list) else ():
        hashes = file.get("hashes") if isinstance(file, dict) else None
        if isinstance(hashes, dict):
            for name in ("SHA256", "AutoV3"):
                digits = str(hashes.get(name)).lower()
                if _HASH.fullmatch(digits):
                    yield _number(file.get("id")), digits


def _number(told: object) -> int:
    return told if isinstance(told, int) and not isinstance(told, bool) and 0 < told < 10**18 else 0
