"""A safetensors reader for files that nobody vouches for.

The file is read into memory once and hashed meanwhile; it is never mapped, since a mapped file that shrinks
kills the process. The safetensors library reads by mapping, and accepts NaN.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdgrpc.errors import LoraChanged, LoraMalformed, LoraUnsupported
from sdgrpc.lora.files.hashing import Hashes, hashes_of, hashing, hashing_autov3, told_autov3
from sdgrpc.lora.files.tensors import views
from sdgrpc.regular_files import open_regular
from sdgrpc.tensor_files.faults import FileFault, PickledFile, TruncatedFile
from sdgrpc.tensor_files.header import DTYPES, RawFile, ReadLimits, read_header

__all__ = ["DEFAULT_LIMITS", "ReadLimits", "TensorFile", "hashes", "read", "read_shapes", "sketch"]

DEFAULT_LIMITS = ReadLimits(
    max_file_bytes=4 << 30, max_header_bytes=8 << 20, max_tensors=16_384, dtypes=DTYPES
)
"""What a LoRA file may claim. Real files stay under: SDXL LyCORIS files have about 7,500 tensors."""


DECIDING = (".on_input", ".bias_indices", ".bias_size")
"""Endings of keys whose values, not only their shapes, say which weight a module is for."""


ADVICE: Mapping[type[FileFault], str] = {
    TruncatedFile: "; fetch it again",
    PickledFile: "; only safetensors files are read. "
    "`sdgrpc loras convert FILE` makes one of it without running any code",
}
"""What to do about a fault."""

CHANGED = "was changed while it was read; send the request again once it is whole"

CHUNK = 8 << 20
"""Bytes read between two looks at whether the rest is still wanted."""


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A file's tensors (views of one buffer, on the CPU, every float but alphas finite) and its metadata.

    `digest` is the content's SHA-256 in hex, or what is still computing it beside the work on the tensors; so
    is `model_digest`, the hash of A1111. A file that was not read whole has only what it says itself of that.
    """

    name: str
    digest: str | Future[str]
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    model_digest: str | Future[str] = ""

    @property
    def autov3(self) -> str:
        """The hash of A1111, see `hashing`; waits for it."""
        return self.model_digest if isinstance(self.model_digest, str) else self.model_digest.result()

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
    alive: Callable[[], None] = lambda: None,
) -> TensorFile:
    """Read, hash and check a whole file.

    Args:
        source: where it is, or what is in it.
        name: what to call it in messages.
        limits: what it may claim at most.
        check_keys: called with the name and the keys before any data is read; raises to refuse the file.
        expected: the hash of what is wanted, where it is known. It tells a change better than times do.
        alive: called before each piece that is read; what it raises ends the reading.

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
        _fill(file, data, alive)
        is_same = _stamp(file) == before
    digest, model_digest = (
        hashing(header.raw, _bytes_of(data)),
        hashing_autov3(header.metadata, _bytes_of(data)),
    )
    if not is_same and digest.result() != expected:
        raise LoraChanged(name, CHANGED)
    tensors: dict[str, Tensor] = {}
    for _, run in itertools.groupby(header.claims, key=lambda claim: claim.dtype):
        tensors |= views(data, list(run), name)
    return TensorFile(name, digest, tensors, header.metadata, model_digest)


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
    return TensorFile(name, "", tensors, header.metadata, told_autov3(header.metadata))


def hashes(path: Path, name: str = "", *, expected: str = "") -> Hashes:
    """Hash a file's bytes as `read` does; `expected` is the SHA-256 of what is wanted, where it is known.

    Raises:
        LoraChanged: it was written meanwhile.
        OSError: it cannot be opened, or is no regular file.

    """
    with _open(path) as file:
        before = _stamp(file)
        found = hashes_of(file, DEFAULT_LIMITS)
        if _stamp(file) != before and found.sha256 != expected:
            raise LoraChanged(name or path.name, CHANGED)
    return found


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


def _fill(file: RawFile, data: Tensor, alive: Callable[[], None] = lambda: None) -> None:
    view = _bytes_of(data)
    done = 0
    while done < len(view):
        alive()
        count = file.readinto(view[done : done + CHUNK])
        if not count:
            raise TruncatedFile(f"it shrank to {done:,} bytes of data while it was read")
        done += count
