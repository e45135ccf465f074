"""What may be decoded, and how a file is refused by its structure, before a pixel of it is."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PARTS = 1000
"""Chunks of a PNG or WebP file, segments of a JPEG file: a real one has a few dozen, and each costs time."""
MAX_PROFILE_BYTES = 4 << 20
"""The largest colour profile that is used: those of printers have some 2 MiB."""
DAMAGED = "is truncated or damaged"
ANIMATION = "is an animation; send one picture"


class ImageError(ValueError):
    """An image file that cannot be used; the message is a predicate: `is truncated or damaged`."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What may be decoded: bytes of the file, pixels in all, pixels per side (at least, at most)."""

    max_bytes: int = 32 << 20
    max_pixels: int = 32 << 20
    min_side: int = 8
    max_side: int = 16384

    def check_size(self, width: int, height: int) -> None:
        """Refuse by the header alone; raises ImageError."""
        shape = f"is {width}x{height} pixels"
        if max(width, height) > self.max_side:
            raise ImageError(f"{shape}; no side may have more than {self.max_side}")
        if width * height > self.max_pixels:
            raise ImageError(f"{shape}, {width * height} in all; the most is {self.max_pixels}")
        if min(width, height) < self.min_side:
            raise ImageError(f"{shape}; each side needs at least {self.min_side}")


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that was looked through.

    `body` is the same file without what is not needed for its pixels: texts, thumbnails, tags, chunks that
    nobody knows. `profile` is its ICC profile and `exif` its EXIF block, empty where there is none.
    """

    body: bytes
    profile: bytes = b""
    exif: bytes = b""


DEFAULT_LIMITS = ImageLimits()


def too_many(count: int, what: str) -> ImageError:
    """The error for a file of more parts than are read."""
    return ImageError(f"has more than {count} {what}; save it again as an ordinary file")
