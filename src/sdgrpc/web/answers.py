"""What the API answers: pictures as OpenAI's objects, whole or as events of a stream."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field
from typing import Any

from sdgrpc.client import Accepted, DrawnImage, EncodedImage, Preview, Progress, Result

USAGE: dict[str, object] = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}
"""Typed clients want it; nothing is counted in tokens here."""


def images_response(result: Result) -> dict[str, object]:
    """Return OpenAI's ImagesResponse, each picture with the seed that draws it again."""
    size = f"{result.images[0].image.width}x{result.images[0].image.height}"
    return {
        "created": int(time.time()),
        "background": "opaque",
        "output_format": output_format(result.images[0].image),
        "quality": "auto",
        "size": size,
        "data": [{"b64_json": base64_of(one.image), "seed": one.seed} for one in result.images],
        "model": result.accepted.model,
        "warnings": list(result.accepted.warnings),
    }


@dataclass
class Events:
    """A job's events as those of a stream: `kind` is `image_generation` or `image_edit`.

    Partial image i of an image is the first preview at or after (i + 1) / (partial_images + 1) of the steps.
    """

    kind: str
    partial_images: int
    size: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    _sent: dict[int, int] = field(default_factory=dict)

    def of(self, event: object) -> list[dict[str, Any]]:
        """Return what is sent for one of the job's events."""
        match event:
            case Accepted():
                self.size = f"{event.width}x{event.height}"
            case Progress():
                due = event.step * (self.partial_images + 1) // event.step_count
                return [one for preview in event.previews for one in self._partial(preview, due)]
            case DrawnImage():
                drawn = self._event("completed", event.image)
                return [drawn | {"usage": USAGE, "image_index": event.index, "seed": event.seed}]
        return []

    def _partial(self, preview: Preview, due: int) -> list[dict[str, Any]]:
        """Return a preview as a partial image if one is due."""
        sent = self._sent.get(preview.image_index, 0)
        if sent >= min(due, self.partial_images) or not isinstance(preview.content, EncodedImage):
            return []
        self._sent[preview.image_index] = sent + 1
        partial = self._event("partial_image", preview.content)
        return [partial | {"partial_image_index": sent, "image_index": preview.image_index}]

    def _event(self, what: str, image: EncodedImage) -> dict[str, Any]:
        return {
            "type": f"{self.kind}.{what}",
            "b64_json": base64_of(image),
            "background": "opaque",
            "created_at": self.created,
            "output_format": output_format(image),
            "quality": "auto",
            "size": self.size,
        }


def base64_of(image: EncodedImage) -> str:
    """Return a file's bytes as a text."""
    return base64.b64encode(image.data).decode("ascii")


def output_format(image: EncodedImage) -> str:
    """Return `png` for `image/png`."""
    return image.media_type.removeprefix("image/")
