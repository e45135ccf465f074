"""Events -> one output cell that is brought up to date."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from sdgrpc.client.events import Accepted, Event, Result
from sdgrpc.client.jobs.job_aio import AsyncJob
from sdgrpc.client.jobs.job_sync import Job
from sdgrpc.client.pictures import DrawnImage
from sdgrpc.domain import EncodedImage, Finished, Prepared, Progress


def show(job: Job, *, width: int | None = None) -> Result:
    """Draw a job's previews, step and pictures below the cell, and return its result.

    Previews come where the job was sent with `preview=PreviewOptions(PreviewKind.PICTURE)`. Interrupting the
    kernel cancels the job before its next step. `width` is that of each picture on the screen, in pixels.
    Outside of a notebook the job is drawn and nothing can change what was shown.

    Raises:
        ModuleNotFoundError: IPython is not installed.
        SdgrpcServerError: the call failed; the cell says so too.

    """
    cell = _Cell(width)
    with job, cell:
        for event in job:
            cell.take(event)
    return job.result()


async def show_async(job: AsyncJob, *, width: int | None = None) -> Result:
    """Do what `show` does, for a job of AsyncClient."""
    cell = _Cell(width)
    async with job:
        with cell:
            async for event in job:
                cell.take(event)
    return await job.result()


@dataclass
class _Cell:
    """One output of a notebook; its text is for those who cannot show HTML."""

    width: int | None = None
    said: str = "sending"
    step: int = 0
    step_count: int = 0
    pictures: dict[int, EncodedImage] = field(default_factory=dict)
    captions: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            from IPython.display import display
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "sdgrpc.client.notebook needs IPython, which Jupyter brings: pip install ipython",
                name=error.name,
            ) from None
        self._handle: Any = display(self._bundle(), raw=True, display_id=True)

    def __enter__(self) -> None:
        """Show until the end of the block, and how it ended."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            self.said = f"{type(error).__name__}: {error}".rstrip(": ")
            self._update()

    def take(self, event: Event) -> None:
        """Show what an event says."""
        match event:
            case Accepted():
                place = event.queue_position
                self.said = f"in the queue, {place} before it" if place else "starting"
                self.step_count = event.step_count
            case Prepared():
                self.said = "prepared"
            case Progress():
                self.step, self.step_count = event.step, event.step_count
                self.said = f"step {event.step} of {event.step_count}, {event.remaining_seconds:.1f} s left"
                for one in event.previews:
                    if isinstance(one.content, EncodedImage):
                        self.pictures[one.image_index] = one.content
            case DrawnImage():
                self.pictures[event.index] = event.image
                self.captions[event.index] = f"seed {event.seed}"
            case Finished():
                seconds = event.prepared_seconds + event.denoised_seconds + event.decoded_seconds
                self.said = f"done in {seconds:.2f} s"
        self._update()

    def _update(self) -> None:
        if self._handle is not None:  # IPython's answer where no kernel runs
            self._handle.update(self._bundle(), raw=True)

    def _bundle(self) -> Mapping[str, str]:
        figures = "".join(self._figure(index) for index in sorted(self.pictures))
        bar = f'<progress max="{self.step_count or 1}" value="{self.step}" style="width:100%"></progress>'
        row = f'<div style="display:flex;flex-wrap:wrap;gap:8px">{figures}</div>'
        return {"text/html": f"{row}{bar}<div>{escape(self.said)}</div>", "text/plain": self.said}

    def _figure(self, index: int) -> str:
        image = self.pictures[index]
        address = f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"
        width = f' width="{self.width}"' if self.width else ""
        shown = f'<img alt="picture {index + 1}, {escape(self.said)}" src="{address}"{width}>'
        caption = escape(self.captions.get(index, ""))
        return f'<figure style="margin:0">{shown}<figcaption>{caption}</figcaption></figure>'
