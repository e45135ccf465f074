"""The keys of a body -> what the client's calls take. Every key is known, or refused by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sdgrpc.client import PreviewKind, ResizeMode, Scheduler, SigmaSpacing, TimestepSpacing
from sdgrpc.web.failures import Refused
from sdgrpc.web.loras import read_loras
from sdgrpc.web.values import Reader, flag, number, one_of, text, whole

INT32, INT64 = 2**31 - 1, 2**63 - 1

# Our own fields, by the client's names for them.
OWN: Mapping[str, Reader] = {
    "negative_prompt": text,
    "loras": read_loras,
    "steps": whole(1, INT32),
    "guidance_scale": number,
    "scheduler": one_of(Scheduler),
    "sigma_spacing": one_of(SigmaSpacing),
    "timestep_spacing": one_of(TimestepSpacing),
    "guidance_rescale": number,
    "eta": number,
    "gamma": number,
    "seed": whole(-INT64 - 1, INT64),
    "clip_skip": whole(0, INT32),
    "omit_metadata": flag,
    "request_id": text,
}
OWN_EDIT: Mapping[str, Reader] = {
    "strength": number,
    "resize_mode": one_of(ResizeMode),
    "mask_blur": number,
    "crop_padding": whole(0, INT32),
}
OPENAI: Mapping[str, Reader] = {
    "prompt": text,
    "model": text,
    "n": whole(1, INT32),
    "size": text,
    "quality": text,
    "output_format": one_of(("png", "jpeg", "webp")),
    "output_compression": whole(0, 100),
    "response_format": text,
    "background": text,
    "moderation": one_of(("auto", "low")),
    "stream": flag,
    "partial_images": whole(0, 3),
    "preview": one_of((PreviewKind.PICTURE.value, PreviewKind.DECODED.value)),
}
REFUSED: Mapping[str, str] = {
    "style": "there are no styles; say it in the prompt, or with a LoRA",
    "input_fidelity": "say how far to go from the image with `strength`",
}
ONLY_EDIT = ("image", "mask")


@dataclass
class Asked:
    """A body that was read: what the client's call takes, and how to answer."""

    prompt: str
    model: str
    options: dict[str, Any]
    edit: dict[str, Any] = field(default_factory=dict)
    stream: bool = False
    partial_images: int = 0
    preview: str = PreviewKind.PICTURE.value


def read_body(body: Mapping[str, object], *, edit: bool) -> Asked:
    """Check every key of a body.

    Raises:
        Refused: a key is unknown, or its value is of another kind or not among those there are.

    """
    read = {**OPENAI, **OWN, **(OWN_EDIT if edit else {})}
    found: dict[str, Any] = {}
    for key, value in body.items():
        if key == "user" or value is None or (edit and key in ONLY_EDIT):
            continue
        if key in REFUSED:
            raise Refused(f"{key} is not supported: {REFUSED[key]}", key, "unsupported_parameter")
        if key not in read:
            raise Refused(f"Unknown parameter: {key[:100]!r}", key[:100], "unknown_parameter")
        found[key] = read[key](key, value)
    if not found.get("prompt"):
        raise Refused(
            "prompt: a text that says what to draw is missing", "prompt", "missing_required_parameter"
        )
    _check_words(found)
    options = {key: found[key] for key in OWN if key in found} | _output(found) | _size(found.get("size"))
    if "n" in found:
        options["image_count"] = found["n"]
    return Asked(
        found["prompt"],
        found.get("model", ""),
        options,
        {key: found[key] for key in OWN_EDIT if key in found},
        found.get("stream", False),
        _partial_images(found),
        found.get("preview", PreviewKind.PICTURE.value),
    )


def _check_words(found: Mapping[str, Any]) -> None:
    """Refuse what is a word of OpenAI's that means nothing here, by name."""
    if found.get("response_format", "b64_json") != "b64_json":
        raise Refused(
            "response_format: only b64_json; no files are kept that a url could name", "response_format"
        )
    if found.get("quality", "auto") not in ("auto", "standard", "medium"):
        raise Refused(
            f"quality: no {found['quality']!r}; auto, standard and medium are the model's own; say `steps`",
            "quality",
        )
    if found.get("background", "auto") not in ("auto", "opaque"):
        raise Refused("background: pictures are opaque; leave it out", "background", "unsupported_parameter")


def _partial_images(found: Mapping[str, Any]) -> int:
    count: int = found.get("partial_images", 0)
    if count and not found.get("stream"):
        raise Refused("partial_images needs stream: true", "partial_images")
    return count


def _output(found: Mapping[str, Any]) -> dict[str, Any]:
    kind = found.get("output_format", "png")
    output: dict[str, Any] = {"media_type": f"image/{kind}"}
    compression = found.get("output_compression")
    if compression is None:
        return output
    if kind == "png":
        if compression != 100:
            raise Refused(
                "output_compression: PNG is exact; ask for jpeg or webp as output_format",
                "output_compression",
            )
        return output
    return output | {"quality": max(compression, 1)}


def _size(size: str | None) -> dict[str, int]:
    if size in (None, "", "auto"):
        return {}
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", str(size))
    if found is None or not (int(found[1]) and int(found[2])):
        raise Refused(f"size: {str(size)[:40]!r} is neither auto nor WIDTHxHEIGHT, as 512x768", "size")
    return {"width": int(found[1]), "height": int(found[2])}
