"""Memory of evicted sets, to be filled again."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from sdgrpc.lora.fusing.overlay import Overlay


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
                self._free[kind(tensor)].append(tensor.as_strided((tensor.numel(),), (1,)))
                self.nbytes += tensor.nbytes

    def take(self, like: Tensor) -> Tensor | None:
        """Return memory for a tensor like this one, in its layout; None if none waits or it is packed."""
        free = None if like.is_mkldnn else self._free.get(kind(like))
        if not free:
            return None
        self.nbytes -= like.nbytes
        return free.pop().as_strided(like.shape, like.stride())

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
