"""A result's size once defaults are filled in."""

from __future__ import annotations

from collections.abc import Iterator

from sdgrpc.api.codec import Request
from sdgrpc.api.field_rules import MIN_SIDE
from sdgrpc.api.rules import Complaint, number
from sdgrpc.domain.second_pass import UNIT
from sdgrpc.settings import Settings
from sdgrpc.v1 import diffusion_pb2 as pb


def size_faults(request: Request, size: tuple[int, int], settings: Settings) -> Iterator[Complaint]:
    """Say what of a size that is drawn, width and height, is too small, too long or too large.

    A side that the request names is judged by the table of its fields; one that follows from an input's
    proportions may be as small as a model can draw.
    """
    derived = not isinstance(request, pb.GenerateRequest) and bool(request.width or request.height)
    side = number(UNIT if derived else MIN_SIDE, settings.max_side)
    for name, value in zip(("width", "height"), size, strict=True):
        if getattr(request, name) == 0:
            for _, sentence in side(value):
                yield f".{name}", f"is unset, which means {value}: {sentence}; set it"
    width, height = size
    if width * height > settings.max_pixels:
        most = settings.max_pixels
        yield ".width", f"{width}x{height} are {width * height} pixels; the most is {most}"
