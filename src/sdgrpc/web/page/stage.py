"""The stage as HTML: previews that become pictures, and what happens now.

Pictures travel in the page's own stream as data addresses. As files of Gradio's each preview would be one
more request and one more file on the disk, which does not keep up with twenty a second.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from sdgrpc.client import Accepted, DrawnImage, EncodedImage, Event, Finished, Prepared, Progress

EMPTY = (
    '<div class="empty"><b>Nothing drawn yet</b>Say what you want to see and press Draw.<br>'
    "Choose LoRAs by typing their name or trigger word.</div>"
)


def address(image: EncodedImage) -> str:
    """Return a picture as a data address."""
    return f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"


@dataclass
class Stage:
    """What is seen of a drawing. `captions` stand below its pictures, one each."""

    count: int = 1
    prompt: str = ""
    captions: Sequence[str] = ()
    state: str = "drawing"
    said: str = "Sending …"
    aside: str = ""
    step: int = 0
    step_count: int = 0
    pictures: dict[int, EncodedImage] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """Note what an event says."""
        match event:
            case Accepted():
                self.step_count = event.step_count
                place = event.queue_position
                self.said = f"In the queue, {place} before yours" if place else "Next in the queue"
            case Prepared():
                self.said = "Prepared"
            case Progress():
                self.step, self.step_count = event.step, event.step_count
                self.said = f"Step {event.step} of {event.step_count}"
                self.aside = f"{event.remaining_seconds:.1f} s left"
                for preview in event.previews:
                    if isinstance(preview.content, EncodedImage):
                        self.pictures[preview.image_index] = preview.content
            case DrawnImage():
                self.pictures[event.index] = event.image
            case Finished():
                seconds = event.prepared_seconds + event.denoised_seconds + event.decoded_seconds
                self.state, self.said, self.aside = "done", "Done", f"{seconds:.2f} s"

    def ended(self, state: str, said: str) -> None:
        """Note an end without pictures."""
        self.state, self.said, self.aside = state, said, ""

    def html(self) -> str:
        """Return the stage."""
        columns = math.ceil(math.sqrt(self.count)) if not self.captions else len(self.captions)
        inside = "".join(self._figure(index) for index in range(self.count) if index in self.pictures)
        bar = ""
        if self.state == "drawing":
            bar = f'<progress aria-label="Steps" max="{self.step_count or 1}" value="{self.step}"></progress>'
        waiting = '<div class="empty">…</div>' if self.state == "drawing" else EMPTY
        attributes = f'data-state="{self.state}" data-step="{self.step}" data-steps="{self.step_count}"'
        said = f"<span>{escape(self.said)}</span><span>{escape(self.aside)}</span>"
        return (
            f'<section class="stage" aria-label="Drawing" {attributes}>'
            f'<div class="canvas" style="--columns:{columns}">{inside or waiting}</div>{bar}'
            f'<div class="now" role="status">{said}</div></section>'
        )

    def _figure(self, index: int) -> str:
        name = self.prompt if not self.captions else f"{self.prompt}, {self.captions[index]}"
        caption = f"<figcaption>{escape(self.captions[index])}</figcaption>" if self.captions else ""
        return (
            f'<figure><img alt="{escape(name, quote=True)}" src="{address(self.pictures[index])}">'
            f"{caption}</figure>"
        )


def empty_stage() -> str:
    """Return the stage before anything was drawn."""
    return Stage(state="empty", said="Ready").html()
