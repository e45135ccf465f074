"""A safetensors reader for files that nobody vouches for.

The file is read into memory once and hashed meanwhile; it is never mapped, since a mapped file that shrinks
kills the process. The safetensors library reads by mapping, and accepts NaN.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdgrpc.errors import LoraChanged, LoraMalformed, LoraUnsupported
from sdgrpc.lora.files.tensors import views
from sdgrpc.regular_files import open_regular
from sdgrpc.tensor_files.faults import FileFault, PickledFile, TruncatedFile
from sdgrpc.tensor_files.header import DTYPES, RawFile, ReadLimits, read_header

__all__ = ["DEFAULT_LIMITS", "ReadLimits", "TensorFile", "read", "read_shapes", "sha256", "sketch"]

DEFAULT_LIMITS = ReadLimits(
    max_file_bytes=4 << 30, max_header_bytes=8 << 20, max_tensors=16_384, dtypes=DTYPES
)
"""What a LoRA file may claim. Real files stay under: SDXL LyCORIS files have about 7,500 tensors."""

HASH_CHUNK = 1 << 20


DECIDING = (".on_input", ".bias_indices", ".bias_size")
"""Endings of keys whose values, not only their shapes, say which weight a module is for."""


ADVICE: Mapping[type[FileFault], str] = {
    TruncatedFile: "; fetch it again",
    PickledFile: "; only safetensors files are read. "
    "`sdgrpc loras convert FILE` makes one of it without running any code",
}
"""What to do about a fault."""

CHANGED = "was changed while it was read; send the request again once it is whole"


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A file's tensors (views of one buffer, on the CPU, every float but alphas finite) and its metadata.

    `digest` is the content's SHA-256 in hex, or what is still computing it beside the work on the tensors.
    """

    name: str
    digest: str | Future[str]
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """The hash of the whole file; waits for it."""
        return self.digest if isinstance(self.digest, str) else self.digest.result()

    @property
    def nbytes(self) -> int:
        """Bytes that the tensors hold."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def read(
    source: Path | bytes,
    name: str,
    limits: ReadLimits = DEFAULT_LIMITS,
    check_keys: Callable[[str, Iterable[str]], None] = lambda _name, _keys: None,
    *,
    expected: str = "",
) -> TensorFile:
    """Read, hash and check a whole file.

    Args:
        source: where it is, or what is in it.
        name: what to call it in messages.
        limits: what it may claim at most.
        check_keys: called with the name and the keys before any data is read; raises to refuse the file.
        expected: the hash of what is wanted, where it is known. It tells a change better than times do.

    Raises:
        LoraMalformed: truncated, lying header, duplicate keys, NaN or infinity; names the key.
        LoraChanged: it was written while it was read.
        LoraUnsupported: a pickle, whatever its name says.
        OSError: the file cannot be opened, or is no regular file.

    """
    with _open(source) as file, faults_named(name):
        before = _stamp(file)
        header = read_header(file, limits)
        check_keys(name, [claim.key for claim in header.claims])
        data = torch.empty(header.data_bytes, dtype=torch.uint8)
        _fill(file, data)
        is_same = _stamp(file) == before
    digest = _hashing(header.raw, data)
    if not is_same and digest.result() != expected:
        raise LoraChanged(name, CHANGED)
    tensors: dict[str, Tensor] = {}
    for _, run in itertools.groupby(header.claims, key=lambda claim: claim.dtype):
        tensors |= views(data, list(run), name)
    return TensorFile(name, digest, tensors, header.metadata)


def read_shapes(path: Path, limits: ReadLimits = DEFAULT_LIMITS) -> dict[str, tuple[int, ...]]:
    """Read only the header of a file: the shape of every tensor.

    Raises:
        LoraMalformed, LoraUnsupported, OSError: as `read` does.

    """
    with _open(path) as file, faults_named(path.name):
        return {claim.key: claim.shape for claim in read_header(file, limits).claims}


def sketch(path: Path, name: str, limits: ReadLimits = DEFAULT_LIMITS) -> TensorFile:
    """Read the header of a file and what decides about shapes; all other tensors are on the meta device.

    Says in milliseconds what a file is. It is not hashed, and NaN is looked for only in what is read.

    Raises:
        LoraMalformed, LoraUnsupported, OSError: as `read` does.

    """
    tensors: dict[str, Tensor] = {}
    with _open(path) as file, faults_named(name):
        header = read_header(file, limits)
        for claim in header.claims:
            if claim.key.endswith(DECIDING):
                file.seek(header.start + claim.begin)
                data = torch.empty(claim.end - claim.begin, dtype=torch.uint8)
                _fill(file, data)
                tensors |= views(data, [replace(claim, begin=0, end=len(data))], name)
            else:
                tensors[claim.key] = torch.empty(claim.shape, dtype=claim.dtype, device="meta")
    return TensorFile(name, "", tensors, header.metadata)


def sha256(path: Path, name: str = "") -> str:
    """Hash a file's bytes as `read` does, lower-case hex.

    Raises:
        LoraChanged: it was written meanwhile.
        OSError: it cannot be opened, or is no regular file.

    """
    digest = hashlib.sha256()
    with _open(path) as file:
        before = _stamp(file)
        while chunk := file.read(HASH_CHUNK):
            digest.update(chunk)
        if _stamp(file) != before:
            raise LoraChanged(name or path.name, CHANGED)
    return digest.hexdigest()


@contextmanager
def faults_named(name: str) -> Iterator[None]:
    """Say a fault of a file as that of the LoRA `name`, and what to do about it.

    Raises:
        LoraUnsupported: the file is a pickle.
        LoraMalformed: it has another fault; names the key.

    """
    try:
        yield
    except FileFault as fault:
        kind = LoraUnsupported if isinstance(fault, PickledFile) else LoraMalformed
        raise kind(name, f"{fault.sentence}{ADVICE.get(type(fault), '')}", key=fault.key) from fault


def _open(source: Path | bytes) -> RawFile:
    # A path that became a link after the folder was indexed is not followed.
    return io.BytesIO(source) if isinstance(source, bytes) else open_regular(source, follow_links=False)


def _stamp(file: RawFile) -> tuple[int, ...]:
    """Return what changes when an open file is written; bytes in memory are never."""
    if isinstance(file, io.BytesIO):
        return ()
    stat = os.fstat(file.fileno())
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _bytes_of(data: Tensor) -> memoryview:
    view: Any = data.numpy()
    return memoryview(view)


def _fill(file: RawFile, data: Tensor) -> None:
    view = _bytes_of(data)
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise TruncatedFile(f"it shrank to {done:,} bytes of data while it was read")
        done += count


def _hashing(header: bytes, data: Tensor) -> Future[str]:
    """Start to hash a file's content on a thread of its own, which leaves Python's lock to others."""

    def work() -> str:
        digest = hashlib.sha256(len(header).to_bytes(8, "little"))
        digest.update(header)
        digest.update(_bytes_of(data))
        return digest.hexdigest()

    thread = ThreadPoolExecutor(1, "sdgrpc-hash")
    try:
        return thread.submit(work)
    finally:
        thread.shutdown(wait=False)
