"""Rows of a UNet call shared out among the processor's cores, each of which computes its own alone.

torch splits every operation of a call over all cores and waits for the slowest, two thousand times a step;
with other threads on the machine, which decode or fuse, each wait is for them, too. Rows need not wait for
each other. Weights are read once for each core then, which costs more than it gains in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdgrpc.diffusion.compiling.calls import UNetCall, UNetInputs
from sdgrpc.machine.workers import step_workers


def share_rows(call: UNetCall) -> UNetCall:
    """Return a call that gives each core of this machine as many rows as the others, where that comes out.

    Other calls are made as they are, and so are those of a thread that has one core to itself. Each row's
    prediction differs by rounding from what it is in a call with others.
    """
    workers = step_workers()

    def shared(inputs: UNetInputs) -> Tensor:
        if workers.count == 1 or inputs.rows % workers.count or torch.get_num_threads() == 1:
            return call(inputs)
        count = inputs.rows // workers.count
        answers: dict[int, Tensor] = {}

        @torch.inference_mode()
        def work(begin: int) -> None:
            answers[begin] = call(inputs.each(lambda one: one[begin : begin + count]))

        workers.share(work, range(0, inputs.rows, count))
        return torch.cat([answers[begin] for begin in sorted(answers)])

    return shared
