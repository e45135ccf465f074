"""The header of a safetensors file, with every claim checked before it is used.

The format (https://huggingface.co/docs/safetensors): 8 bytes little endian N, N bytes of JSON
`{key: {"dtype", "shape", "data_offsets"}, "__metadata__": {str: str}}`, then the data, which the tensors
cover without gap or overlap.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeGuard

import torch

from sdgrpc.tensor_files.faults import FileFault, PickledFile, TruncatedFile
from sdgrpc.tensor_files.pickles import PICKLE_STARTS

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
"""What weights and their indices are stored as."""

ALL_DTYPES: Mapping[str, torch.dtype] = {
    **DTYPES,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "C64": torch.complex64,
    "F8_E8M0": torch.float8_e8m0fnu,
}
"""With those that may stand in a file beside weights."""

RawFile = io.RawIOBase | io.BytesIO


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """What a file may claim at most, and which dtypes it may hold; every room has its own."""

    max_file_bytes: int
    max_header_bytes: int
    max_tensors: int
    dtypes: Mapping[str, torch.dtype]


@dataclass(frozen=True, slots=True)
class TensorClaim:
    """One tensor as the header claims it, checked: where its bytes are in the data."""

    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """A file's tensors in the order of their bytes, its metadata, and where its data lie.

    `raw` is the JSON as it stands; the data begin at byte `start` of the file and are `data_bytes` long.
    """

    raw: bytes
    claims: Sequence[TensorClaim]
    metadata: Mapping[str, str]
    data_bytes: int

    @property
    def start(self) -> int:
        """The first byte of the data."""
        return 8 + len(self.raw)


def read_header(file: RawFile, limits: ReadLimits) -> Header:
    """Read and check the header of a file, and nothing behind it; the file stands at its data then.

    Raises:
        FileFault: says what is wrong, and names the key. PickledFile and TruncatedFile are of its kind.

    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size > limits.max_file_bytes:
        raise FileFault(f"the file has {size:,} bytes; at most {limits.max_file_bytes:,} are read")
    begin = file.read(8) or b""
    if len(begin) < 8:
        raise FileFault(f"the file has {size} bytes, too few for a safetensors file")
    length = int.from_bytes(begin, "little")
    if length > limits.max_header_bytes:
        if begin.startswith(PICKLE_STARTS):
            raise PickledFile
        raise FileFault(
            f"is not a safetensors file, or its header is too large: it claims {length:,} bytes, "
            f"at most {limits.max_header_bytes:,} are read"
        )
    if length > size - 8:
        raise TruncatedFile(f"the header claims {length:,} bytes, {size - 8:,} are there")
    raw = file.read(length)
    if raw is None or len(raw) != length:
        raise TruncatedFile("it shrank while it was read")
    return parse_header(raw, size - 8 - length, limits)


def parse_header(raw: bytes, data_bytes: int, limits: ReadLimits) -> Header:
    """Check every claim of a header about `data_bytes` of data.

    Raises:
        FileFault: names the claim and the key.

    """
    claimed = _parse_json(raw)
    metadata = claimed.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FileFault("the header's __metadata__ is not a map of texts")
    if len(claimed) > limits.max_tensors:
        raise FileFault(f"has {len(claimed):,} tensors; at most {limits.max_tensors:,} are read")
    claims = [_claim(key, what, limits.dtypes) for key, what in claimed.items()]
    claims.sort(key=lambda claim: (claim.begin, claim.end))
    _check_places(claims, data_bytes)
    return Header(raw, claims, metadata, data_bytes)


def _check_places(claims: Sequence[TensorClaim], data_bytes: int) -> None:
    """Let tensors, in the order of their bytes, cover the data without gap or overlap."""
    position = 0
    for claim in claims:
        if claim.begin != position:
            fault = "overlaps another tensor" if claim.begin < position else "leaves a gap before it"
            raise FileFault(f"tensor {claim.key!r} {fault} in the data", key=claim.key)
        if claim.end > data_bytes:
            raise TruncatedFile(
                f"tensor {claim.key!r} ends at byte {claim.end:,} of the data, {data_bytes:,} are there",
                key=claim.key,
            )
        position = claim.end
    if position != data_bytes:
        raise FileFault(f"has {data_bytes - position:,} bytes of data that belong to no tensor")


def _parse_json(raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise FileFault(f"the header has the key {key!r} twice", key=key)
        return found

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    try:
        claims = json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise FileFault("is not a safetensors file: its header is not JSON") from error
    if not isinstance(claims, dict):
        raise FileFault("is not a safetensors file: its header is not a JSON object")
    return claims


def _claim(key: str, what: Any, dtypes: Mapping[str, torch.dtype]) -> TensorClaim:  # noqa: ANN401 - any JSON
    def broken(fault: str) -> FileFault:
        return FileFault(f"tensor {key!r} {fault}", key=key)

    if not isinstance(what, dict):
        raise broken("has no description in the header")
    dtype = dtypes.get(what["dtype"]) if isinstance(what.get("dtype"), str) else None
    if dtype is None:
        raise broken(f"has the dtype {what.get('dtype')!r:.40}; known are {', '.join(dtypes)}")
    shape, offsets = what.get("shape"), what.get("data_offsets")
    if not _naturals(shape) or len(shape) > 8:
        raise broken("has no valid shape")
    if not _naturals(offsets) or len(offsets) != 2:
        raise broken("has no valid data_offsets")
    begin, end = offsets
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise broken(
            f"of shape {shape} and dtype {what['dtype']} needs {math.prod(shape) * dtype.itemsize} bytes, "
            f"the header gives it {end - begin}"
        )
    return TensorClaim(key, dtype, tuple(shape), begin, end)


def _naturals(value: Any) -> TypeGuard[list[int]]:  # noqa: ANN401 - whatever the JSON holds
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 48 for item in value)
