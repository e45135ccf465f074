"""Tensors on their way to the device: through pinned memory, on a stream of their own."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor


class Uploader:
    """Copies tensors to a device in one piece for each dtype. Thread safe: one upload at a time.

    On CUDA they go through pinned memory, which is used again, on a stream beside that of the steps. On the
    CPU nothing is copied.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._staging: dict[torch.dtype, Tensor] = {}
        cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]

    def upload(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the tensors on the device, in their shapes; valid after `wait`."""
        if self._stream is None:
            return [tensor.to(self._device) for tensor in tensors]
        made: dict[int, Tensor] = {}
        with self._lock, torch.cuda.stream(self._stream):
            for dtype in {tensor.dtype for tensor in tensors}:
                chosen = [(at, one) for at, one in enumerate(tensors) if one.dtype == dtype]
                flat = self._flat([one for _, one in chosen], dtype)
                parts = torch.split(flat, [one.numel() for _, one in chosen])
                made |= {at: part.view(one.shape) for (at, one), part in zip(chosen, parts, strict=True)}
        return [made[at] for at in range(len(tensors))]

    def wait(self) -> None:
        """Return once everything that was uploaded is there."""
        if self._stream is not None:
            self._stream.synchronize()

    def _flat(self, tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        assert self._stream is not None  # noqa: S101 - the caller asked
        self._stream.synchronize()  # what was staged before has left
        count = sum(tensor.numel() for tensor in tensors)
        staging = self._staging.get(dtype)
        if staging is None or staging.numel() < count:
            staging = self._staging[dtype] = torch.empty(count, dtype=dtype, pin_memory=True)
        at = 0
        for tensor in tensors:
            staging[at : at + tensor.numel()].copy_(tensor.reshape(-1))
            at += tensor.numel()
        return staging[:count].to(self._device, non_blocking=True)
