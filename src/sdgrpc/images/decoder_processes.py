"""Files of strangers are decoded in processes of their own, which can be ended when one takes too long.

A decoder is a hundred thousand lines of C that looks at hostile bytes. One that hangs, crashes or wants all
the memory costs its own request; the next has a new process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from sdgrpc.domain import Picture
from sdgrpc.images import decoder_main, frames
from sdgrpc.images.decoding import read
from sdgrpc.images.limits import ImageError, ImageLimits
from sdgrpc.images.reading import ReadAs, Reading

ALARM_SECONDS = 5.0
"""By so much later the process ends itself, should the server not have."""


class PictureReader(Protocol):
    """What reads files."""

    def read(self, data: bytes, use: ReadAs) -> Reading:
        """Decode a file; blocks as long as that takes. Raises ImageError."""
        ...


class LocalReader:
    """Reads in this process, whatever it takes."""

    def __init__(self, bounds: ImageLimits) -> None:
        self._bounds = bounds

    def read(self, data: bytes, use: ReadAs) -> Reading:
        """See `PictureReader.read`."""
        return read(data, use, self._bounds)


class PictureReaders:
    """Up to `idle` processes wait for files; each that is busy belongs to one call of `read`. Thread safe."""

    def __init__(self, bounds: ImageLimits, *, seconds: float, idle: int = 2) -> None:
        self._bounds, self._seconds, self._most_idle = bounds, seconds, idle
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._closed = False

    @property
    def busy(self) -> int:
        """How many files are read now."""
        with self._lock:
            return len(self._busy)

    def warm_up(self) -> None:
        """Start one process, so that the first file need not wait for it."""
        self._give_back(self._take())

    def read(self, data: bytes, use: ReadAs) -> Reading:
        """Decode a file, at most `seconds` long.

        Raises:
            ImageError: as `decoding.read`, or it took too long, or its decoder crashed.
            RuntimeError: no process could be started, or the readers were closed.

        """
        process = self._take()
        alarm = threading.Timer(self._seconds, process.expire)
        alarm.daemon = True
        alarm.start()
        try:
            answer = process.ask(data, use, self._bounds)
        finally:
            alarm.cancel()
            self._give_back(process)
        if answer is None:
            raise self._failure(process)
        head, pixels = answer
        if "error" in head:
            raise ImageError(head["error"])
        width, height, channels = head["size"]
        return Reading(Picture(width, height, channels, pixels), head["warning"])

    def close(self) -> None:
        """End every process; who still waits for one gets a RuntimeError. May be called twice."""
        with self._lock:
            self._closed = True
            processes = [*self._idle, *self._busy]
            self._idle.clear()
        for process in processes:
            process.end()

    def _take(self) -> _Process:
        while True:
            with self._lock:
                if self._closed:
                    raise RuntimeError("the picture readers are closed")
                process = self._idle.pop() if self._idle else None
                if process is not None and process.is_alive:
                    self._busy.add(process)
                    return process
            if process is None:
                break
            process.end()
        process = _Process.start(self._seconds + ALARM_SECONDS)
        with self._lock:
            self._busy.add(process)
            closed = self._closed
        if closed:
            process.end()
        return process

    def _give_back(self, process: _Process) -> None:
        with self._lock:
            self._busy.discard(process)
            keep = not self._closed and process.is_sound and len(self._idle) < self._most_idle
            if keep:
                self._idle.append(process)
        if not keep:
            process.end()

    def _failure(self, process: _Process) -> Exception:
        if self._closed:
            return RuntimeError("the picture readers were closed")
        if process.expired:
            return ImageError(
                f"takes longer than {self._seconds:g} s to decode; save it again as an ordinary file"
            )
        return ImageError("cannot be read: its decoder crashed; save it again as an ordinary file")


@dataclass(eq=False)
class _Process:
    """A worker. `is_sound` until an answer did not come whole."""

    process: subprocess.Popen[bytes]
    requests: IO[bytes]
    answers: IO[bytes]
    is_sound: bool = True
    expired: bool = False
    _ended: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def start(cls, seconds: float) -> _Process:
        """Start a worker and wait until it is there; raises RuntimeError."""
        folder = str(Path(__file__).parents[2])
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(  # noqa: S603 - this interpreter, and nothing of a request
            [sys.executable, "-m", "sdgrpc.images.decoder_main", str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # signals from a terminal are the server's
        )
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        started = cls(process, process.stdin, process.stdout)
        if frames.receive(started.answers) is None:
            started.end()
            raise RuntimeError(f"a picture reader did not start: exit status {process.returncode}")
        return started

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def ask(self, data: bytes, use: ReadAs, bounds: ImageLimits) -> frames.Frame | None:
        """Return the answer; None where the process ended."""
        try:
            frames.send(self.requests, decoder_main.request(use, bounds), data)
            answer = frames.receive(self.answers)
        except (OSError, ValueError):  # ended before or while it was written to
            answer = None
        self.is_sound = answer is not None
        return answer

    def expire(self) -> None:
        """End the process: its time is over."""
        self.expired = True
        self.process.kill()

    def end(self) -> None:
        """Kill the process and let go of its pipes, once nobody uses them. May be called twice."""
        self.process.kill()
        self.process.wait()
        with self._ended:
            for pipe in (self.requests, self.answers):
                with suppress(OSError):  # of what could not be written any more
                    pipe.close()
