"""`generate`, `transform` and `inpaint`: a call, shown while it runs, and its pictures as files."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, TypeVar, cast

import typer
from rich.console import Console

from sdgrpc.cli.again import completed, read_picture, say
from sdgrpc.cli.as_json import AsJson
from sdgrpc.cli.connection import ConnectionOptions, once_loaded
from sdgrpc.cli.failures import failures_as_lines
from sdgrpc.cli.grouped import takes
from sdgrpc.cli.output import OutputPattern, save
from sdgrpc.client import Client, Job, Lora, OnDisconnect, Options, PreviewKind, PreviewOptions, Result
from sdgrpc.domain import (
    GuidanceInterval,
    ResizeMode,
    Scheduler,
    SigmaSpacing,
    StepReuse,
    TimestepSpacing,
)
from sdgrpc.parameters import Parameters
from sdgrpc.terminal.console import progress_console, shows_pictures
from sdgrpc.terminal.views import open_view, watch

PREVIEW_SIDE = 64


class ShownPreview(Enum):
    """The previews that a terminal can show; values of PreviewKind."""

    NONE = "none"
    PICTURE = "picture"
    DECODED = "decoded"


@dataclass(frozen=True)
class DrawOptions(ConnectionOptions):
    """What all three calls take."""

    lora: Annotated[
        list[str],
        typer.Option(
            metavar="NAME[:STRENGTH[:STRENGTH]]",
            help="A LoRA of the server's folder, its strength and that in the text encoder; repeat it.",
        ),
    ] = field(default_factory=list)
    from_picture: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="A picture drawn here or by A1111: its prompts, LoRAs and settings, where no flag says "
            "otherwise.",
        ),
    ] = None
    negative_prompt: Annotated[
        str | None, typer.Option(help="What the picture must not show.", show_default=False)
    ] = None
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps; 0 is the model's default.", show_default="0")
    ] = None
    seed: Annotated[int | None, typer.Option(help="Image i is drawn from seed + i. Random if left out.")] = (
        None
    )
    count: Annotated[int, typer.Option(help="Images to draw.")] = 1
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="Pixels, multiples of 8; `512x` or `x512` give one side.",
            show_default="the model's, or the picture's",
        ),
    ] = None
    guidance_scale: Annotated[
        float | None,
        typer.Option(help="Classifier-free guidance; 1 turns it off.", show_default="the model's"),
    ] = None
    scheduler: Annotated[Scheduler | None, typer.Option(show_default="the model's")] = None
    spacing: Annotated[SigmaSpacing | None, typer.Option(help="Of the noise levels.")] = None
    timestep_spacing: Annotated[
        TimestepSpacing | None,
        typer.Option(help="Of the steps; trailing for distilled models.", show_default="the model's"),
    ] = None
    guidance_rescale: Annotated[
        float | None, typer.Option(help="Against overexposure, 0 to 1.", show_default="the model's")
    ] = None
    eta: Annotated[
        float | None,
        typer.Option(help="Noise that each step of ddim and the ancestral schedulers draws anew, 0 to 1."),
    ] = None
    gamma: Annotated[float | None, typer.Option(help="The same of tcd, 0 to 1.")] = None
    guidance_interval: Annotated[
        str | None,
        typer.Option(
            metavar="START:END",
            help="Guide only this share of the steps, as in 0.1:0.8; half the work elsewhere.",
            show_default="0:1",
        ),
    ] = None
    reuse: Annotated[
        str | None,
        typer.Option(
            metavar="EVERY[:ORDER]",
            help="Ask the model in every second step (2), or third (3), and forecast the others.",
        ),
    ] = None
    clip_skip: Annotated[
        int | None, typer.Option(help="Text encoder layers to leave out at the end.", show_default="0")
    ] = None
    model: Annotated[
        str | None, typer.Option(help="One of the server's models.", show_default="the server's")
    ] = None
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            help="File name; {seed} and {index} are filled in. The suffix is the format. `-` writes to "
            "standard output.",
        ),
    ] = "sdgrpc-{seed}.png"
    format: Annotated[
        str | None,
        typer.Option(metavar="png|jpeg|webp", help="Of the picture.", show_default="the suffix's, or png"),
    ] = None
    quality: Annotated[int, typer.Option(help="Of jpeg and webp, 1 to 100.", show_default="90")] = 0
    omit_metadata: Annotated[
        bool, typer.Option("--omit-metadata", help="Leave the parameters out of the file.")
    ] = False
    preview: Annotated[
        ShownPreview | None,
        typer.Option(help="What to show while drawing.", show_default="picture, in a terminal"),
    ] = None
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Let the job go on if this command ends; `sdgrpc jobs attach` finds it again."
        ),
    ] = False
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Give up after so long.")] = None
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long to wait for a server that is loading.")
    ] = 300.0
    as_json: AsJson = False

    def request(self, console: Console, pattern: OutputPattern) -> Options:
        """Return the client's arguments, without those that no flag gives and that a picture may hold.

        Raises:
            ValueError: --size, --lora, --guidance-interval or --reuse is not in its form.

        """
        width, height = parse_size(self.size)
        flags = {
            "negative_prompt": self.negative_prompt,
            "loras": [Lora.parse(text) for text in self.lora] or None,
            "model": self.model,
            "steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "scheduler": self.scheduler,
            "sigma_spacing": self.spacing,
            "timestep_spacing": self.timestep_spacing,
            "guidance_rescale": self.guidance_rescale,
            "eta": self.eta,
            "gamma": self.gamma,
            "guidance_interval": parsed(
                "--guidance-interval", GuidanceInterval.parse, self.guidance_interval
            ),
            "step_reuse": parsed("--reuse", StepReuse.parse, self.reuse),
            "seed": self.seed,
            "clip_skip": self.clip_skip,
        }
        given = {name: value for name, value in flags.items() if value is not None}
        always = Options(
            image_count=self.count,
            width=width,
            height=height,
            media_type=pattern.media_type,
            quality=self.quality,
            omit_metadata=self.omit_metadata,
            preview=self._preview(console),
            timeout=self.timeout,
        )
        if self.keep:
            always |= Options(on_disconnect=OnDisconnect.KEEP, request_id=uuid.uuid4().hex[:12])
        return cast("Options", always | given)

    def _preview(self, console: Console) -> PreviewOptions:
        shown = self.preview or (ShownPreview.PICTURE if shows_pictures(console) else ShownPreview.NONE)
        kind = PreviewKind(shown.value)
        return PreviewOptions(kind, max_side=PREVIEW_SIDE if kind is PreviewKind.DECODED else 0)


T = TypeVar("T")
NO_PICTURE = Parameters("")


@dataclass(frozen=True)
class Drawing:
    """What is to be drawn: the client's arguments, and what the picture of --from says besides."""

    prompt: str
    request: Options
    picture: Parameters = NO_PICTURE


