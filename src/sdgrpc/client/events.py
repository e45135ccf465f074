"""The messages of a call's stream -> typed events, and what they add up to."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration

from sdgrpc.client.drawing.blocks import steps_told, told
from sdgrpc.client.drawing.sampled import sampling, second_pass
from sdgrpc.client.errors import incomplete
from sdgrpc.client.pictures import DrawnImage
from sdgrpc.domain import (
    EncodedImage,
    Finished,
    LatentArray,
    LoraReport,
    Prepared,
    Preview,
    Progress,
    Sampling,
    SecondPass,
)
from sdgrpc.domain.decimals import shortest
from sdgrpc.v1 import diffusion_pb2 as pb


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request is valid and queued behind `queue_position` others; every default is filled in.

    `warnings` tell what may not be as it was meant, a sentence each. Steps are counted over both passes where
    there is a `second_pass`, whose size the images have then.
    """

    request_id: str
    queue_position: int
    sampling: Sampling
    width: int
    height: int
    model: str
    step_count: int
    warnings: tuple[str, ...] = ()
    second_pass: SecondPass | None = None


Event = Accepted | Prepared | Progress | DrawnImage | Finished


@dataclass(frozen=True, slots=True)
class Result:
    """A finished call: its images in order, and what its events said."""

    accepted: Accepted
    prepared: Prepared
    images: tuple[DrawnImage, ...]
    finished: Finished

    def _repr_html_(self) -> str:
        """Return what notebooks show of it: every picture and its seed."""
        figures = (
            f'<figure style="margin:0"><img alt="seed {one.seed}" src="data:{one.image.media_type};base64,'
            f'{base64.b64encode(one.image.data).decode()}"><figcaption>seed {one.seed}</figcaption></figure>'
            for one in self.images
        )
        return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{"".join(figures)}</div>'


class Collector:
    """Turns the messages of one call into events and remembers those that make its result."""

    def __init__(self) -> None:
        self._accepted: Accepted | None = None
        self._prepared: Prepared | None = None
        self._images: list[DrawnImage] = []
        self._finished: Finished | None = None

    def take(self, message: pb.JobEvent) -> Event | None:
        """Return the message's event, or None for one of a newer contract that this version does not know."""
        kind = message.WhichOneof("event")
        if kind is None:
            return None
        if kind == "accepted":
            self._accepted = accepted(message.accepted, message.request_id)
            return self._accepted
        event = _DECODERS[kind](getattr(message, kind))
        match event:
            case Prepared():
                self._prepared = event
            case DrawnImage():
                self._images.append(event)
            case Finished():
                self._finished = event
        return event

    def result(self) -> Result:
        """Return what the stream, now at its end, added up to.

        Raises:
            IncompleteAnswerError: it ended before its last event.

        """
        if self._accepted is None or self._prepared is None or self._finished is None:
            raise incomplete()
        images = tuple(sorted(self._images, key=lambda image: image.index))
        return Result(self._accepted, self._prepared, images, self._finished)


def accepted(message: pb.Accepted, request_id: str = "") -> Accepted:
    """Decode what a job is told when it is queued."""
    return Accepted(
        request_id=request_id,
        queue_position=message.queue_position,
        sampling=sampling(message.sampling),
        width=message.width,
        height=message.height,
        model=message.model,
        step_count=message.step_count,
        warnings=tuple(message.warnings),
        second_pass=second_pass(message),
    )


def prepared(message: pb.Prepared) -> Prepared:
    """Decode what preparing a LoRA set did."""
    return Prepared(
        loras=tuple(_report(report) for report in message.loras),
        lora_set_id=message.lora_set_id,
        lora_set_cached=message.lora_set_cached,
        fuse_seconds=_seconds(message.fuse_duration),
    )


def _report(message: pb.LoraReport) -> LoraReport:
    return LoraReport(
        name=message.name,
        sha256=message.sha256,
        algorithms=tuple(message.algorithms),
        modules=dict(message.modules),
        relative_norm=message.relative_norm,
        strength=shortest(message.strength),
        text_encoder_strength=shortest(message.text_encoder_strength),
        unmatched_tensors=message.unmatched_tensors,
        unmatched_examples=tuple(message.unmatched_examples),
        warnings=tuple(message.warnings),
        block_weights=told(message.block_weights),
        steps=steps_told(message),
        start=shortest(message.start),
        end=shortest(message.end) or 1.0,  # a server that knows of none says 0
    )


def _progress(message: pb.Progress) -> Progress:
    return Progress(
        step=message.step,
        step_count=message.step_count,
        timestep=message.timestep,
        elapsed_seconds=_seconds(message.elapsed),
        remaining_seconds=_seconds(message.remaining),
        previews=tuple(_preview(preview) for preview in message.previews),
        pass_number=max(message.pass_number, 1),
    )


def _preview(message: pb.Preview) -> Preview:
    latent = message.latent
    if message.WhichOneof("content") == "latent":
        return Preview(
            message.image_index, LatentArray(latent.channels, latent.height, latent.width, latent.data)
        )
    return Preview(message.image_index, encoded_image(message.picture))


def _drawn(message: pb.GeneratedImage) -> DrawnImage:
    strength = shortest(message.lora_strength) if message.HasField("lora_strength") else None
    return DrawnImage(message.index, message.seed, encoded_image(message.image), strength)


def encoded_image(message: pb.Image) -> EncodedImage:
    """Decode a picture in a file."""
    return EncodedImage(message.data, message.media_type, message.width, message.height)


def _finished(message: pb.Finished) -> Finished:
    return Finished(
        queued_seconds=_seconds(message.queued),
        prepared_seconds=_seconds(message.prepared),
        denoised_seconds=_seconds(message.denoised),
        decoded_seconds=_seconds(message.decoded),
        largest_batch=message.largest_batch,
        unet_calls=message.unet_calls,
    )


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


_DECODERS: Mapping[str, Callable[[Any], Event]] = {
    "prepared": prepared,
    "progress": _progress,
    "image": _drawn,
    "finished": _finished,
}
