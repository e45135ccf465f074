"""What reading a file gives."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sdgrpc.domain import Picture


class ReadAs(Enum):
    """What a file is for; the first two are fields of the contract's requests.

    LAYERED is a picture with its alpha, where it has transparent parts.
    """

    IMAGE = "image"
    MASK = "mask"
    LAYERED = "layered"


@dataclass(frozen=True, slots=True)
class Reading:
    """The pixels of a file, and what may not be as it was meant: a predicate, empty where all is well."""

    picture: Picture
    warning: str = ""