Begin = Callable[[Client, Drawing], Job]

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
def generate(options: DrawOptions, prompt: Prompt = None) -> None:
    """Draw pictures from a prompt, or again from a picture."""

    def start(client: Client, drawing: Drawing) -> Job:
        if drawing.picture.strength is not None:
            say(
                f"Denoising strength: {drawing.picture.strength:g} is not used: the picture was made of "
                "another, which it does not hold; use `transform` or `inpaint`"
            )
        return client.generate(drawing.prompt, **drawing.request)

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

    def start(client: Client, drawing: Drawing) -> Job:
        wanted = drawing.picture.strength if strength is None else strength
        return client.transform(
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
    mask: Annotated[
        Path, typer.Option("--mask", metavar="FILE", help="As large as the picture; white is redrawn.")
    ],
    options: DrawOptions,
    prompt: Prompt = None,
    strength: Annotated[
        float | None, typer.Option(help="How far from the picture, 0 to 1.", show_default="1")
    ] = None,
    mask_blur: Annotated[
        float | None, typer.Option(help="Blur of the mask's edge, in pixels.", show_default="0")
    ] = None,
    crop_padding: Annotated[
        int | None, typer.Option(help="Redraw only a crop around the mask, with so many pixels around it.")
    ] = None,
    resize_mode: Resize = None,
) -> None:
    """Redraw the masked part of a picture under a prompt."""

    def start(client: Client, drawing: Drawing) -> Job:
        picture = drawing.picture
        blur = picture.mask_blur if mask_blur is None else mask_blur
        return client.inpaint(
            drawing.prompt,
            image,
            mask,
            strength=picture.strength if strength is None else strength,
            mask_blur=blur or 0.0,
            crop_padding=picture.crop_padding if crop_padding is None else crop_padding,
            resize_mode=resize_mode or drawing.picture.resize_mode,
            **drawing.request,
        )

    _draw(prompt, options, start)


def parsed(flag: str, parse: Callable[[str], T], text: str | None) -> T | None:
    """Return a flag's value; raises ValueError that names the flag."""
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise ValueError(f"{flag} {error}") from None


def parse_size(text: str | None) -> tuple[int, int]:
    """Return the width and height of `512x768`; 0, which is a default, for what is left out.

    Raises:
        ValueError: `text` does not have that form.

    """
    if text is None:
        return 0, 0
    match = re.fullmatch(r"(\d*)[xX](\d*)", text)
    if match is None or not any(match.groups()):
        raise ValueError(f"--size {text}: write WIDTHxHEIGHT, such as 128x128, or one of them, as in 128x")
    return int(match[1] or 0), int(match[2] or 0)


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

        def drawn() -> Result:
            drawing = Drawing(prompt or "", request)
            if picture is not None:
                drawing = Drawing(*completed(client, request, prompt, picture), picture)
            job = start(client, drawing)
            if options.keep:
                say(f"kept as {drawing.request['request_id']}: `sdgrpc jobs attach` finds it by that")
            return watch(job, open_view(console, _shorten(drawing.prompt)))

        save(once_loaded(drawn, options.wait), pattern, as_json=options.as_json)


def _shorten(prompt: str, length: int = 40) -> str:
    return prompt if len(prompt) <= length else f"{prompt[: length - 1]}…"
