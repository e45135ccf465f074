"""The switch that writes a set's weights where a network computes with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from sdgrpc.lora.fusing.overlay import Overlay
from sdgrpc.lora.resident.stacks import LiveWeights


class LiveSwitch:
    """Writes sets into a network's live weights. Pristine weights are copied, never written.

    One thread uses one switch; on CUDA everything is queued on that thread's stream.
    """

    def __init__(self, live: LiveWeights, component: str) -> None:
        self._live, self._component = live, component
        self._active = BASE
        self._touched: set[str] = set()

    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def use(self, overlay: Overlay) -> None:
        """Make the network compute with this set, and with its pristine weights where that changes nothing.

        No work if this very set is active already, or none is and it changes nothing here.
        """
        if overlay is self._active:
            return
        live = self._live
        whole, products = overlay.tensors.get(self._component, {}), overlay.products.get(self._component, ())
        inside = {live.stacks[one.stack].names[slot] for one in products for slot in one.slots}
        touched = inside | whole.keys()
        stale = self._touched - touched
        self._touched |= touched  # should something fail on the way, the next use restores all of it
        self._active = BASE
        copies = {name: live.pristine[name] for name in stale} | dict(whole)
        for names in _alike(live, copies):
            torch._foreach_copy_([live.live[name] for name in names], [copies[name] for name in names])
        for product in products:
            stack = live.stacks[product.stack]
            for rows, slots in runs(product.slots):
                torch.baddbmm(
                    stack.pristine[slots], product.up[rows], product.down[rows], out=stack.live[slots]
                )
        self._active, self._touched = overlay, touched


BASE = Overlay({})


def _alike(live: LiveWeights, copies: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """Group what is copied by dtype and order in memory, which copies of many tensors at once want alike."""
    kinds: dict[object, list[str]] = defaultdict(list)
    for name in copies:
        kinds[live.live[name].dtype, live.live[name].is_contiguous()].append(name)
    yield from kinds.values()


def runs(slots: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Cut ascending numbers into runs without gaps: (their places in the sequence, the numbers)."""
    start = 0
    for at in range(1, len(slots) + 1):
        if at == len(slots) or slots[at] != slots[at - 1] + 1:
            yield slice(start, at), slice(slots[start], slots[at - 1] + 1)
            start = at
