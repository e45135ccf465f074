"""Thumbnails of the pictures that lie beside LoRA files, which nobody vouches for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from sdgrpc.domain import EncodedImage
from sdgrpc.images.decoder_processes import PictureReader, PictureReaders
from sdgrpc.images.limits import ImageError, ImageLimits
from sdgrpc.images.reading import ReadAs
from sdgrpc.images.thumbnail import thumbnail

LIMITS = ImageLimits()
SECONDS = 10.0
KEPT = 512
"""Thumbnails of some 10 KiB each."""


class Thumbnails:
    """Makes thumbnails, in a process of its own that starts with the first, and keeps them. Thread safe."""

    def __init__(self, reader: PictureReader | None = None) -> None:
        self._processes = PictureReaders(LIMITS, seconds=SECONDS, idle=1) if reader is None else None
        self._reader: PictureReader = reader or self._processes  # type: ignore[assignment]
        self._known: OrderedDict[tuple[Path, int, int], EncodedImage | str] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, path: Path, read: Callable[[int], bytes]) -> EncodedImage | str:
        """Return the thumbnail of a picture's file, or why there is none: a predicate.

        `read` returns its content up to a number of bytes, and raises OSError.
        """
        try:
            stat = path.stat()
            key = (path, stat.st_size, stat.st_mtime_ns)
            with self._lock:
                if key in self._known:
                    self._known.move_to_end(key)
                    return self._known[key]
            picture = self._reader.read(read(LIMITS.max_bytes), ReadAs.IMAGE).picture
            made: EncodedImage | str = thumbnail(picture)
        except ImageError as error:
            made = str(error)
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        except RuntimeError as error:  # no process could be started, or the server ends
            return f"cannot be read ({error})"
        with self._lock:
            self._known[key] = made
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return made

    def close(self) -> None:
        """End the process. May be called twice."""
        if self._processes is not None:
            self._processes.close()
