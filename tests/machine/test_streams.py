"""Streams where there are none; with a GPU, tests/gpu draws on them."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.machine.streams import Mark, finish_device, finish_queue, own_stream, read_here

CPU = torch.device("cpu")


def test_on_a_cpu_all_of_it_does_nothing():
    """Nor does it need CUDA to be there."""
    with own_stream(CPU, finish=True):
        mark = Mark.here(CPU)
    mark.set()
    mark.queue_after()
    mark.wait()
    finish_queue(CPU)
    finish_device(CPU)
    read_here(torch.zeros(1))


def test_a_failure_goes_through():
    """What failed inside is what the caller sees."""
    with pytest.raises(ValueError, match="inside"), own_stream(CPU, finish=True):
        raise ValueError("inside")
