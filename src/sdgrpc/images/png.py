"""A PNG file by the lengths of its chunks (ISO/IEC 15948), none of which is unpacked but a colour profile.

Decoders look at every chunk, and unpack texts; two million empty ones in 30 MB take ten seconds.
"""

from __future__ import annotations

import struct
import zlib
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

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXELS = (b"PLTE", b"tRNS", b"IDAT", b"IEND")
LEAST_IDAT = 4096
"""Programs cut a picture into chunks of 8 KiB or more: a large file may have so many more chunks."""
MAX_NAME = 79  # of a profile


def examine(data: bytes, limits: ImageLimits) -> ImageFile:
    """Look through a PNG file; raises ImageError."""
    start = data[8:33]
    if len(start) < 25 or start[:8] != b"\0\0\0\rIHDR":
        raise ImageError(DAMAGED)
    limits.check_size(*struct.unpack(">II", start[8:16]))
    kept, profile, exif = [data[:33]], b"", b""
    for kind, begin, end in _chunks(data):
        if kind in PIXELS:
            kept.append(data[begin:end])
        elif kind == b"iCCP" and not profile:
            profile = _profile(data[begin + 8 : end - 4])
        elif kind == b"eXIf" and not exif:
            exif = data[begin + 8 : end - 4]
        elif kind == b"acTL" and int.from_bytes(data[begin + 8 : begin + 12]) > 1:
            raise ImageError(ANIMATION)
    return ImageFile(b"".join(kept), profile, exif)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk after the header, to the end: its type, where it begins and where it ends."""
    most, at = max(MAX_PARTS, len(data) // LEAST_IDAT), 33
    others = count = 0
    while True:
        count += 1
        if len(data) < at + 12:
            raise ImageError(DAMAGED)
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        others += kind != b"IDAT"
        if others >= MAX_PARTS or count >= most:
            raise too_many(MAX_PARTS, "chunks")
        if end > len(data) or kind == b"IHDR":
            raise ImageError(DAMAGED)
        yield kind, at, end
        if kind == b"IEND":
            return
        at = end


def _profile(chunk: bytes) -> bytes:
    """The profile in an iCCP chunk; nothing where it cannot be unpacked, or is too large."""
    name_end = chunk.find(b"\0", 0, MAX_NAME + 1)
    if name_end < 0 or chunk[name_end + 1 : name_end + 2] != b"\0":
        return b""
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(chunk[name_end + 2 :], MAX_PROFILE_BYTES)
    except zlib.error:
        return b""
    return profile if unpacking.eof else b""
