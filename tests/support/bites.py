"""Image files that are legal, small and expensive, made by hand, and files with profiles."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO

from PIL import Image, ImageCms


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(*chunks: bytes, idat_size: int = 1 << 16, side: int = 64) -> bytes:
    """A grey-green PNG with chunks before its pixels, which are cut into pieces of `idat_size` bytes."""
    rows = zlib.compress((b"\0" + b"\x80\x90\x70" * side) * side, 0)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    pieces = [png_chunk(b"IDAT", rows[at : at + idat_size]) for at in range(0, len(rows), idat_size)]
    return b"\x89PNG\r\n\x1a\n" + b"".join([header, *chunks, *pieces, png_chunk(b"IEND", b"")])


@cache
def jpeg_of_scans(count: int, side: int = 64) -> bytes:
    """A progressive grey JPEG whose last scan stands until there are `count`, each a pass over all pixels."""
    out = BytesIO()
    Image.new("L", (side, side), 128).save(out, "JPEG", progressive=True, quality=90)
    data = out.getvalue()
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * (count - data.count(b"\xff\xda")) + b"\xff\xd9"


def jpeg_with(extra: bytes, *, side: int = 64) -> bytes:
    """A JPEG with bytes after its first marker."""
    out = BytesIO()
    Image.new("RGB", (side, side), (200, 30, 60)).save(out, "JPEG", quality=95)
    return out.getvalue()[:2] + extra + out.getvalue()[2:]


def segment(marker: int, content: bytes = b"") -> bytes:
    """A segment of a JPEG file."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def webp_with(*chunks: tuple[bytes, bytes], flags: int = 0, side: int = 64) -> bytes:
    """An extended WebP file with chunks before its picture."""
    out = BytesIO()
    Image.new("RGB", (side, side), (200, 30, 60)).save(out, "WEBP", lossless=True)
    picture = out.getvalue()[12:]
    head = bytes([flags, 0, 0, 0]) + (side - 1).to_bytes(3, "little") * 2
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for kind, data in ((b"VP8X", head), *chunks)
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body) + len(picture)) + b"WEBP" + body + picture


def exif_block(orientation: int, *, tags: int = 0, value_bytes: int = 0) -> bytes:
    """A TIFF block with an orientation and `tags` more, each of which points at the same bytes."""
    entries = [struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)]
    start = 8 + 2 + 12 * (tags + 1) + 4
    entries += [struct.pack("<HHII", 0x9000 + index, 7, value_bytes, start) for index in range(tags)]
    return (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(entries))
        + b"".join(entries)
        + bytes(4)
        + bytes(value_bytes)
    )


def srgb_profile() -> bytes:
    """The profile of sRGB."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exchanged_profile() -> bytes:
    """The profile of sRGB with its red and green primaries exchanged: a viewer shows red as green."""
    profile = bytearray(srgb_profile())
    red, green = profile.find(b"rXYZ"), profile.find(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def grey_profile(gamma: float) -> bytes:
    """A grey profile of ICC version 2 whose tone curve is a power."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)  # D50, in 1/65536
    at = 128 + 4 + 2 * 12
    table = struct.pack(">I", 2) + struct.pack(">4sII4sII", b"wtpt", at, 20, b"kTRC", at + 20, 14)
    body = table + white + curve
    head = struct.pack(">I4sI4s4s4s", 128 + len(body), bytes(4), 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    return head + body


def ink_profile(lightness: Callable[[int, int, int, int], float]) -> bytes:
    """A profile of four inks that print greys: L* (0 to 100) at each corner, 1 where an ink is solid.

    Between the corners L* is interpolated. ICC.1:2001-04, with a `lut8Type` as its only table.
    """
    ramp = bytes(range(256))
    corners = itertools.product((0, 1), repeat=4)
    grid = b"".join(bytes([round(255 * lightness(*corner) / 100), 128, 128]) for corner in corners)
    identity = struct.pack(">9i", *(65536 * (at % 4 == 0) for at in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + grid + ramp * 3
    white = struct.pack(">3i", 63190, 65536, 54061)  # D50
    tags = {b"A2B0": table + bytes(-len(table) % 4), b"wtpt": b"XYZ " + bytes(4) + white}
    at, index, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        index += name + struct.pack(">II", at + len(body), len(content))
        body += content
    size = at + len(body)
    header = struct.pack(">I4xI", size, 0x02400000) + b"prtrCMYKLab " + bytes(12) + b"acsp" + bytes(28)
    header += white
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + index + body
