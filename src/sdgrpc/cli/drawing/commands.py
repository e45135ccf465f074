"""`generate`, `transform` and `inpaint`: a call, shown while it runs, and its pictures as files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sdgrpc.cli.connection import once_loaded
from sdgrpc.cli.drawing.again import completed, read_picture, say
from sdgrpc.cli.drawing.options import DrawOptions
from sdgrpc.cli.drawing.parsing import parsed
from sdgrpc.cli.drawing.plan import print_plan
from sdgrpc.cli.failures import failures_as_lines
from sdgrpc.cli.grouped import takes
from sdgrpc.cli.output import OutputPattern, save
from sdgrpc.client import Options, Result
from sdgrpc.client.drawing.calls import DrawingCalls
from sdgrpc.domain import Margins, MaskedContent, ResizeMode, SecondPass
from sdgrpc.parameters import Parameters
from sdgrpc.terminal.console import progress_console
from sdgrpc.terminal.views import open_view, watch

NO_SECOND_PASS = "0"  # noqa: S105
NO_PICTURE = Parameters("")


@dataclass(frozen=True)
class Drawing:
    """What is to be drawn: the client's arguments, and what the picture of --from says besides."""

    prompt: str
    request: Options
    picture: Parameters = NO_PICTURE


Calls = DrawingCalls[Any]
"""A client, or the plans of one."""
Begin = Callable[[Calls, Drawing], Any]

Prompt = Annotated[
    str | None,
    typer.Argument(
        help="What the picture shows; (word:1.2) weighs a word, <lora:name:0.8> names a LoRA.",
        show_default="that of --from",
    ),
]
Resize = Annotated[
    ResizeMode | None,
    typer.Option(help="How the picture is brought to a --size of other proportions.", show_default="stretch"),
]
Picture = Annotated[Path, typer.Option("--image", "-i", metavar="FILE", help="A PNG, JPEG or WebP file.")]


@takes(DrawOptions)
def generate(
    options: DrawOptions,
    prompt: Prompt = None,
    second_pass: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE[:STRENGTH[:STEPS]][:HOW]",
            help="Enlarge it to a multiple of its size, or 1024x768, and draw on, as in 2:0.6. HOW is "
            "latent, pixel or one of the server's upscalers; 0 is no second pass.",
        ),
    ] = None,
) -> None:
    """Draw pictures from a prompt, or again from a picture."""
    with failures_as_lines(options.server):
        asked = None if second_pass == NO_SECOND_PASS else second_pass
        wanted = parsed("--second-pass", SecondPass.parse, asked)

    def start(calls: Calls, drawing: Drawing) -> object:
        if drawing.picture.strength is not None:
            say(
                f"Denoising strength: {drawing.picture.strength:g} is not used: the picture was made of "
                "another, which it does not hold; use `transform` or `inpaint`"
            )
        second = drawing.picture.second_pass if second_pass is None else wanted
        return calls.generate(drawing.prompt, second_pass=second, **drawing.request)

    _draw(prompt, options, start)


@takes(DrawOptions)
def transform(
    image: Picture,
    options: DrawOptions,
    prompt: Prompt = None,
    strength: Annotated[
        float | None, typer.Option(help="How far from the picture, 0 to 1.", show_default="0.8")
    ] = None,
    resize_mode: Resize = None,
) -> None:
    """Redraw a picture under a prompt."""

    def start(calls: Calls, drawing: Drawing) -> object:
        wanted = drawing.picture.strength if strength is None else strength
        return calls.transform(
            drawing.prompt,
            image,
            strength=wanted,
            resize_mode=resize_mode or drawing.picture.resize_mode,
            **drawing.request,
        )

    _draw(prompt, options, start)


@takes(DrawOptions)
def inpaint(
    image: Picture,
    options: DrawOptions,
    prompt: Prompt = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            "--mask",
            metavar="FILE",
            help="As large as the picture; white is redrawn. Or give --margins.",
        ),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="How far from the picture, 0 to 1.", show_default="1")
    ] = None,
    mask_blur: Annotated[
        float | None, typer.Option(help="Blur of the mask's edge, in pixels.", show_default="0")
    ] = None,
    crop_padding: Annotated[
        int | None, typer.Option(help="Redraw only a crop around the mask, with so many pixels around it.")
    ] = None,
    masked_content: Annotated[
        MaskedContent | None,
        typer.Option(help="What the masked part starts from.", show_default="original"),
    ] = None,
    soft: Annotated[
        bool, typer.Option("--soft", help="Greys of the mask say how far a place is redrawn.")
    ] = False,
    cover: Annotated[
        bool, typer.Option("--cover", help="Redraw each 8 by 8 pixels that the mask touches.")
    ] = False,
    margins: Annotated[
        str | None,
        typer.Option(metavar="LEFT:TOP:RIGHT:BOTTOM", help="Pixels to add at each side, and draw there."),
    ] = None,
    resize_mode: Resize = None,
) -> None:
    """Redraw the masked part of a picture under a prompt, or draw around it."""
    with failures_as_lines(options.server):
        wider = parsed("--margins", Margins.parse, margins)

    def start(calls: Calls, drawing: Drawing) -> object:
        picture = drawing.picture
        blur = picture.mask_blur if mask_blur is None else mask_blur
        return calls.inpaint(
            drawing.prompt,
            image,
            mask,
            strength=picture.strength if strength is None else strength,
            mask_blur=blur or 0.0,
            crop_padding=picture.crop_padding if crop_padding is None else crop_padding,
            masked_content=masked_content or picture.masked_content,
            soft=soft or bool(picture.soft),
            cover=cover or bool(picture.cover),
            margins=wider or picture.margins,
            resize_mode=resize_mode or drawing.picture.resize_mode,
            **drawing.request,
        )

    _draw(prompt, options, start)


def _draw(prompt: str | None, options: DrawOptions, start: Begin) -> None:
    console = progress_console()
    with failures_as_lines(options.server):
        pattern = OutputPattern(options.output, options.format or "")
        pattern.check(count=options.count, seed=options.seed, as_json=options.as_json)
        request = options.request(console, pattern)
        if prompt is None and options.from_picture is None:
            raise ValueError("write a prompt, or name a picture that has one with --from")
        picture = read_picture(options.from_picture) if options.from_picture else None
    with options.connected() as client:

        def wanted() -> Drawing:
            if picture is None:
                return Drawing(prompt or "", request)
            return Drawing(*completed(client, request, prompt, picture), picture)

        if options.dry_run:
            plan = once_loaded(lambda: start(client.plans, wanted()), options.wait)
            print_plan(plan, as_json=options.as_json)
            return

        def drawn() -> Result:
            drawing = wanted()
            job = start(client, drawing)
            if options.keep:
                say(f"kept as {drawing.request['request_id']}: `sdgrpc jobs attach` finds it by that")
            return watch(job, open_view(console, _shorten(drawing.prompt)))

        save(once_loaded(drawn, options.wait), pattern, as_json=options.as_json)


def _shorten(prompt: str, length: int = 40) -> str:
    return prompt if len(prompt) <= length else f"{prompt[: length - 1]}…"
