"""What lies beside LoRA files, on the page: thumbnails, and the strengths that sliders begin with."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from sdgrpc.client import AsyncClient, LoraFile, SdgrpcServerError
from sdgrpc.client.records import LoraStrengthRange

LOW, HIGH = -1.0, 2.0
"""Where a slider ends."""


class Strength(NamedTuple):
    """On the U-Net and the text encoders, by block as after `lbw=`, and which share of the steps has it."""

    unet: float
    text: float
    blocks: str = ""
    start: float = 0.0
    end: float = 1.0


def start(file: LoraFile | None) -> Strength:
    """Return what a file is drawn with before anybody moved its sliders: as its user prefers, else 1."""
    preferred = None if file is None else file.preferred_strength
    strength = 1.0 if preferred is None else min(max(preferred, LOW), HIGH)
    return Strength(strength, strength)


def strength(kept: Mapping[str, object], name: str, file: LoraFile | None) -> Strength:
    """Return what the page keeps of a file's strengths, or what it begins with."""
    found = kept.get(name)
    if not isinstance(found, (list, tuple)) or not 2 <= len(found) <= len(Strength._fields):
        return start(file)
    unet, text, blocks, begins, ends = Strength(*found)
    return Strength(float(unet), float(text), str(blocks), float(begins), float(ends))


def within(files: Iterable[LoraFile], span: LoraStrengthRange) -> dict[str, LoraFile]:
    """Return files by name, with preferred strengths that the server takes."""
    return {
        one.name: one
        if one.preferred_strength is None
        else replace(one, preferred_strength=min(max(one.preferred_strength, span.minimum), span.maximum))
        for one in files
    }


async def thumbnails(
    client: AsyncClient, chosen: Iterable[str], files: Mapping[str, LoraFile], known: Mapping[str, str]
) -> dict[str, str]:
    """Return the pictures of chosen files as URLs, those that are known too; none where one cannot be had."""
    found = dict(known)
    for name in chosen:
        file = files.get(name)
        if file is None or not file.has_thumbnail or name in found:
            continue
        try:
            picture = (await client.get_lora(name)).thumbnail
        except SdgrpcServerError:
            continue
        found[name] = "" if picture is None else _url(picture.media_type, picture.data)
    return found


def _url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
