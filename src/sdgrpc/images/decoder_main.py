"""A process that decodes one file after the other: `python -m sdgrpc.images.decoder_main SECONDS`.

It ends with its pipe, so that none outlives the server, and by an alarm where a file takes longer than
SECONDS.
"""

from __future__ import annotations

import signal
import sys
import warnings
from contextlib import suppress
from dataclasses import astuple
from typing import IO, Any

from sdgrpc.images import frames
from sdgrpc.images.decoding import read
from sdgrpc.images.limits import ImageError, ImageLimits
from sdgrpc.images.reading import ReadAs

BASE_BYTES = 1 << 30
BYTES_PER_PIXEL = 64
"""Of address space, for a few copies of the largest picture with four channels of 16 bits."""


def request(use: ReadAs, bounds: ImageLimits) -> dict[str, Any]:
    """What the server says of a file that it sends."""
    return {"use": use.value, "bounds": astuple(bounds)}


def main() -> None:
    """Answer until the pipe ends."""
    seconds = float(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's, which closes the pipe
    warnings.simplefilter("ignore")
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    with suppress(BrokenPipeError):
        frames.send(sink, {"ready": True})
        while (frame := frames.receive(source)) is not None:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            _answer(sink, *frame)
            signal.setitimer(signal.ITIMER_REAL, 0)
    sys.stdout = sys.stderr  # whose pipe is whole, unlike the other's, which would be flushed at the end


def _answer(sink: IO[bytes], head: dict[str, Any], data: bytes) -> None:
    bounds = ImageLimits(*head["bounds"])
    _limit_memory(bounds)
    try:
        reading = read(data, ReadAs(head["use"]), bounds)
    except ImageError as error:
        frames.send(sink, {"error": str(error)})
        return
    picture = reading.picture
    size = (picture.width, picture.height, picture.channels)
    frames.send(sink, {"size": size, "warning": reading.warning}, picture.data)


def _limit_memory(bounds: ImageLimits) -> None:
    """Let a decoder fail that wants more than any picture within the bounds takes."""
    try:
        import resource
    except ImportError:  # not a Unix
        return
    most = BASE_BYTES + BYTES_PER_PIXEL * bounds.max_pixels + 2 * bounds.max_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or most <= hard:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


if __name__ == "__main__":
    main()
