"""Tensors as they lie in a safetensors file, read once, straight into the memory where they will be used.

A file that is mapped instead would count twice when its dtype is converted, and could be changed or cut
while it is served, which kills the process (SIGBUS). The format is `tensor_files.header`'s.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from io import FileIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from sdgrpc.errors import ModelError
from sdgrpc.machine.onednn.packing import packed_when_read
from sdgrpc.machine.workers import Workers
from sdgrpc.regular_files import open_regular
from sdgrpc.tensor_files.faults import FileFault
from sdgrpc.tensor_files.header import ALL_DTYPES, ReadLimits, read_header

LIMITS = ReadLimits(
    max_file_bytes=1 << 40, max_header_bytes=100_000_000, max_tensors=1_000_000, dtypes=ALL_DTYPES
)
"""What a model's file may claim: the format's own bound of the header, and more than any model has."""

PIECE = 131_072
"""Numbers read and converted at a time: they stay in the processor's cache."""
NOWHERE: Mapping[int, Callable[[torch.Tensor], torch.Tensor]] = MappingProxyType({})
READERS = 4
"""Reading is copying out of the system's cache and converting; more threads would only wait for memory."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file, or a view of it, that was not read yet. `begin` is its first byte in the file.

    It stands in for a tensor where checkpoints are converted to other names: rows can be taken, dimensions of
    one dropped, and matrices transposed. `dtype` is None for what no network holds, such as whole numbers.
    """

    path: Path
    key: str
    dtype: torch.dtype | None
    shape: tuple[int, ...]
    begin: int
    transposed: bool = False

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def T(self) -> Stored:  # noqa: N802 - as torch calls it
        """The matrix with rows and columns exchanged."""
        return replace(self, shape=self.shape[::-1], transposed=not self.transposed)

    def __getitem__(self, index: slice | tuple[Any, ...]) -> Stored:
        """A range of rows; an index 0 drops a dimension of one.

        Raises:
            IndexError: the index would leave a gap in the bytes.

        """
        rows, *others = index if isinstance(index, tuple) else (index,)
        start, stop, step = rows.indices(self.shape[0])
        dropped = [at for at, other in enumerate(others, start=1) if other == 0]
        if step != 1 or self.transposed or any(self.shape[at] != 1 for at in dropped):
            raise IndexError(f"{self.key} of shape {list(self.shape)} has no part {index}")
        kept = [size for at, size in enumerate(self.shape[1:], start=1) if at not in dropped]
        row_bytes = math.prod(self.shape[1:]) * (self.dtype.itemsize if self.dtype else 0)
        return replace(self, shape=(stop - start, *kept), begin=self.begin + start * row_bytes)

    def contiguous(self) -> Stored:
        """Itself: it is read into memory of its own anyhow."""
        return self

    clone = detach = contiguous

    def read(
        self, dtype: torch.dtype, device: torch.device, memory: torch.Tensor | None = None
    ) -> torch.Tensor:
        """A tensor with the file's values in `dtype`, in the flat `memory` or its own; no copy is made."""
        stored = self.shape[::-1] if self.transposed else self.shape
        if memory is None:
            memory = torch.empty(math.prod(stored), dtype=dtype, device=device)
        values = memory[: math.prod(stored)].view(stored)
        with open_regular(self.path) as file:
            file.seek(self.begin)
            if dtype == self.dtype and device.type == "cpu":
                self._fill(file, values)
            else:
                self._convert(file, values.view(-1))
        return values.T.contiguous() if self.transposed else values

    def _convert(self, file: FileIO, flat: torch.Tensor) -> None:
        on_cpu = flat.device.type == "cpu"
        piece = PIECE if on_cpu else 16 * PIECE
        read = torch.empty(min(piece, max(1, flat.numel())), dtype=self.dtype)
        # torch's kernel from float16 to bfloat16 is four times slower than the two by way of float32.
        by_float32 = on_cpu and (self.dtype, flat.dtype) == (torch.float16, torch.bfloat16)
        between = torch.empty(read.numel() if by_float32 else 0)
        for begin in range(0, flat.numel(), read.numel()):
            target = flat[begin : begin + read.numel()]
            values = read[: target.numel()]
            self._fill(file, values)
            target.copy_(between[: values.numel()].copy_(values) if by_float32 else values)

    def _fill(self, file: FileIO, values: torch.Tensor) -> None:
        left = values.view(-1).view(torch.uint8).numpy().data
        while left:
            count = file.readinto(left)
            if not count:
                raise ModelError(f"{self.path} was cut while it was read: {self.key} ends early")
            left = left[count:]


