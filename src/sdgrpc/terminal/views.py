"""How a job looks while it runs: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from sdgrpc.client import (
    Accepted,
    EncodedImage,
    Event,
    Finished,
    Job,
    Prepared,
    Progress,
    Result,
    open_image,
)
from sdgrpc.terminal.blocks import half_blocks
from sdgrpc.terminal.console import shows_pictures
from sdgrpc.terminal.text import printable

PREVIEW_COLUMNS = 36
PREVIEW_LINES = 18
SHOWN_PREVIEWS = 4
WIDE = 100  # columns, from which on everything has its place


class View(Protocol):
    """Shows the events of one job, in order."""

    def show(self, event: Event) -> None:
        """Show what has happened."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


def watch(job: Job, view: View) -> Result:
    """Show a job until it has ended and return its result; Ctrl-C and every failure cancel it."""
    with job, view:
        for event in job:
            view.show(event)
        return job.result()


def open_view(console: Console, title: str) -> View:
    """Return the view that suits the console."""
    return LiveView(console, title) if console.is_terminal else PlainView(console, title)


class PlainView:
    """A line for every tenth of the steps."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title

    def show(self, event: Event) -> None:
        """Print a line, if the event is worth one."""
        line = describe(event)
        is_between = isinstance(event, Progress) and not _is_tenth(event)
        if line and not is_between:
            self._console.print(f"{self._title}: {line}", markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held open."""


class LiveView:
    """A progress bar with the time left and, below it while the job runs, the latest preview."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        # One line, however narrow: the bar and the title give way to what is said last.
        narrow = console.width < WIDE
        self._bar = Bar(
            SpinnerColumn(finished_text=Text("✓", "green")),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            BarColumn(bar_width=8 if narrow else 24),
            TextColumn("{task.fields[status]}", markup=False, table_column=Column(no_wrap=True)),
            console=console,
            expand=narrow,
        )
        self._task = self._bar.add_task(title, total=None, status="waiting")
        self._live = Live(self._bar, console=console, refresh_per_second=12)

    def show(self, event: Event) -> None:
        """Move the bar and change the preview."""
        if line := describe(event):
            self._bar.update(self._task, status=line)
        if isinstance(event, Accepted):
            self._bar.update(self._task, total=event.step_count)
        elif isinstance(event, Progress):
            self._bar.update(self._task, completed=event.step)
            if event.previews and shows_pictures(self._console):
                self._live.update(Group(self._bar, self._preview(event)))
        elif isinstance(event, Finished):
            self._live.update(self._bar)

    def _preview(self, event: Progress) -> RenderableType:
        pictures = [
            open_image(preview.content)
            for preview in event.previews[:SHOWN_PREVIEWS]
            if isinstance(preview.content, EncodedImage)
        ]
        if not pictures:
            return ""
        columns = min(self._console.width - 1, PREVIEW_COLUMNS * len(pictures))
        return half_blocks(pictures, columns=columns, lines=min(PREVIEW_LINES, self._console.height - 3))

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.update(self._bar)
        self._live.stop()


def describe(event: Event) -> str:
    """Say in a few words what has happened; nothing for an image, which its file says."""
    match event:
        case Accepted(queue_position=0):
            return "accepted"
        case Accepted():
            return f"queued behind {event.queue_position}"
        case Prepared():
            return _describe_loras(event)
        case Progress():
            return f"step {event.step}/{event.step_count}, {event.remaining_seconds:.1f} s left"
        case Finished():
            total = event.prepared_seconds + event.denoised_seconds + event.decoded_seconds
            return f"drawn in {total:.1f} s"
        case _:
            return ""


def _describe_loras(event: Prepared) -> str:
    if not event.loras:
        return "prepared"
    names = " + ".join(f"{printable(report.name)} {report.strength:g}" for report in event.loras)
    source = "from the cache" if event.lora_set_cached else f"fused in {event.fuse_seconds:.2f} s"
    return f"{names} {source}"


def _is_tenth(event: Progress) -> bool:
    """Whether a step crosses a tenth of the way."""
    return event.step * 10 // event.step_count > (event.step - 1) * 10 // event.step_count
