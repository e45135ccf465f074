"""A file's hashes: the SHA-256 of all of it, and the one by which A1111's web UI and model sites know a LoRA.

The latter ("AutoV3") is 12 digits of `sshs_model_hash`, which trainers write into the metadata, else of the
SHA-256 of what follows the header, which is the same: `Network.read_hash` of `extensions-builtin/Lora` and
`addnet_hash_safetensors` of `modules/hashes.py` in https://github.com/AUTOMATIC1111/stable-diffusion-webui.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from sdgrpc.tensor_files.faults import FileFault
from sdgrpc.tensor_files.header import RawFile, ReadLimits, read_header

HASH_CHUNK = 1 << 20
MODEL_HASH = "sshs_model_hash"
DIGITS = 12

_TOLD = re.compile(rf"[0-9a-fA-F]{{{DIGITS},64}}")


class Hashes(NamedTuple):
    """`sha256` of the whole file in hex; `autov3` has 12 digits, none for what is no safetensors file."""

    sha256: str
    autov3: str


def told_autov3(metadata: Mapping[str, str]) -> str:
    """The hash that a file says of itself; empty if it says none."""
    told = metadata.get(MODEL_HASH, "")
    return told[:DIGITS].lower() if _TOLD.fullmatch(told) else ""


def hashes_of(file: RawFile, limits: ReadLimits) -> Hashes:
    """Hash a file in one go, piece by piece, whatever is in it."""
    told, start = "", None
    with suppress(FileFault):
        header = read_header(file, limits)
        told, start = told_autov3(header.metadata), header.start
    whole, data, position = hashlib.sha256(), hashlib.sha256(), 0
    file.seek(0)
    while chunk := file.read(HASH_CHUNK):
        whole.update(chunk)
        if start is not None and not told:
            data.update(chunk[max(0, start - position) :])
        position += len(chunk)
    found = told if told or start is None else data.hexdigest()[:DIGITS]
    return Hashes(whole.hexdigest(), found)


def hashing(header: bytes, data: memoryview) -> Future[str]:
    """Start to hash a file's content."""

    def work() -> str:
        digest = hashlib.sha256(len(header).to_bytes(8, "little"))
        digest.update(header)
        digest.update(data)
        return digest.hexdigest()

    return _beside(work)


def hashing_autov3(metadata: Mapping[str, str], data: memoryview) -> str | Future[str]:
    """Start to hash what follows the header, unless the file says the hash itself."""
    return told_autov3(metadata) or _beside(lambda: hashlib.sha256(data).hexdigest()[:DIGITS])


def _beside(work: Callable[[], str]) -> Future[str]:
    """Run on a thread `sdgrpc-hash` of its own, which leaves Python's lock to others while it hashes."""
    thread = ThreadPoolExecutor(1, "sdgrpc-hash")
    try:
        return thread.submit(work)
    finally:
        thread.shutdown(wait=False)
