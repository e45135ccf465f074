"""The bridge from the engine's threads to the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sdgrpc.domain import EncodedImage, ImageReady, Prepared, Progress
from sdgrpc.engine.stream import EventStream, Undelivered
from sdgrpc.errors import QueueFull


def progress(step: int) -> Progress:
    return Progress(step, 10, 500.0, 0.0, 0.0)


async def read(stream: EventStream) -> list:
    return [item async for item in stream]


async def test_events_come_in_order_from_another_thread():
    """What one thread puts, the coroutine reads in the same order, to the end."""
    stream = EventStream(asyncio.get_running_loop())

    def write():
        for step in range(1, 100):
            stream.put(progress(step))
        stream.end()

    thread = threading.Thread(target=write)
    thread.start()
    items = await read(stream)
    thread.join()
    assert [item.event.step for item in items] == list(range(1, 100))


async def test_only_the_latest_unread_preview_is_kept():
    """A slow reader misses previews, never events."""
    stream = EventStream(asyncio.get_running_loop())
    stream.put(progress(1), lambda: ())
    stream.put(progress(2), lambda: ())
    stream.put(progress(3))
    stream.end()
    items = await read(stream)
    assert [item.event.step for item in items] == [1, 2, 3]
    assert [item.render is not None for item in items] == [False, True, False]


async def test_an_error_comes_after_what_was_put_before_it():
    """The reader gets every event, then the error."""
    stream = EventStream(asyncio.get_running_loop())
    stream.put(Prepared())
    stream.end(ValueError("broken"))
    seen = []
    with pytest.raises(ValueError, match="broken"):
        async for item in stream:
            seen.append(item.event)  # noqa: PERF401 - a comprehension would lose what came before the error
    assert seen == [Prepared()]


async def test_the_first_end_counts_and_nothing_follows_it():
    """Events and errors after the end are ignored."""
    stream = EventStream(asyncio.get_running_loop())
    stream.end()
    stream.end(ValueError("late"))
    stream.put(Prepared())
    assert await read(stream) == []


def test_a_closed_loop_is_no_error():
    """A job may go on writing after the event loop has gone."""
    loop = asyncio.new_event_loop()
    stream = EventStream(loop)
    loop.close()
    stream.put(Prepared())
    stream.end()


async def test_pictures_are_counted_until_they_are_taken() -> None:
    """From when they are put until the reader comes for the next event."""
    undelivered = Undelivered(100)
    stream = EventStream(asyncio.get_running_loop(), undelivered)
    for size in (60, 50):
        stream.put(picture(size))
    with pytest.raises(QueueFull, match="110 bytes of finished pictures wait") as refused:
        undelivered.check()
    assert refused.value.retry_after
    reading = aiter(stream)
    await anext(reading)
    assert undelivered.held_bytes == 110
    await anext(reading)
    assert undelivered.held_bytes == 50
    undelivered.check()
    stream.end()
    assert [item async for item in reading] == []
    assert undelivered.held_bytes == 0


async def test_a_reader_that_leaves_gives_everything_back() -> None:
    """What it was given, what waited, and what still comes."""
    undelivered = Undelivered(100)
    stream = EventStream(asyncio.get_running_loop(), undelivered)
    for size in (60, 50):
        stream.put(picture(size))
    reading = aiter(stream)
    await anext(reading)
    await reading.aclose()  # type: ignore[attr-defined]
    stream.leave()
    stream.put(picture(70))
    assert undelivered.held_bytes == 0


def picture(size: int) -> ImageReady:
    return ImageReady(0, 0, EncodedImage(bytes(size), "image/png", 1, 1))
