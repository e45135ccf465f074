"""Draws every scene and writes what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from sdgrpc.client import Client, EncodedImage, Event, Progress, Result, open_image
from sdgrpc.demo.animation import pick_evenly, write_animation
from sdgrpc.demo.few_steps import Pair, draw_pairs, filmstrip, times
from sdgrpc.demo.scenes import (
    CONCEPT,
    SCENES,
    SEED,
    STEPS,
    STRENGTHS,
    STRIP_PROMPT,
    Scene,
    StartsFrom,
    draw_mask,
    start_job,
    start_strip_job,
)
from sdgrpc.demo.server import running_server
from sdgrpc.demo.sheet import Card, Filmstrip, contact_sheet
from sdgrpc.embedded import EMBEDDED
from sdgrpc.terminal.views import View, open_view, watch

STRIP_FRAMES = 9


@dataclass
class Drawn:
    """A scene's result: its picture's file, the previews (step, picture) and how long the caller waited."""

    scene: Scene
    result: Result
    previews: list[tuple[int, Image.Image]]
    seconds: float

    @property
    def data(self) -> bytes:
        """The picture's file."""
        return self.result.images[0].image.data

    @property
    def picture(self) -> Image.Image:
        """The picture."""
        return self.result.images[0].open()


@dataclass
class PreviewKeeper:
    """A view that keeps the previews that it passes on to another view."""

    view: View
    previews: list[tuple[int, Image.Image]] = field(default_factory=list)

    def show(self, event: Event) -> None:
        """See `View.show`."""
        if isinstance(event, Progress):
            for preview in event.previews:
                if isinstance(preview.content, EncodedImage):
                    self.previews.append((event.step, open_image(preview.content)))
        self.view.show(event)

    def __enter__(self) -> PreviewKeeper:
        self.view.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.view.__exit__(*error)


def run_demo(folder: Path, console: Console, results: Console) -> None:
    """Start a server, draw every scene over gRPC, stop it, and write the pictures and the sheet to `folder`.

    `console` shows the progress, `results` what came of it.

    Raises:
        ServerDied: the server could not start.
        SdgrpcServerError: a call failed.
        OSError: `folder` cannot be written.

    """
    folder.mkdir(parents=True, exist_ok=True)
    mask = draw_mask()
    started = time.monotonic()
    console.print("starting a server with the embedded model")
    with ExitStack() as stack:
        with console.status("loading the model"):
            target = stack.enter_context(running_server(folder / "server.log", ["--model", EMBEDDED]))
        console.print(f"ready at {target} after {time.monotonic() - started:.1f} s")
        with Client(target) as client:
            drawn = draw_scenes(client, mask, lambda title: open_view(console, title))
            strip = draw_strip(client, lambda title: open_view(console, title))
            pairs = draw_pairs(client, lambda title: open_view(console, title))
    write_all(folder, drawn, strip, pairs, mask)
    results.print(time_table(drawn))
    results.print(times(pairs))
    results.print(f"wrote {folder / 'contact-sheet.png'} and {len(drawn) + 2} pictures beside it")


def draw_scenes(client: Client, mask: Image.Image, view: Callable[[str], View]) -> list[Drawn]:
    """Draw the scenes one after another; later ones start from earlier pictures."""
    drawn: list[Drawn] = []
    for scene in SCENES:
        pictures = {each.scene.name: each.data for each in drawn}
        started = time.monotonic()
        keeper = PreviewKeeper(view(f"{scene.title:<22}"))
        result = watch(start_job(client, scene, pictures, mask), keeper)
        drawn.append(Drawn(scene, result, keeper.previews, time.monotonic() - started))
    return drawn


def draw_strip(client: Client, view: Callable[[str], View]) -> list[Image.Image]:
    """Draw one picture with one LoRA at each of its strengths, which come in any order."""
    result = watch(start_strip_job(client), view(f"{f'{CONCEPT.name} 0 to 1':<22}"))
    return [image.open() for image in sorted(result.images, key=lambda image: image.index)]


def write_all(
    folder: Path, drawn: list[Drawn], strip: list[Image.Image], pairs: list[Pair], mask: Image.Image
) -> None:
    """Write the PNGs as the server sent them, the mask, the contact sheet and the animation of them all."""
    for each in drawn:
        (folder / f"{each.scene.name}.png").write_bytes(each.data)
    mask.save(folder / "mask.png")
    sheet(drawn, strip, pairs, mask).save(folder / "contact-sheet.png", optimize=True)
    write_animation(folder / "denoising.webp", list(map(film, drawn)))


def film(drawn: Drawn) -> list[Image.Image]:
    """Return a frame for each of the demonstration's steps: the latest preview then, at last the picture."""
    count = drawn.result.accepted.step_count
    frames = []
    for at in range(1, STEPS):
        seen = [picture for step, picture in drawn.previews if step * STEPS <= at * count]
        first = drawn.previews[0][1] if drawn.previews else drawn.picture
        frames.append(seen[-1] if seen else first)
    return [*frames, drawn.picture]


def sheet(drawn: list[Drawn], strip: list[Image.Image], pairs: list[Pair], mask: Image.Image) -> Image.Image:
    """Lay out the contact sheet."""
    pictures = {each.scene.name: each.picture for each in drawn}
    cards = [
        Card(
            each.picture,
            each.scene.title,
            f"“{each.scene.prompt}”",
            each.scene.chips,
            _insets(each.scene, pictures, mask),
        )
        for each in drawn
    ]
    steps = [*drawn[0].previews, (STEPS, drawn[0].picture)]
    frames = [(steps[i][1], f"step {steps[i][0]}") for i in pick_evenly(len(steps), STRIP_FRAMES)]
    return contact_sheet(
        "sdgrpc",
        f"Drawn over gRPC by the embedded model: {STEPS} steps, seed {SEED}",
        cards,
        [
            Filmstrip("What the previews showed of the first picture", frames),
            Filmstrip(
                f"“{STRIP_PROMPT}” with the LoRA {CONCEPT.name}, from strength 0 to 1",
                [(picture, f"{at:g}") for picture, at in zip(strip, STRENGTHS, strict=True)],
            ),
            filmstrip(pairs),
        ],
    )


def _insets(scene: Scene, pictures: dict[str, Image.Image], mask: Image.Image) -> list[Image.Image]:
    match scene.start:
        case StartsFrom.NOISE:
            return []
        case StartsFrom.PICTURE:
            return [pictures[scene.source]]
        case StartsFrom.MASKED_PICTURE:
            return [pictures[scene.source], mask]


def time_table(drawn: list[Drawn]) -> Table:
    """Where the time went, in seconds, job by job."""
    table = Table(title="Where the time went (seconds)", title_justify="left", show_footer=True)
    table.add_column("picture", footer="all")
    columns = ("queued", "prepared", "denoised", "decoded", "total", "as seen here")
    rows = [(each.scene.name, _seconds(each)) for each in drawn]
    for index, column in enumerate(columns):
        footer = f"{sum(seconds[index] for _, seconds in rows):.2f}"
        table.add_column(column, justify="right", footer=footer)
    for name, seconds in rows:
        table.add_row(name, *(f"{value:.2f}" for value in seconds))
    return table


def _seconds(drawn: Drawn) -> tuple[float, ...]:
    finished = drawn.result.finished
    parts = (
        finished.queued_seconds,
        finished.prepared_seconds,
        finished.denoised_seconds,
        finished.decoded_seconds,
    )
    return (*parts, sum(parts), drawn.seconds)
