"""The one tag of an EXIF block that matters: which way is up.

Libraries read every tag. In a hostile block thousands point at the same megabytes, and each takes a copy.
"""

from __future__ import annotations

import struct

from PIL import Image

ORIENTATION = 0x0112
MAX_TAGS = 1000
FORMATS = {1: "B", 3: "H", 4: "I"}  # byte, short, long

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image, exif: bytes) -> Image.Image:
    """Turn an image as its EXIF block says; a broken block is not the picture's fault."""
    turn = TURNS.get(orientation(exif))
    return image if turn is None else image.transpose(turn)


def orientation(exif: bytes) -> int:
    """The orientation in the first directory of a TIFF block, 1 to 8; 1, upright, where there is none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for index in range(min(count, MAX_TAGS)):
            entry = start + 2 + 12 * index
            tag, kind, values = struct.unpack_from(f"{order}HHI", exif, entry)
            if tag == ORIENTATION and values == 1 and kind in FORMATS:
                (value,) = struct.unpack_from(f"{order}{FORMATS[kind]}", exif, entry + 8)
                return value if value in range(1, 9) else 1
    except struct.error:  # an offset that leads out of the block
        pass
    return 1
