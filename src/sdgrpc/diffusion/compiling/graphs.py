"""Calls recorded as CUDA graphs: the device's work of a call, started at once.

A graph reads its inputs and the weights at the addresses that it was recorded with, so the network computes
with `lora.resident`'s live weights. All graphs share their memory for activations, since one runs at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdgrpc.diffusion.compiling.calls import UNetCall, UNetInputs

WARM_UP = 2
"""Calls before the one that is recorded: compilation, and memory that libraries take at their first call."""


class Graph:
    """One call, recorded. Made on any thread; called by one at a time, in a stream's order."""

    def __init__(self, call: UNetCall, inputs: UNetInputs, pool: Any) -> None:  # noqa: ANN401 - torch hides the type
        stream = torch.cuda.Stream(inputs.sample.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(inputs.sample.device))
        with torch.cuda.stream(stream):
            self._inputs = inputs.each(lambda one: one.clone(memory_format=torch.preserve_format))
            for _ in range(WARM_UP):
                call(self._inputs)
            stream.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            # Other threads go on allocating and copying meanwhile, which concerns this thread alone.
            with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                self._output = call(self._inputs)
            stream.synchronize()

    def __call__(self, inputs: UNetInputs) -> Tensor:
        """Return the prediction; it is valid until the next graph of the pool runs."""
        torch._foreach_copy_(self._inputs.tensors, inputs.tensors)
        self._graph.replay()
        return self._output
