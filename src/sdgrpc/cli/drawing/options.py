"""What `generate`, `transform` and `inpaint` take, and the request that it makes."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, TypeVar, cast

import typer
from rich.console import Console

from sdgrpc.cli.as_json import AsJson
from sdgrpc.cli.connection import ConnectionOptions
from sdgrpc.cli.drawing.parsing import parse_size, parsed
from sdgrpc.cli.output import OutputPattern
from sdgrpc.client import Lora, OnDisconnect, Options, PreviewKind, PreviewOptions
from sdgrpc.domain import (
    Decoder,
    GuidanceInterval,
    Scheduler,
    SigmaSpacing,
    StepReuse,
    Tiling,
    TimestepSpacing,
    Variation,
)
from sdgrpc.terminal.console import shows_pictures

T = TypeVar("T")
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
            metavar="NAME[:STRENGTH[:STRENGTH]][:lbw=BLOCKS][:start=SHARE][:end=SHARE][:grid=STRENGTHS]",
            help="A LoRA of the server's folder, its strength and that in the text encoder; repeat it. "
            "BLOCKS are strengths by block: 1,0,0.5,… or a preset as OUTD or unet.down*0.5,unet.mid*0. "
            "start=0.2 and end=0.8 name the steps that have it, as shares of them; grid=0,0.5,1 draws a "
            "picture at each strength.",
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
    late_start: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Let so much of the steps, 0 to 1, run while the LoRAs are still being read.",
            show_default="0",
        ),
    ] = None
    variation: Annotated[
        str | None,
        typer.Option(
            metavar="STRENGTH[:SEED]",
            help="Go so far, 0 to 1, towards another seed's picture: the next if none is given.",
        ),
    ] = None
    tiling: Annotated[
        str | None,
        typer.Option(metavar="both|horizontal|vertical", help="Make the picture's opposite edges fit."),
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
    decoder: Annotated[
        Decoder | None, typer.Option(help="tiny is fast, where the server has one.", show_default="vae")
    ] = None
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
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what would be drawn, from which LoRAs and in what time, and draw nothing."
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
            "late_start": self.late_start,
            "variation": parsed("--variation", Variation.parse, self.variation),
            "decoder": self.decoder,
            "tiling": parsed("--tiling", Tiling.parse, self.tiling),
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
