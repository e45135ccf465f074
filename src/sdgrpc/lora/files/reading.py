"""A safetensors reader for files that nobody vouches for.

The file is read into memory once and hashed meanwhile; it is never mapped, since a mapped file that shrinks
kills the process. The safetensors library reads by mapping, and accepts NaN.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdgrpc.errors import LoraMalformed, LoraUnsupported
from sdgrpc.lora.files.tensors import views
from sdgrpc.tensor_files.header import DEFAULT_LIMITS, Entry, ReadLimits, parse_header
from sdgrpc.tensor_files.pickles import PICKLE_STARTS

__all__ = ["DEFAULT_LIMITS", "ReadLimits", "TensorFile", "read", "read_shapes", "sha256", "sketch"]


HASH_CHUNK = 1 << 20


DECIDING = (".on_input", ".bias_indices", ".bias_size")
"""Endings of keys whose values, not only their shapes, say which weight a module is for."""


PICKLE_REFUSED = (
    "is a PyTorch pickle, which can run code when it is opened; only safetensors files are read. "
    "`sdgrpc loras convert FILE` makes one of it without running any code"
)


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
) -> TensorFile:
    """Read, hash and check a whole file.

    Args:
        source: where it is, or what is in it.
        name: what to call it in messages.
        limits: what it may claim at most.
        check_keys: called with the name and the keys before any data is read; raises to refuse the file.

    Raises:
        LoraMalformed: truncated, lying header, duplicate keys, NaN or infinity; names the key.
        LoraUnsupported: a pickle, whatever its name says.
        OSError: the file cannot be opened.

    """
    with _open(source) as file:
        header, size = _read_header(file, name, limits)
        entries, metadata = parse_header(header, size - 8 - len(header), name, limits)
        check_keys(name, [entry.key for entry in entries])
        data = torch.empty(size - 8 - len(header), dtype=torch.uint8)
        _fill(file, data, name)
    digest = _hashing(header, data)
    tensors: dict[str, Tensor] = {}
    for _, run in itertools.groupby(entries, key=lambda entry: entry.dtype):
        tensors |= views(data, list(run), name)
    return TensorFile(name, digest, tensors, metadata)


def read_shapes(path: Path, limits: ReadLimits = DEFAULT_LIMITS) -> dict[str, tuple[int, ...]]:
    """Read only the header of a file: the shape of every tensor.

    Raises:
        LoraMalformed, LoraUnsupported, OSError: as `read` does.

    """
    with _open(path) as file:
        entries, _, _ = _read_entries(file, path.name, limits)
    return {entry.key: entry.shape for entry in entries}


def sketch(
    path: Path,
    name: str,
    limits: ReadLimits = DEFAULT_LIMITS,
    check_keys: Callable[[str, Iterable[str]], None] = lambda _name, _keys: None,
) -> TensorFile:
    """Read the header of a file and what decides about shapes; all other tensors are on the meta device.

    Says in milliseconds what a file is. It is not hashed, and NaN is looked for only in what is read.

    Raises:
        LoraMalformed, LoraUnsupported, OSError: as `read` does.

    """
    tensors: dict[str, Tensor] = {}
    with _open(path) as file:
        entries, metadata, start = _read_entries(file, name, limits)
        check_keys(name, [entry.key for entry in entries])
        for entry in entries:
            if entry.key.endswith(DECIDING):
                file.seek(start + entry.begin)
                data = torch.empty(entry.end - entry.begin, dtype=torch.uint8)
                _fill(file, data, name)
                tensors |= views(data, [replace(entry, begin=0, end=len(data))], name)
            else:
                tensors[entry.key] = torch.empty(entry.shape, dtype=entry.dtype, device="meta")
    return TensorFile(name, "", tensors, metadata)


def sha256(path: Path) -> str:
    """Hash a file's bytes as `read` does, lower-case hex."""
    digest = hashlib.sha256()
    with _open(path) as file:
        while chunk := file.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _open(source: Path | bytes) -> io.RawIOBase | io.BytesIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    # A path that became a link after the folder was indexed is not followed, a pipe does not block.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return io.FileIO(os.open(source, flags | getattr(os, "O_BINARY", 0)), "rb")


def _read_entries(
    file: io.RawIOBase | io.BytesIO, name: str, limits: ReadLimits
) -> tuple[list[Entry], dict[str, str], int]:
    """Return the header's entries, its metadata, and where the data begin."""
    header, size = _read_header(file, name, limits)
    start = 8 + len(header)
    return *parse_header(header, size - start, name, limits), start


def _read_header(file: io.RawIOBase | io.BytesIO, name: str, limits: ReadLimits) -> tuple[bytes, int]:
    """Return the header and the size of the whole file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size > limits.max_file_bytes:
        raise LoraMalformed(name, f"the file has {size:,} bytes; at most {limits.max_file_bytes:,} are read")
    start = file.read(8) or b""
    if len(start) < 8:
        raise LoraMalformed(name, f"the file has {size} bytes, too few for a safetensors file")
    length = int.from_bytes(start, "little")
    if length > limits.max_header_bytes:
        if start.startswith(PICKLE_STARTS):
            raise LoraUnsupported(name, PICKLE_REFUSED)
        raise LoraMalformed(
            name,
            f"is not a safetensors file, or its header is too large: it claims {length:,} bytes, "
            f"at most {limits.max_header_bytes:,} are read",
        )
    if length > size - 8:
        raise LoraMalformed(
            name, f"is truncated: the header claims {length:,} bytes, {size - 8:,} are there; fetch it again"
        )
    header = file.read(length)
    if header is None or len(header) != length:
        raise LoraMalformed(name, "is truncated: it shrank while it was read; fetch it again")
    return header, size


def _bytes_of(data: Tensor) -> memoryview:
    view: Any = data.numpy()
    return memoryview(view)


def _fill(file: io.RawIOBase | io.BytesIO, data: Tensor, name: str) -> None:
    view = _bytes_of(data)
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise LoraMalformed(
                name, f"is truncated: it shrank to {done:,} bytes of data while it was read; fetch it again"
            )
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
