"""Calls a UNet the fastest way that is ready: what is not compiled yet runs as it is, and is compiled beside.

Nobody waits for a compilation: the thread `sdgrpc-compile` does it. The first calls of a shape run eagerly,
so their predictions differ from later ones by what the dtype's rounding is; `--compile off` is for whoever
wants equal bytes.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sdgrpc.diffusion.compiling.blocks import compiled_twin, compiled_whole
from sdgrpc.diffusion.compiling.calls import Shape, UNetCall, UNetInputs, call_unet, padded_rows
from sdgrpc.diffusion.compiling.graphs import Graph
from sdgrpc.diffusion.compiling.options import CompileOptions
from sdgrpc.diffusion.compiling.rows import share_rows
from sdgrpc.machine.streams import finish_device, own_stream

logger = logging.getLogger(__name__)

Record = Callable[[UNetCall, UNetInputs, object], UNetCall]


class Evaluator:
    """Calls one UNet. One thread calls; another compiles.

    Args:
        unet: diffusers'; its weights may be switched between calls.
        options: how it is called.
        backend: of torch.compile.
        record: makes a graph of a call.
        by_core: whether what is not compiled gives each core of the CPU rows of its own.

    """

    def __init__(
        self,
        unet: nn.Module,
        options: CompileOptions,
        *,
        backend: str | Callable[..., Any] = "inductor",
        record: Record = Graph,
        by_core: bool = False,
    ) -> None:
        plain: UNetCall = partial(call_unet, unet)
        self._eager = share_rows(plain) if by_core else plain
        self._options, self._record = options, record
        self._ready: OrderedDict[Shape, UNetCall] = OrderedDict()  # the least recently used first
        self._begun: dict[Shape, Future[None]] = {}
        self._failed: set[Shape] = set()
        self._lock = threading.Lock()
        self._retired: list[UNetCall] = []
        self._pool: object = None
        self._device: torch.device = next(unet.parameters()).device
        if options.mode != "off":
            compiled = compiled_whole if options.mode == "graphs" else compiled_twin
            self._compiled: UNetCall = partial(call_unet, compiled(unet, backend))
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="sdgrpc-compile")

    def __call__(self, inputs: UNetInputs) -> Tensor:
        """Return the prediction `[rows, 4, h, w]`, valid until the next call."""
        if self._options.mode == "off":
            return self._eager(inputs)
        rows = padded_rows(inputs.rows)
        shape = Shape(rows, inputs.shape.sample, inputs.shape.tokens)
        with self._lock:
            call = self._ready.get(shape)
            if call is not None:
                self._ready.move_to_end(shape)
        if call is None:
            self.begin(inputs)
            return self._eager(inputs)
        return call(inputs.padded(rows))[: inputs.rows]

    def begin(self, inputs: UNetInputs) -> Future[None]:
        """Have the shape of a call compiled, unless that has begun; the future is done when it is ready.

        It fails for nobody: a shape that cannot be compiled is logged and called eagerly from then on.
        """
        rows = padded_rows(inputs.rows)
        shape = Shape(rows, inputs.shape.sample, inputs.shape.tokens)
        with self._lock:
            if shape in self._begun:
                return self._begun[shape]
            if self._options.mode == "off" or len(self._begun) >= self._options.max_shapes:
                done: Future[None] = Future()
                done.set_result(None)
                return done
            # The values are of no matter, but the memory of the call's own inputs is not ours to keep.
            example = inputs.padded(rows).each(torch.zeros_like)
            self._begun[shape] = future = self._thread.submit(self._compile, shape, example)
            return future

    @torch.inference_mode()
    def _compile(self, shape: Shape, example: UNetInputs) -> None:
        try:
            if self._options.mode == "graphs":
                self._make_room()
                call = self._record(self._compiled, example, self._pool)
            else:
                call = self._compiled
                with own_stream(self._device, finish=True):
                    call(example)
        except Exception as error:  # whatever it is, the eager call works
            logger.warning("%s cannot be compiled (%s: %s)", shape, type(error).__name__, str(error)[:500])
            return
        with self._lock:
            self._ready[shape] = call
        logger.info("%s are compiled", shape)

    def _make_room(self) -> None:
        """Forget the graph used longest ago, or all where they hold too much memory."""
        finish_device(self._device)
        self._retired.clear()
        with self._lock:
            while len(self._ready) >= self._options.max_graphs:
                self._forget(next(iter(self._ready)))
            if self._device.type != "cuda":
                return
            if self._pool is None or self._pool_bytes() > self._options.graph_bytes:
                for shape in list(self._ready):
                    self._forget(shape)
                self._pool = torch.cuda.graph_pool_handle()

    def _forget(self, shape: Shape) -> None:
        """Drop what is ready; asked for again it is recorded again. Needs the lock."""
        self._retired.append(self._ready.pop(shape))  # it may be running; nobody waits for it here
        del self._begun[shape]

    def _pool_bytes(self) -> int:
        """Memory that the graphs' pool holds."""
        segments = torch.cuda.memory_snapshot(self._pool)  # type: ignore[no-untyped-call]
        return sum(int(segment["total_size"]) for segment in segments)

    @property
    def ready(self) -> tuple[Shape, ...]:
        """The shapes that are compiled."""
        with self._lock:
            return tuple(self._ready)

    def wait(self) -> None:
        """Return once everything that has begun is done."""
        for future in list(self._begun.values()):
            future.result()

    def close(self) -> None:
        """Stop compiling, and drop what was."""
        if self._options.mode == "off":
            return
        self._thread.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            self._ready.clear()
            self._retired.clear()
            self._pool = None
