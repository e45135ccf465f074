"""Where pictures go: file names from a pattern."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
FIELDS = ("{seed}", "{index}")


@dataclass(frozen=True, slots=True)
class OutputPattern:
    """A file name in which `{seed}` and `{index}` (from 0) stand for an image's.

    Raises:
        ValueError: the suffix is not one of a format that the server writes.

    """

    text: str

    def __post_init__(self) -> None:
        if Path(self.text).suffix.lower() not in MEDIA_TYPES:
            raise ValueError(f"--output {self.text}: the name must end in {', '.join(MEDIA_TYPES)}")

    @property
    def media_type(self) -> str:
        """The format that the suffix asks for."""
        return MEDIA_TYPES[Path(self.text).suffix.lower()]

    def path(self, *, index: int, seed: int, count: int) -> Path:
        """Return image `index`'s file; of several in a pattern that tells none apart, `-index` is added."""
        path = Path(self.text.replace("{seed}", str(seed)).replace("{index}", str(index)))
        if count > 1 and not any(field in self.text for field in FIELDS):
            return path.with_stem(f"{path.stem}-{index}")
        return path
