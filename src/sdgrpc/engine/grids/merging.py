"""The jobs of a grid's pictures, told as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field, replace

from sdgrpc.domain import Accepted, Event, Finished, ImageReady, Prepared, Preview, Progress, Task


async def merged(task: Task, streams: Sequence[AsyncGenerator[Event, None]]) -> AsyncGenerator[Event, None]:
    """Yield the events of a grid, of whose pictures each has a stream of its own; see `Engine.submit`.

    A step is done once all pictures together have done as many as that are of one. The first failure ends
    all.
    """
    events: asyncio.Queue[tuple[int, Event | BaseException | None]] = asyncio.Queue(1)

    async def read(index: int, stream: AsyncGenerator[Event, None]) -> None:
        try:
            async for event in stream:
                await events.put((index, event))
            await events.put((index, None))
        except Exception as error:
            await events.put((index, error))

    readers = [asyncio.ensure_future(read(index, stream)) for index, stream in enumerate(streams)]
    together, left = Together(task), len(streams)
    try:
        while left:
            index, event = await events.get()
            if isinstance(event, BaseException):
                raise event
            if event is None:
                left -= 1
                continue
            for told in together.take(index, event):
                yield told
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        for stream in streams:
            await stream.aclose()


@dataclass
class Together:
    """What the pictures of a grid have told so far, and how far that was passed on."""

    task: Task
    accepted: dict[int, Accepted] = field(default_factory=dict)
    prepared: dict[int, Prepared] = field(default_factory=dict)
    finished: list[Finished] = field(default_factory=list)
    steps: dict[int, Progress] = field(default_factory=dict)
    done: int = 0
    told: int = 0
    previews: dict[int, Preview] = field(default_factory=dict)
    images: list[ImageReady] = field(default_factory=list)

    def take(self, index: int, event: Event) -> Iterator[Event]:
        """Note an event of a picture, and yield what is to be told now."""
        match event:
            case Accepted():
                self.accepted[index] = event
                if len(self.accepted) == self._count:
                    position = min(one.queue_position for one in self.accepted.values())
                    yield Accepted(position, self.task, event.warnings)
            case Prepared():
                self.prepared[index] = event
                if len(self.prepared) == self._count:
                    yield self._prepared()
            case Progress():
                self._step(index, event)
            case ImageReady():
                strength = self.task.grid[index][0]
                self.images.append(replace(event, index=index, lora_strength=strength))
            case Finished():
                self.finished.append(event)
        yield from self._pending()

    def _step(self, index: int, event: Progress) -> None:
        self.done += 1
        self.steps[event.step] = event
        for preview in event.previews:
            self.previews[index] = replace(preview, image_index=index)

    @property
    def _count(self) -> int:
        return len(self.task.grid)

    def _pending(self) -> Iterator[Event]:
        """What is due once all are prepared."""
        if len(self.prepared) < self._count:
            return
        while self.told < self.done // self._count:
            self.told += 1
            one = self.steps[self.told]
            previews = tuple(self.previews[index] for index in sorted(self.previews))
            self.previews = {}
            remaining = one.elapsed_seconds / one.step * (one.step_count - one.step)
            yield replace(one, remaining_seconds=remaining, previews=previews)
        yield from self.images
        self.images = []
        if len(self.finished) == self._count:
            yield self._finished(self.finished[-1])

    def _prepared(self) -> Prepared:
        """One report of each LoRA, and of the grid's one for each strength, at its place."""
        first, reports = self.prepared[0], []
        for place, ref in enumerate(self.task.loras):
            pictures = range(self._count) if ref.strength_grid else range(1)
            reports += [self.prepared[index].loras[place] for index in pictures]
        return Prepared(
            tuple(reports),
            first.lora_set_id,
            all(one.lora_set_cached for one in self.prepared.values()),
            sum(one.fuse_seconds for one in self.prepared.values()),
        )

    def _finished(self, last: Finished) -> Finished:
        """The times are those of the picture that was the last."""
        largest = max(one.largest_batch for one in self.finished)
        return replace(last, largest_batch=largest, unet_calls=sum(one.unet_calls for one in self.finished))
