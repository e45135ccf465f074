"""How often files are opened, and how much of them is read."""

from __future__ import annotations

import json
import os
from collections import Counter
from io import FileIO
from pathlib import Path
from typing import Any


class BytesRead:
    """Counts, by path, what is read of files that LoRAs are read from. A fixture of tests/conftest.py."""

    def __init__(self) -> None:
        self._openings: Counter[Path] = Counter()
        self._bytes: Counter[Path] = Counter()

    def counted(self, file: FileIO, path: Path) -> FileIO:
        """Return the same file, counting from now on."""
        counter, self._openings[path] = self._bytes, self._openings[path] + 1

        class Counted(FileIO):
            def read(self, size: int | None = -1) -> bytes:
                content = super().read(size)
                counter[path] += len(content or b"")
                return content or b""

            def readinto(self, buffer: Any) -> int:
                count = super().readinto(buffer)
                counter[path] += count or 0
                return count or 0

        with file:
            return Counted(os.dup(file.fileno()), "rb")

    def of(self, path: Path) -> int:
        """Return how many bytes of a file were read."""
        return self._bytes[path]

    def openings(self, path: Path) -> int:
        """Return how often a file was opened."""
        return self._openings[path]

    def names(self) -> list[str]:
        """Return the names of the files that were opened, each once."""
        return sorted(path.name for path in self._openings)

    def clear(self) -> None:
        """Begin again."""
        self._openings.clear()
        self._bytes.clear()


def sparse_checkpoint(path: Path, size: int = 4 << 30) -> Path:
    """Write a full checkpoint's header and nothing behind it: the file says `size` and takes no room."""
    width = (size - 4096) // 4 // 2
    claims = {
        "__metadata__": {"format": "pt"},
        "first_stage_model.a": {"dtype": "F32", "shape": [width], "data_offsets": [0, 4 * width]},
        "model.diffusion_model.b": {"dtype": "F32", "shape": [width], "data_offsets": [4 * width, 8 * width]},
    }
    header = json.dumps(claims).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 8 * width)
    return path
