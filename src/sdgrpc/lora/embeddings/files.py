"""Files of textual inversions, as their trainers write them.

A1111's web UI and CivitAI: `emb_params`; for SDXL `clip_l` and `clip_g`, which diffusers' scripts call
`text_encoders_0` and `text_encoders_1`. diffusers: one tensor under the word that it was trained as, which a
file's name replaces here as in the web UI.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from sdgrpc.domain.bases import OWN, SD2, SD15, SDXL, UNKNOWN
from sdgrpc.errors import LoraError
from sdgrpc.lora.bases.architectures import index, known_bases
from sdgrpc.lora.dialects.tokens import ONLY, Bundled, Vectors
from sdgrpc.lora.files.reading import read
from sdgrpc.tensor_files.header import DTYPES, ReadLimits

LIMITS = ReadLimits(max_file_bytes=64 << 20, max_header_bytes=1 << 20, max_tensors=64, dtypes=DTYPES)
"""What such a file may claim; those with 75 vectors for SDXL have 600 KB."""

NAMED: Mapping[str, str] = {
    "emb_params": ONLY,
    "clip_l": "clip_l",
    "text_encoders_0": "clip_l",
    "clip_g": "clip_g",
    "text_encoders_1": "clip_g",
}
WIDTHS: Mapping[int, str] = {768: SD15, 1024: SD2}
LARGE = "clip_g"
SECOND = "text_encoder_2"


@dataclass(frozen=True, eq=False)
class Embedding:
    """What is in a file, or why it cannot be used: a predicate, or the rest of a sentence about it."""

    name: str
    sha256: str = ""
    token: Bundled | None = field(default=None, repr=False)
    refusal: str = ""

    @property
    def base(self) -> str:
        """What its vectors are for."""
        if self.token is None:
            return UNKNOWN
        if LARGE in self.token.tensors:
            return SDXL
        width = int(next(iter(self.token.tensors.values())).shape[-1])
        if OWN in known_bases() and width in index(OWN).token_widths.values():
            return OWN
        return WIDTHS.get(width, UNKNOWN)

    @property
    def vectors(self) -> int:
        """How many it has; 0 where it cannot be used."""
        if self.token is None:
            return 0
        tensor = next(iter(self.token.tensors.values()))
        return 1 if tensor.ndim == 1 else int(tensor.shape[0])

    def for_widths(self, widths: Mapping[str, int]) -> Vectors | str:
        """Return its vectors for text encoders of these widths, or why they cannot use it."""
        if self.token is None:
            return self.refusal
        if LARGE in self.token.tensors and SECOND not in widths:
            return "it is for SDXL: it has vectors for two text encoders"
        return self.token.vectors(widths)


def read_embedding(path: Path, name: str) -> Embedding:
    """Read and check a file; what is wrong with it is in `refusal`."""
    try:
        file = read(path, name, LIMITS)
        sha256 = file.sha256
    except LoraError as error:
        return Embedding(name, refusal=error.message.removeprefix(f"LoRA {name!r}: "))
    except OSError as error:
        return Embedding(name, refusal=f"it cannot be read: {error.strerror}")
    found = _token(name, file.tensors)
    if isinstance(found, str):
        return Embedding(name, sha256, refusal=found)
    return Embedding(name, sha256, found)


def _token(name: str, tensors: Mapping[str, Tensor]) -> Bundled | str:
    keys = {NAMED[key]: key for key in tensors if key in NAMED}
    if not keys and len(tensors) == 1:
        keys = {ONLY: next(iter(tensors))}
    if not keys or any(tensors[key].ndim not in (1, 2) for key in keys.values()):
        shown = ", ".join(repr(key) for key in list(tensors)[:3])
        return f"it holds no textual inversion, but {len(tensors)} tensors ({shown})"
    return Bundled(name, {part: tensors[key] for part, key in keys.items()}, keys)
