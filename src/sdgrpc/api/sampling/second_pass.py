"""The second pass: its fields' rules, message <-> domain, and what is wrong with it for a request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sdgrpc.api.rules import Complaint, Rule, first, given, member, multiple_of, name, number, zero_or
from sdgrpc.api.sampling.together import misfits
from sdgrpc.domain import ModelInfo, SecondPass, SecondPassMode
from sdgrpc.domain.decimals import shortest
from sdgrpc.domain.second_pass import DEFAULT_STRENGTH
from sdgrpc.settings import Settings
from sdgrpc.v1 import diffusion_pb2 as pb

MIN_SIDE = 64
MAX_SCALE = 8.0
MAX_NAME = 256


def second_pass_table(settings: Settings) -> Mapping[str, Rule]:
    """The rules of SecondPass' fields."""
    side = zero_or(first(number(MIN_SIDE, settings.max_side), multiple_of(8)))
    return {
        "scale": zero_or(number(1.0, MAX_SCALE)),
        "width": side,
        "height": side,
        "strength": number(0.0, 1.0),
        "steps": zero_or(number(1, settings.max_steps)),
        "mode": member(pb.SecondPassMode.DESCRIPTOR),
        "upscaler": name(MAX_NAME),
    }


def one_size(message: pb.SecondPass) -> Iterator[Complaint]:
    """A scale or a size; and only pictures are upscaled."""
    if message.scale and (message.width or message.height):
        yield ".scale", "says the size, as width and height do; set one of both"
    if message.upscaler and message.mode == pb.SECOND_PASS_MODE_LATENT:
        yield ".upscaler", "enlarges pictures, and mode is LATENT; leave out one"


def second_pass(message: pb.SecondPass) -> SecondPass:
    """What is asked for, its size and steps as open as they are."""
    mode = SecondPassMode.PIXEL if message.mode == pb.SECOND_PASS_MODE_PIXEL else SecondPassMode.LATENT
    return SecondPass(
        scale=shortest(message.scale),
        width=message.width,
        height=message.height,
        strength=given(message, "strength", DEFAULT_STRENGTH),
        steps=message.steps,
        mode=mode,
        upscaler=message.upscaler,
    )


def second_pass_message(values: SecondPass | None) -> pb.SecondPass | None:
    """What will be done, by its size in pixels."""
    if values is None:
        return None
    return pb.SecondPass(
        width=values.width,
        height=values.height,
        strength=values.strength,
        steps=values.steps,
        mode=pb.SecondPassMode.Value(f"SECOND_PASS_MODE_{values.mode.name}"),
        upscaler=values.upscaler,
    )


def unknown_upscaler(wanted: str, names: Sequence[str]) -> Iterator[str]:
    """Say what is there, where a name is of none."""
    if not names:
        yield "this server has none; its operator can give it one with --upscaler"
    elif wanted and wanted not in names:
        yield f"there is no {wanted!r}; there are {', '.join(names)}"


def second_pass_faults(
    request: pb.GenerateRequest, model: ModelInfo, size: tuple[int, int], settings: Settings
) -> Iterator[Complaint]:
    """Its size and steps after defaults, where the first pass has that size; its fields are right."""
    if not request.HasField("second_pass"):
        return
    if wanted := request.second_pass.upscaler:
        for sentence in unknown_upscaler(wanted, list(settings.upscalers)):
            yield ".second_pass.upscaler", sentence
    if request.sampling.late_start:
        yield ".sampling.late_start", "cannot be told to repeat it where a second pass follows; leave out one"
    message, sampling = request.second_pass, request.sampling
    steps = sampling.steps or model.steps
    found = second_pass(message).resolved(*size, steps)
    field = ".second_pass.width" if message.width or message.height else ".second_pass.scale"
    side = number(MIN_SIDE, settings.max_side)
    for what, value in (("width", found.width), ("height", found.height)):
        for _, sentence in side(value) if not getattr(message, what) else ():
            yield field, f"makes {found.width}x{found.height}: {sentence}"
    if found.width * found.height > settings.max_pixels:
        yield (
            field,
            f"makes {found.width}x{found.height}, {found.width * found.height} pixels; the most is "
            f"{settings.max_pixels}",
        )
    if found.steps != steps:
        yield from _step_faults(sampling, found.steps, model)


def _step_faults(sampling: pb.Sampling, steps: int, model: ModelInfo) -> Iterator[Complaint]:
    """What is wrong with a sampling of so many steps, and not with those that it has."""
    other = pb.Sampling()
    other.CopyFrom(sampling)
    other.steps = steps
    known = set(misfits(sampling, model, ()))
    for path, sentence in misfits(other, model, ()):
        if (path, sentence) not in known:
            yield ".second_pass.steps", f"{steps} do not go with sampling{path}: {sentence}"
