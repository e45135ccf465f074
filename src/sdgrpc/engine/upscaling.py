"""Pictures through upscalers, one by one on the thread `sdgrpc-upscale`, beside the steps of jobs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from PIL import Image

from sdgrpc import images
from sdgrpc.diffusion.pictures.resizing import resized
from sdgrpc.diffusion.upscaling.network import Upscaler
from sdgrpc.diffusion.upscaling.tiles import tiles_of
from sdgrpc.domain import (
    EncodedImage,
    UpscaleAccepted,
    UpscaleEvent,
    UpscaleProgress,
    UpscalerInfo,
    UpscaleTask,
)
from sdgrpc.engine.job import Unwanted
from sdgrpc.engine.supervision.call_times import CallShape
from sdgrpc.engine.supervision.supervisor import Supervisor
from sdgrpc.errors import Draining, QueueFull

PATIENCE = 10.0
Tell = Callable[[UpscaleProgress | EncodedImage | BaseException], None]


class Upscaling:
    """Runs tasks in their order; at most `queue_size` wait. Implements `engine.base.Upscales`."""

    def __init__(self, upscalers: Mapping[str, Upscaler], queue_size: int, supervisor: Supervisor) -> None:
        self.upscalers, self._supervisor, self._queue_size = upscalers, supervisor, queue_size
        self._waiting = 0  # the event loop's alone
        self._closing = threading.Event()
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sdgrpc-upscale")

    @property
    def infos(self) -> Sequence[UpscalerInfo]:
        """The upscalers that tasks can name; the first is the default."""
        return [one.info for one in self.upscalers.values()]

    def covering(
        self, name: str, image: Image.Image, width: int, height: int, check: Callable[[], None]
    ) -> Image.Image:
        """Return the image upscaled until it covers that size; `check` is called between tiles."""
        return self.upscalers[name].covering(image, width, height, lambda _tile, _count: check())

    async def upscale(self, task: UpscaleTask) -> AsyncGenerator[UpscaleEvent, None]:
        """See `Upscales.upscale`."""
        self._supervisor.check()
        if self._waiting > self._queue_size:
            busy = f"{self._waiting} pictures wait to be upscaled already (queue_size); try again later"
            raise QueueFull(busy, retry_after=2.0)
        loop, gone = asyncio.get_running_loop(), threading.Event()
        events: asyncio.Queue[UpscaleProgress | EncodedImage | BaseException] = asyncio.Queue()

        def tell(event: UpscaleProgress | EncodedImage | BaseException) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(events.put_nowait, event)

        position, self._waiting = self._waiting, self._waiting + 1
        try:
            count = len(tiles_of(task.image.width, task.image.height))
            yield UpscaleAccepted(position, task, count)
            work = self._threads.submit(self._run, task, tell, gone)
            work.add_done_callback(lambda done: _tell_end(done, tell))
            while True:
                event = await events.get()
                if isinstance(event, BaseException):
                    raise event
                yield event
                if isinstance(event, EncodedImage):
                    return
        finally:
            gone.set()
            self._waiting -= 1

    def _run(self, task: UpscaleTask, tell: Tell, gone: threading.Event) -> None:
        began = time.monotonic()
        # A sign of life comes with each tile, which takes a large network minutes on a CPU.
        shape = CallShape("upscale", task.upscaler, (task.image.width, task.image.height), PATIENCE)
        with self._supervisor.call(shape) as beat:

            def on_tile(tile: int, count: int) -> None:
                beat()
                if gone.is_set() or self._closing.is_set():
                    raise Unwanted
                elapsed = time.monotonic() - began
                tell(UpscaleProgress(tile, count, elapsed, elapsed / tile * (count - tile)))

            if not gone.is_set():
                large = self.upscalers[task.upscaler].upscale(task.image, on_tile)
                sized = resized(images.to_image(large), task.width, task.height)
                tell(images.encode(images.to_picture(sized), task.media_type, quality=task.quality))

    def close(self) -> None:
        """End after the tile that runs; calls that wait get Draining. May be called twice."""
        self._closing.set()
        self._threads.shutdown(wait=not self._supervisor.failed, cancel_futures=True)


def _tell_end(done: Future[None], tell: Tell) -> None:
    """Tell how a task ended, unless by its picture."""
    stopped = Draining("the server stopped before this call's turn; send it to another")
    if done.cancelled():
        tell(stopped)
    elif error := done.exception():
        tell(stopped if isinstance(error, Unwanted) else error)
