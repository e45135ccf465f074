"""Opening files that somebody else may have put there: ordinary ones only, and without waiting.

A pipe that is called like a file blocks whoever opens it until somebody writes, a device may never end, and
a file may be larger than the memory. So nothing is opened by its name alone.
"""

from __future__ import annotations

import errno
import os
import stat
from io import FileIO
from pathlib import Path


def open_regular(path: Path, *, follow_links: bool = True) -> FileIO:
    """Open a file for reading, unbuffered; the caller closes it.

    Args:
        path: where it is.
        follow_links: whether its last part may be a link; links above it are followed.

    Raises:
        OSError: it cannot be opened, is no regular file (a pipe, a device, a folder), or may be no link.

    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    if not follow_links:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        return FileIO(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, most_bytes: int, *, follow_links: bool = True) -> bytes:
    """Return what is in a file.

    Raises:
        OSError: as `open_regular`, or it has more than `most_bytes`.

    """
    with open_regular(path, follow_links=follow_links) as file:
        pieces: list[bytes] = []
        left = most_bytes + 1
        while left and (piece := file.read(left)):
            pieces.append(piece)
            left -= len(piece)
    if not left:
        raise OSError(errno.EFBIG, f"has more than {most_bytes:,} bytes", str(path))
    return b"".join(pieces)


def check_folder(folder: Path) -> None:
    """Look through a folder whose files a library will open by their names; links are followed.

    Raises:
        OSError: something in it is neither a regular file nor a folder; names it.

    """
    for path in sorted(folder.iterdir()):
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
