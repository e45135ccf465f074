"""A WebP file by its chunks (RFC 9649), before its canvas is made."""

from __future__ import annotations

from collections.abc import Iterator

from sdgrpc.images.limits import (
    ANIMATION,
    DAMAGED,
    MAX_PARTS,
    MAX_PROFILE_BYTES,
    ImageError,
    ImageFile,
    ImageLimits,
    too_many,
)

EXTENDED = b"VP8X"
PICTURES = (b"VP8 ", b"VP8L")
PIXELS = (*PICTURES, b"ALPH", b"ANIM", b"ANMF")
METADATA_FLAGS = 0x20 | 0x08 | 0x04  # ICCP, EXIF, XMP


def is_webp(data: bytes) -> bool:
    """Whether a file begins as WebP files do."""
    return data.startswith(b"RIFF") and data[8:12] == b"WEBP"


def examine(data: bytes, limits: ImageLimits) -> ImageFile:
    """Look through a WebP file; raises ImageError."""
    limits.check_size(*_size(data))
    kept: dict[bytes, bytes] = {}
    profile = exif = b""
    for kind, begin, end in _chunks(data):
        content = data[begin + 8 : end]
        if kind == b"ANMF" and kind in kept:
            raise ImageError(ANIMATION)
        if kind == EXTENDED and not kept:
            flags = bytes([content[0] & ~METADATA_FLAGS])
            kept[kind] = data[begin : begin + 8] + flags + content[1:] + data[end : end + (end - begin) % 2]
        elif kind in PIXELS and kind not in kept:
            kept[kind] = data[begin : end + (end - begin) % 2]
        elif kind == b"ICCP" and not profile and len(content) <= MAX_PROFILE_BYTES:
            profile = content
        elif kind == b"EXIF" and not exif:
            exif = content.removeprefix(b"Exif\0\0")
        if EXTENDED not in kept and kept:
            break  # the simple layouts are one chunk, and nothing after it counts
    chunks = b"".join(kept.values())
    return ImageFile(b"RIFF" + (len(chunks) + 4).to_bytes(4, "little") + b"WEBP" + chunks, profile, exif)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk: its type, where it begins and where it ends, its filling byte left out."""
    length = 8 + _little(data[4:8])
    if length > len(data):
        raise ImageError(DAMAGED)
    at, count = 12, 0
    while at + 8 <= length:
        count += 1
        if count > MAX_PARTS:
            raise too_many(MAX_PARTS, "chunks")
        end = at + 8 + _little(data[at + 4 : at + 8])
        if end > length:
            raise ImageError(DAMAGED)
        yield data[at : at + 4], at, end
        at = end + end % 2


def _size(data: bytes) -> tuple[int, int]:
    """Width and height by the header of the first chunk."""
    kind, start = data[12:16], data[20:30]
    if len(start) < 10:
        raise ImageError(DAMAGED)
    if kind == EXTENDED:
        return _little(start[4:7]) + 1, _little(start[7:10]) + 1
    if kind == b"VP8L":
        bits = _little(start[1:5])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return _little(start[6:8]) & 0x3FFF, _little(start[8:10]) & 0x3FFF


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
