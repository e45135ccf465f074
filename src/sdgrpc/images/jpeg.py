"""A JPEG file by its markers (ITU-T T.81, annex B), before anything of it is decoded.

Each scan of a progressive file is a pass over all pixels, however few bytes it has: 4,000 in 350 KiB
take minutes (known as LJT-01-003). Programs write about ten.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sdgrpc.images.limits import (
    DAMAGED,
    MAX_PARTS,
    MAX_PROFILE_BYTES,
    ImageError,
    ImageFile,
    ImageLimits,
    too_many,
)

SIGNATURE = b"\xff\xd8\xff"
MAX_SCANS = 100
MAX_JUNK = 1 << 16
"""Bytes between segments that belong to none; decoders pass over a few."""

SOI, EOI, SOS, APP0, APP1, APP2, APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD})  # Huffman, arithmetic, quantization, lines, restarts
ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
EXIF, ICC = b"Exif\0\0", b"ICC_PROFILE\0"

NEXT_MARKER = re.compile(rb"\xff(?=[\x01-\xcf\xd8-\xfe])")
"""The end of a scan: 255 within its data is followed by 0, a restart marker, or another 255."""


@dataclass
class _Found:
    """What the segments so far said. `kept` are those that are needed for pixels."""

    kept: list[bytes] = field(default_factory=lambda: [b"\xff\xd8"])
    apps: set[int] = field(default_factory=set)
    exif: bytes = b""
    profile: dict[int, bytes] = field(default_factory=dict)
    profile_parts: int = 0
    size: tuple[int, int] | None = None


def examine(data: bytes, limits: ImageLimits) -> ImageFile:
    """Look through a JPEG file up to the end of its first picture; raises ImageError."""
    found, at, first_scan = _Found(), 2, 0
    junk = segments = scans = 0
    while True:
        begin, marker = _marker(data, at)
        junk += begin - at
        segments += 1
        if segments > MAX_PARTS:
            raise too_many(MAX_PARTS, "segments")
        if junk > MAX_JUNK or marker == SOI:
            raise ImageError(DAMAGED)
        code_end = begin + 2
        if marker == EOI:
            return _file(found, data[first_scan:code_end] if first_scan else b"")
        if marker in ALONE:
            at = code_end
            continue
        at = code_end + int.from_bytes(data[code_end : code_end + 2])
        if not code_end + 2 <= at <= len(data):
            raise ImageError(DAMAGED)
        if marker == SOS:
            scans += 1
            first_scan = first_scan or begin
            if scans > MAX_SCANS:
                raise too_many(MAX_SCANS, "scans")
            at = _scan_end(data, at)
        elif not first_scan or marker in FRAMES:
            _note(found, marker, data[begin:at], limits)


def _marker(data: bytes, at: int) -> tuple[int, int]:
    """Where the next marker begins (its last 255), and which it is."""
    found = NEXT_MARKER.search(data, at, min(len(data), at + MAX_JUNK + 2)) or _restart(data, at)
    if found is None:
        raise ImageError(DAMAGED)
    return found.start(), data[found.start() + 1]


def _restart(data: bytes, at: int) -> re.Match[bytes] | None:
    return re.compile(rb"\xff(?=[\xd0-\xd7])").search(data, at, min(len(data), at + MAX_JUNK + 2))


def _scan_end(data: bytes, at: int) -> int:
    """Where the marker after a scan's data begins."""
    found = NEXT_MARKER.search(data, at)
    if found is None:
        raise ImageError(DAMAGED)
    return found.start()


def _note(found: _Found, marker: int, segment: bytes, limits: ImageLimits) -> None:
    """Take from a segment before the first scan, or from a second frame, what is needed."""
    content = segment[4:]
    if marker in FRAMES:
        if found.size is not None or len(content) < 6:
            raise ImageError(DAMAGED)
        found.size = int.from_bytes(content[3:5]), int.from_bytes(content[1:3])
        limits.check_size(*found.size)
        found.kept.append(segment)
    elif marker in TABLES:
        found.kept.append(segment)
    elif marker in (APP0, APP14) and marker not in found.apps:  # how the colours are stored
        found.apps.add(marker)
        found.kept.append(segment)
    elif marker == APP1 and content.startswith(EXIF) and not found.exif:
        found.exif = content[len(EXIF) :]
    elif marker == APP2 and content.startswith(ICC) and len(content) > len(ICC) + 2:
        number, found.profile_parts = content[len(ICC)], content[len(ICC) + 1]
        found.profile.setdefault(number, content[len(ICC) + 2 :])


def _file(found: _Found, scans: bytes) -> ImageFile:
    if found.size is None or not scans:
        raise ImageError(DAMAGED)
    whole = sorted(found.profile) == list(range(1, found.profile_parts + 1))
    profile = b"".join(found.profile[number] for number in sorted(found.profile)) if whole else b""
    if len(profile) > MAX_PROFILE_BYTES:
        profile = b""
    return ImageFile(b"".join([*found.kept, scans]), profile, found.exif)
