"""What this browser drew: small pictures and their parameters, kept by the browser alone."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

from sdgrpc.client import Result
from sdgrpc.parameters import NoParameters, text_of_picture

KEPT = 24
"""Some 8 kB each, of the 5 MB that a browser keeps for a page."""
SIDE = 208

Past = list[dict[str, Any]]


def parameters_of(data: bytes) -> str:
    """Return the parameters that a picture holds; empty where it holds none."""
    try:
        return text_of_picture(data)
    except NoParameters:
        return ""


def with_result(past: Past | None, result: Result) -> Past:
    """Return the history with a result's pictures in front."""
    new = [
        {"src": _thumbnail(one.open()), "seed": one.seed, "text": parameters_of(one.image.data)}
        for one in result.images
    ]
    return [*new, *(past or [])][:KEPT]


def opened(entry: dict[str, Any]) -> Image.Image:
    """Decode an entry's small picture."""
    data = base64.b64decode(str(entry["src"]).partition(",")[2])
    return Image.open(io.BytesIO(data)).convert("RGB")


def gallery(past: Past | None) -> list[tuple[Image.Image, str]]:
    """Return what the gallery shows."""
    return [(opened(entry), str(entry["seed"])) for entry in past or []]


def _thumbnail(image: Image.Image) -> str:
    image = image.convert("RGB")
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
