"""Queues of work on a CUDA device, one for each thread, so that none waits for what another queued.

Elsewhere there are none, and all of this does nothing. What one thread's stream makes and another's reads is
handed over with a `Mark`. A tensor's memory belongs to the stream that made it, which may use it again as
soon as the tensor is gone: whoever reads it on another stream keeps it until that has happened.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class _Streams(threading.local):
    """A thread's stream on each device."""

    def __init__(self) -> None:
        self.by_device: dict[torch.device, torch.cuda.Stream] = {}


_streams = _Streams()


@contextmanager
def own_stream(device: torch.device, *, finish: bool = False) -> Iterator[None]:
    """Queue on this thread's own stream; with `finish` all of it is done at the end."""
    if device.type != "cuda":
        yield
        return
    stream = _streams.by_device.get(device)
    if stream is None:
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        _streams.by_device[device] = stream
    with torch.cuda.stream(stream):
        try:
            yield
        finally:
            if finish:
                stream.synchronize()


class Mark:
    """A place in a stream's queue that others wait for."""

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    @classmethod
    def here(cls, device: torch.device) -> Mark:
        """Mark what is queued on the current stream up to now."""
        mark = cls(device)
        mark.set()
        return mark

    def set(self) -> None:
        """Move the mark to the current end of the current stream's queue."""
        if self._event is not None:
            self._event.record()

    def queue_after(self) -> None:
        """Let the current stream's further work begin after the mark; the thread does not wait."""
        if self._event is not None:
            self._event.wait()

    def wait(self) -> None:
        """Return once the device has come past the mark."""
        if self._event is not None:
            self._event.synchronize()


def finish_queue(device: torch.device) -> None:
    """Return once everything that is queued on the current stream is done."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def finish_device(device: torch.device) -> None:
    """Return once everything is done that any thread has queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def read_here(tensor: Tensor) -> None:
    """Keep a tensor's memory, once it is gone, from others until what is queued here by then is done."""
    if tensor.device.type == "cuda":
        tensor.record_stream(torch.cuda.current_stream(tensor.device))
