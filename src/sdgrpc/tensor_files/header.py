"""The header of a safetensors file, with every claim checked before it is used.

The format (https://huggingface.co/docs/safetensors): 8 bytes little endian N, N bytes of JSON
`{key: {"dtype", "shape", "data_offsets"}, "__metadata__": {str: str}}`, then the data, which the tensors
cover without gap or overlap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeGuard

import torch

from sdgrpc.errors import LoraMalformed

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """What a file may claim at most. Real files stay under: SDXL LyCORIS files have about 7,500 tensors."""

    max_file_bytes: int = 4 << 30
    max_header_bytes: int = 8 << 20
    max_tensors: int = 16_384


DEFAULT_LIMITS = ReadLimits()


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor as the header claims it, checked: where its bytes are in the data."""

    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def parse_header(
    header: bytes, data_bytes: int, name: str, limits: ReadLimits
) -> tuple[list[Entry], dict[str, str]]:
    """Check every claim of a header about `data_bytes` of data; entries come in the order of their bytes.

    Raises:
        LoraMalformed: names the claim and the key.

    """
    claims = _parse_json(header, name)
    metadata = claims.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise LoraMalformed(name, "the header's __metadata__ is not a map of texts")
    if len(claims) > limits.max_tensors:
        raise LoraMalformed(name, f"has {len(claims):,} tensors; at most {limits.max_tensors:,} are read")
    entries = sorted(
        (_entry(key, claim, name) for key, claim in claims.items()), key=lambda e: (e.begin, e.end)
    )
    position = 0
    for entry in entries:
        if entry.begin != position:
            fault = "overlaps another tensor" if entry.begin < position else "leaves a gap before it"
            raise LoraMalformed(name, f"tensor {entry.key!r} {fault} in the data", key=entry.key)
        if entry.end > data_bytes:
            raise LoraMalformed(
                name,
                f"is truncated: tensor {entry.key!r} ends at byte {entry.end:,} of the data, "
                f"{data_bytes:,} are there; fetch it again",
                key=entry.key,
            )
        position = entry.end
    if position != data_bytes:
        raise LoraMalformed(name, f"has {data_bytes - position:,} bytes of data that belong to no tensor")
    return entries, metadata


def _parse_json(header: bytes, name: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise LoraMalformed(name, f"the header has the key {key!r} twice", key=key)
        return found

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    try:
        claims = json.loads(header.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise LoraMalformed(name, "is not a safetensors file: its header is not JSON") from error
    if not isinstance(claims, dict):
        raise LoraMalformed(name, "is not a safetensors file: its header is not a JSON object")
    return claims


def _entry(key: str, claim: Any, name: str) -> Entry:  # noqa: ANN401 - whatever the JSON holds
    def broken(fault: str) -> LoraMalformed:
        return LoraMalformed(name, f"tensor {key!r} {fault}", key=key)

    if not isinstance(claim, dict):
        raise broken("has no description in the header")
    dtype = DTYPES.get(claim["dtype"]) if isinstance(claim.get("dtype"), str) else None
    if dtype is None:
        raise broken(f"has the dtype {claim.get('dtype')!r:.40}; known are {', '.join(DTYPES)}")
    shape, offsets = claim.get("shape"), claim.get("data_offsets")
    if not _naturals(shape) or len(shape) > 8:
        raise broken("has no valid shape")
    if not _naturals(offsets) or len(offsets) != 2:
        raise broken("has no valid data_offsets")
    begin, end = offsets
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise broken(
            f"of shape {shape} and dtype {claim['dtype']} needs {math.prod(shape) * dtype.itemsize} bytes, "
            f"the header gives it {end - begin}"
        )
    return Entry(key, dtype, tuple(shape), begin, end)


def _naturals(value: Any) -> TypeGuard[list[int]]:  # noqa: ANN401 - whatever the JSON holds
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 48 for item in value)
