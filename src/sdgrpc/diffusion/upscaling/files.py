"""Files of upscalers to state dicts: safetensors, and the pickles that they were published as."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sdgrpc.errors import ModelError
from sdgrpc.regular_files import open_regular
from sdgrpc.tensor_files.faults import FileFault, PickledFile
from sdgrpc.tensor_files.header import ALL_DTYPES, ReadLimits, read_header
from sdgrpc.tensor_files.pickles import PICKLE_STARTS, PICKLE_SUFFIXES

LIMITS = ReadLimits(max_file_bytes=2 << 30, max_header_bytes=16 << 20, max_tensors=20_000, dtypes=ALL_DTYPES)


def state_dict(place: Path) -> dict[str, Any]:
    """Read a file's tensors; those of a pickle as it nests them.

    A pickle is a program. torch's weights-only loader builds tensors and plain containers of it and runs
    nothing else; a file that asks for more is refused.

    Raises:
        ModelError: it is not there, broken, too large, or holds code.

    """
    what = f"the upscaler {place}"
    try:
        if place.stat().st_size > LIMITS.max_file_bytes:
            raise ModelError(f"{what} has more than {LIMITS.max_file_bytes:,} bytes")
        if _is_pickle(place):
            return _unpickled(place, what)
        return _stored(place)
    except PickledFile:
        raise ModelError(f"{what} is a pickle; it needs an ending of {_endings()}") from None
    except FileFault as fault:
        raise ModelError(f"{what}: {fault.sentence}") from None
    except OSError as error:
        raise ModelError(f"{what} cannot be read: {error.strerror or error}") from error


def _is_pickle(place: Path) -> bool:
    if place.suffix.lower() not in PICKLE_SUFFIXES:
        return False
    with open_regular(place) as file:
        return (file.read(8) or b"").startswith(PICKLE_STARTS)


def _endings() -> str:
    return ", ".join(sorted(PICKLE_SUFFIXES))


def _stored(place: Path) -> dict[str, Any]:
    with open_regular(place) as file:
        header = read_header(file, LIMITS)
        data = bytearray(header.data_bytes)
        view, at = memoryview(data), 0
        while at < len(data) and (count := file.readinto(view[at:])):
            at += count
    whole = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
    return {
        claim.key: whole[claim.begin : claim.end].clone().view(claim.dtype).view(claim.shape)
        for claim in header.claims
    }


def _unpickled(place: Path, what: str) -> dict[str, Any]:
    try:
        with warnings.catch_warnings(action="ignore"), place.open("rb") as file:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever bytes can make the unpickler raise
        if isinstance(error, OSError | MemoryError):
            raise
        raise ModelError(
            f"{what} holds more than weights, or is damaged; nothing of it was run. Take a safetensors file"
        ) from error
    if not isinstance(found, Mapping):
        raise ModelError(f"{what} holds {type(found).__name__}, no map of tensors")
    return dict(found)
