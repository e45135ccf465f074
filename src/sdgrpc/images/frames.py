"""Frames between a server and its reader processes: two lengths, a JSON object, raw bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import IO, Any

Frame = tuple[dict[str, Any], bytes]
LENGTHS = struct.Struct("<II")


def send(pipe: IO[bytes], head: Mapping[str, Any], content: bytes = b"") -> None:
    """Write a frame; raises OSError where nobody reads."""
    encoded = json.dumps(head).encode()
    pipe.write(LENGTHS.pack(len(encoded), len(content)) + encoded)
    pipe.write(content)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Frame | None:
    """Read a frame; None at the end of the pipe, also within a frame."""
    lengths = pipe.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    head_length, length = LENGTHS.unpack(lengths)
    head, content = pipe.read(head_length), pipe.read(length)
    if len(head) < head_length or len(content) < length:
        return None
    return json.loads(head), content
