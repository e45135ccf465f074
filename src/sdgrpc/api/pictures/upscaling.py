"""Upscale: the request's rules, the task that it is, and the events as they are sent."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence

from sdgrpc import images
from sdgrpc.api.codec import duration
from sdgrpc.api.rules import Complaint, Rule, anything, fields, name, number, one_of, zero_or
from sdgrpc.api.sampling.second_pass import unknown_upscaler
from sdgrpc.domain import EncodedImage, Picture, UpscaleAccepted, UpscaleEvent, UpscalerInfo, UpscaleTask
from sdgrpc.errors import FieldViolation, InvalidRequest
from sdgrpc.images import ImageError, ReadAs
from sdgrpc.images.decoder_processes import PictureReader
from sdgrpc.settings import Settings
from sdgrpc.v1 import catalog_pb2
from sdgrpc.v1 import diffusion_pb2 as pb

MAX_NAME = 256


def upscale_table(settings: Settings) -> Mapping[str, Rule]:
    """The rules of UpscaleRequest's fields."""
    side = zero_or(number(1, settings.max_image_side))
    return {
        "request_id": name(MAX_NAME),
        "upscaler": name(MAX_NAME),
        "image": fields(dict.fromkeys(("data", "media_type", "width", "height"), anything)),
        "width": side,
        "height": side,
        "media_type": one_of(images.MEDIA_TYPES),
        "quality": zero_or(number(1, 100)),
    }


def read(
    request: pb.UpscaleRequest, settings: Settings, infos: Sequence[UpscalerInfo], reader: PictureReader
) -> UpscaleTask:
    """Judge the request, decode its picture, and make a task of it; blocks as long as that takes.

    Raises:
        InvalidRequest: with every violation.

    """
    found = list(fields(upscale_table(settings), needed=("image",))(request))
    names = [info.name for info in infos]
    found += [(".upscaler", sentence) for sentence in unknown_upscaler(request.upscaler, names)]
    picture = None
    if not any(path.startswith(".image") for path, _ in found):
        try:
            picture = reader.read(request.image.data, ReadAs.LAYERED).picture
        except ImageError as error:
            found.append((".image.data", str(error)))
    if picture is None or found:
        raise _refused(found)
    info = next(info for info in infos if info.name == (request.upscaler or names[0]))
    width, height = result_size(request, picture, info.scale)
    for path, size in (
        (".image", (picture.width * info.scale, picture.height * info.scale)),
        (".width", (width, height)),
    ):
        found += [(path, sentence) for sentence in _too_large(*size, settings)]
    if found:
        raise _refused(found)
    return UpscaleTask(
        request_id=request.request_id or uuid.uuid4().hex,
        upscaler=info.name,
        image=picture,
        width=width,
        height=height,
        media_type=request.media_type or images.PNG,
        quality=request.quality or 90,
    )


def result_size(request: pb.UpscaleRequest, picture: Picture, scale: int) -> tuple[int, int]:
    """Width and height of the result; one that is left open keeps the proportions, rounded."""
    width, height = request.width, request.height
    if not width and not height:
        return picture.width * scale, picture.height * scale
    return (
        width or max(round(height * picture.width / picture.height), 1),
        height or max(round(width * picture.height / picture.width), 1),
    )


def _too_large(width: int, height: int, settings: Settings) -> Iterator[str]:
    most, side = settings.max_image_pixels, settings.max_image_side
    if width * height > most or max(width, height) > side:
        yield f"makes a picture of {width}x{height} pixels; the most are {most} in all and {side} a side"


def _refused(found: Sequence[Complaint]) -> InvalidRequest:
    return InvalidRequest([FieldViolation(path.lstrip("."), sentence) for path, sentence in found])


def listed(info: UpscalerInfo) -> catalog_pb2.Upscaler:
    """An upscaler in the catalog."""
    return catalog_pb2.Upscaler(name=info.name, scale=info.scale, architecture=info.architecture)


def message(event: UpscaleEvent, request_id: str, sequence: int) -> pb.UpscaleEvent:
    """An event as it is sent."""
    told = pb.UpscaleEvent(request_id=request_id, sequence=sequence)
    if isinstance(event, UpscaleAccepted):
        told.accepted.CopyFrom(
            pb.UpscaleAccepted(
                queue_position=event.queue_position,
                upscaler=event.task.upscaler,
                width=event.task.width,
                height=event.task.height,
                tile_count=event.tile_count,
            )
        )
    elif isinstance(event, EncodedImage):
        told.image.CopyFrom(
            pb.Image(data=event.data, media_type=event.media_type, width=event.width, height=event.height)
        )
    else:
        told.progress.CopyFrom(
            pb.UpscaleProgress(
                tile=event.tile,
                tile_count=event.tile_count,
                elapsed=duration(event.elapsed_seconds),
                remaining=duration(event.remaining_seconds),
            )
        )
    return told