def stored_tensors(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """The tensors and the metadata of a file, from its header.

    Raises:
        ModelError: the file is missing, cut or no safetensors file.

    """
    try:
        with open_regular(path) as file:
            header = read_header(file, LIMITS)
    except (FileFault, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{path} is no whole .safetensors file: {reason}; download it again") from error
    tensors = {
        claim.key: Stored(
            path,
            claim.key,
            claim.dtype if claim.dtype.is_floating_point else None,
            claim.shape,
            header.start + claim.begin,
        )
        for claim in header.claims
    }
    return tensors, dict(header.metadata)


@dataclass(frozen=True, eq=False)
class Unfilled:
    """A network whose parameters are on torch's `meta` device, and where each lies in a file.

    `what` names it in messages. `checked` comes before `fill`, so that a network with a hole is never made.
    """

    what: str
    module: nn.Module
    tensors: Mapping[str, Stored]

    def checked(self) -> Unfilled:
        """Itself, if each parameter of the network is there in its shape.

        Raises:
            ModelError: names the first that is not.

        """
        known = self.module.state_dict()
        if missing := sorted(known.keys() - self.tensors.keys()):
            raise ModelError(
                f"{self.what} lacks {len(missing)} tensors, {missing[0]} among them; download it again"
            )
        for name, expected in known.items():
            stored = self.tensors[name]
            if stored.shape != tuple(expected.shape):
                found = f"{list(stored.shape)}, not {list(expected.shape)}"
                raise ModelError(f"{self.what} is of another architecture: {name} is {found}")
            if stored.dtype is None:
                raise ModelError(f"{self.what} has whole numbers or an unknown dtype in {name}")
        return self

    def size(self, dtype: torch.dtype) -> int:
        """The bytes that its parameters take in `dtype`."""
        count: int = sum(one.numel() for one in self.module.state_dict().values())
        return count * dtype.itemsize

    def fill(
        self,
        device: torch.device,
        dtype: torch.dtype,
        memory_format: torch.memory_format = torch.contiguous_format,
        *,
        packed: bool = False,
    ) -> nn.Module:
        """Read every parameter and return the network, frozen and in evaluation mode.

        Weights of convolutions come to lie in `memory_format`, `packed` ones as oneDNN wants them.
        """
        known = self.module.state_dict()
        names = sorted(known, key=lambda name: (str(self.tensors[name].path), self.tensors[name].begin))
        takers = packed_when_read(self.module, dtype) if packed else {}
        lay = {at: takers[name].packed for at, name in enumerate(names) if name in takers}
        read = read_all([self.tensors[name] for name in names], device, dtype, memory_format, lay)
        self.module.load_state_dict(dict(zip(names, read, strict=True)), assign=True)
        return self.module.to(device).requires_grad_(False).eval()


def read_all(
    stored: Sequence[Stored],
    device: torch.device,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    lay: Mapping[int, Callable[[torch.Tensor], torch.Tensor]] = NOWHERE,
) -> list[torch.Tensor]:
    """Read tensors side by side, in their order; those of four dimensions in a memory format.

    `lay` has by their places those that are brought into another order yet, in memory of its own. All these
    pass through memory that each reader uses again and again: pieces of many sizes that come and go
    between those that stay would leave holes of a third of the model's size.
    """
    last = memory_format == torch.channels_last
    laid = [one for at, one in enumerate(stored) if at in lay or (one.ndim == 4 and last)]
    largest = max((math.prod(one.shape) for one in laid), default=0)
    passing = threading.local()
    read: dict[int, torch.Tensor] = {}

    def work(at: int) -> None:
        one = stored[at]
        if at not in lay and (one.ndim != 4 or not last):
            read[at] = one.read(dtype, device)
            return
        if not hasattr(passing, "memory"):
            passing.memory = torch.empty(largest, dtype=dtype, device=device)
        values = one.read(dtype, device, passing.memory)
        if at in lay:
            read[at] = lay[at](values)
            return
        target = torch.empty(one.shape, dtype=dtype, device=device, memory_format=memory_format)
        read[at] = target.copy_(values)

    readers().share(work, range(len(stored)))
    return [read[at] for at in range(len(stored))]


@lru_cache(maxsize=1)
def readers() -> Workers:
    """Return the process's readers, no more than torch would use cores."""
    return Workers(min(READERS, torch.get_num_threads()), "sdgrpc-load")
