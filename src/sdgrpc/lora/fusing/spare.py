"""Memory of evicted sets, to be filled again, and memory made ready for sets to come."""

from __future__ import annotations

import ctypes
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sdgrpc.lora.fusing.overlay import Overlay
from sdgrpc.machine.standing_back import stand_back

LEAST = 16 << 20
"""Bytes of a set from which on a thread for its memory is worth while."""
NICE = 10
"""The thread's priority: it takes what the steps leave."""


class Buffers:
    """Memory of evicted sets, to be filled again: fresh memory costs more than the arithmetic.

    A buffer serves any tensor of its bytes and dtype; `nbytes` is what waits here. Not thread safe.
    """

    def __init__(self) -> None:
        self._free: dict[Kind, list[Tensor]] = defaultdict(list)
        self.nbytes = 0

    def give(self, overlay: Overlay) -> None:
        """Take over the memory of an overlay that nobody uses any more."""
        for tensors in overlay.tensors.values():
            for tensor in tensors.values():
                if tensor.is_mkldnn:  # its order is oneDNN's: nothing else could be written into it
                    continue
                self.add(tensor.as_strided((tensor.numel(),), (1,)))

    def add(self, memory: Tensor) -> None:
        """Take memory `(numbers,)` that nobody uses."""
        self._free[kind(memory)].append(memory)
        self.nbytes += memory.nbytes

    def take(self, like: Tensor) -> Tensor | None:
        """Return memory for a tensor like this one, in its layout; None if none waits or it is packed."""
        free = None if like.is_mkldnn else self._free.get(kind(like))
        if not free:
            return None
        self.nbytes -= like.nbytes
        return free.pop().as_strided(like.shape, like.stride())

    def missing(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """Return those of a set's weights that no memory waits for."""
        waiting = Counter({key: len(free) for key, free in self._free.items()})
        missing = []
        for weight in weights:
            if waiting[kind(weight)]:
                waiting[kind(weight)] -= 1
            else:
                missing.append(weight)
        return missing

    def trim(self, nbytes: int) -> None:
        """Give memory back to the system, the largest buffers first, until at most `nbytes` wait."""
        for key in sorted(self._free, key=lambda key: key[0], reverse=True):
            free = self._free[key]
            while free and self.nbytes > nbytes:
                self.nbytes -= free.pop().nbytes


Kind = tuple[int, torch.dtype, torch.device]


def kind(tensor: Tensor) -> Kind:
    """Return what two tensors have in common if one can have the other's memory."""
    return tensor.nbytes, tensor.dtype, tensor.device


def touched(like: Tensor) -> Tensor:
    """Return memory for a tensor on the CPU, `(numbers,)`, with its page faults behind it."""
    with torch.inference_mode(False):  # what is made in that mode could not be written outside of it
        memory = torch.empty(like.numel(), dtype=like.dtype)
    ctypes.memset(memory.data_ptr(), 0, memory.nbytes)  # leaves Python's lock and other cores to others
    return memory


def in_background(make_ready: Callable[[Tensor], bool], weights: Sequence[Tensor]) -> threading.Thread | None:
    """Call `make_ready` with each weight on a thread that stands back, until it says False.

    Nothing is begun, and None returned, where the weights are few bytes, or packed or not on the CPU: none of
    those can be filled again, or has page faults. A process that ends waits for one weight at most: a daemon
    that ends amid torch's operations would abort it.
    """
    of_use = [weight for weight in weights if weight.device.type == "cpu" and not weight.is_mkldnn]
    if sum(weight.nbytes for weight in of_use) < LEAST:
        return None

    def work() -> None:
        stand_back(NICE)
        main = threading.main_thread()
        for weight in of_use:
            if not main.is_alive() or not make_ready(weight):
                return

    thread = threading.Thread(target=work, name="sdgrpc-spare")
    thread.start()
    return thread
