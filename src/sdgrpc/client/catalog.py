"""The catalog's messages as records: models, LoRA files, the server's state."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from sdgrpc.domain import LatentArray
from sdgrpc.v1 import catalog_pb2 as pb

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LatentFormat:
    """A linear map of latent channels to RGB: `rgb_factors` is red, green, blue of each channel."""

    channels: int
    scale_factor: int
    rgb_factors: tuple[float, ...]
    rgb_bias: tuple[float, ...]

    def picture(self, latent: LatentArray) -> Image:
        """Make a small picture of a latent, one pixel for each of its own.

        Raises:
            ValueError: the latent is of another model: its channels or its data do not fit.

        """
        from PIL import Image

        area = latent.width * latent.height
        if latent.channels != self.channels or len(latent.data) != 2 * area * self.channels:
            raise ValueError(f"the latent is not one of {self.channels} channels")
        values = struct.unpack(f"<{area * self.channels}e", latent.data)
        pixels = bytearray()
        for pixel in range(area):
            for rgb in range(3):
                unit = self.rgb_bias[rgb] + sum(
                    values[channel * area + pixel] * self.rgb_factors[3 * channel + rgb]
                    for channel in range(self.channels)
                )
                pixels.append(round(255 * min(max(unit / 2 + 0.5, 0.0), 1.0)))
        return Image.frombytes("RGB", (latent.width, latent.height), bytes(pixels))


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the server, with what a request that leaves them unset gets.

    `size_bytes` is that of its weights; 0 until it was loaded once.
    """

    name: str
    base: str
    inpainting: bool
    prediction_type: str
    dtype: str
    width: int
    height: int
    steps: int
    guidance_scale: float
    latent_format: LatentFormat
    resident: bool
    size_bytes: int


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA file of the server; `refusal` says why it does not fit the model that was asked about."""

    name: str
    sha256: str
    size_bytes: int
    modified: datetime
    base: str
    algorithms: tuple[str, ...]
    rank_min: int
    rank_max: int
    trigger_words: tuple[str, ...]
    fits: bool
    refusal: str


@dataclass(frozen=True, slots=True)
class LoraModule:
    """A module that a file changes; None where the file gives no alpha, or the norm depends on the weight."""

    component: str
    path: str
    algorithm: str
    rank: int
    alpha: float | None
    delta_norm: float | None


@dataclass(frozen=True, slots=True)
class LoraDetails:
    """Everything about a file; `modules` are empty unless they were asked for."""

    file: LoraFile
    tensor_count: int
    module_count: int
    unmatched_tensors: int
    unmatched_examples: tuple[str, ...]
    metadata: Mapping[str, str]
    modules: tuple[LoraModule, ...]


@dataclass(frozen=True, slots=True)
class UploadedLora:
    """A file that the server has now; `existed` if it was there before."""

    file: LoraFile
    existed: bool


@dataclass(frozen=True, slots=True)
class ResidentLora:
    """A member of a fused set."""

    sha256: str
    strength: float
    text_encoder_strength: float


@dataclass(frozen=True, slots=True)
class ResidentLoraSet:
    """A fused set in memory: a job with it starts at once."""

    lora_set_id: str
    model: str
    size_bytes: int
    in_use: bool
    loras: tuple[ResidentLora, ...]


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The server's state. `resident_models` are names and bytes; rates are over the last seconds."""

    ready: bool
    running: int
    queued: int
    queue_size: int
    rows_per_call: float
    steps_per_second: float
    estimated_wait_seconds: float
    resident_models: Mapping[str, int]
    lora_sets: tuple[ResidentLoraSet, ...]
    lora_set_bytes: int
    lora_set_budget_bytes: int
    jobs_finished: int


def model(message: pb.Model) -> Model:
    """Decode a message."""
    latent = message.latent_format
    return Model(
        name=message.name,
        base=message.base,
        inpainting=message.inpainting,
        prediction_type=message.prediction_type,
        dtype=message.dtype,
        width=message.width,
        height=message.height,
        steps=message.sampling.steps,
        guidance_scale=message.sampling.guidance_scale,
        latent_format=LatentFormat(
            latent.channels, latent.scale_factor, tuple(latent.rgb_factors), tuple(latent.rgb_bias)
        ),
        resident=message.resident,
        size_bytes=message.size_bytes,
    )


def lora_file(message: pb.LoraFile) -> LoraFile:
    """Decode a message."""
    return LoraFile(
        name=message.name,
        sha256=message.sha256,
        size_bytes=message.size_bytes,
        modified=message.modified.ToDatetime(tzinfo=UTC),
        base=message.base,
        algorithms=tuple(message.algorithms),
        rank_min=message.rank_min,
        rank_max=message.rank_max,
        trigger_words=tuple(message.trigger_words),
        fits=message.fits,
        refusal=message.refusal,
    )


def lora_details(message: pb.GetLoraResponse) -> LoraDetails:
    """Decode a message."""
    return LoraDetails(
        file=lora_file(message.lora),
        tensor_count=message.tensor_count,
        module_count=message.module_count,
        unmatched_tensors=message.unmatched_tensors,
        unmatched_examples=tuple(message.unmatched_examples),
        metadata=dict(message.metadata),
        modules=tuple(map(_module, message.modules)),
    )


def _module(message: pb.LoraModule) -> LoraModule:
    return LoraModule(
        component=message.component,
        path=message.path,
        algorithm=message.algorithm,
        rank=message.rank,
        alpha=message.alpha if message.HasField("alpha") else None,
        delta_norm=message.delta_norm if message.HasField("delta_norm") else None,
    )


def uploaded(message: pb.UploadLoraResponse) -> UploadedLora:
    """Decode a message."""
    return UploadedLora(lora_file(message.lora), message.existed)


def server_status(message: pb.WatchStatusResponse) -> ServerStatus:
    """Decode a message."""
    return ServerStatus(
        ready=message.ready,
        running=message.running,
        queued=message.queued,
        queue_size=message.queue_size,
        rows_per_call=message.rows_per_call,
        steps_per_second=message.steps_per_second,
        estimated_wait_seconds=message.estimated_wait.ToNanoseconds() / 1e9,
        resident_models={each.name: each.size_bytes for each in message.models},
        lora_sets=tuple(map(_lora_set, message.lora_sets)),
        lora_set_bytes=message.lora_set_bytes,
        lora_set_budget_bytes=message.lora_set_budget_bytes,
        jobs_finished=message.jobs_finished,
    )


def _lora_set(message: pb.ResidentLoraSet) -> ResidentLoraSet:
    members = (ResidentLora(m.sha256, m.strength, m.text_encoder_strength) for m in message.loras)
    return ResidentLoraSet(
        message.lora_set_id, message.model, message.size_bytes, message.in_use, tuple(members)
    )


def list_loras_request(
    base: str, model: str, fitting_only: bool, page_size: int, page_token: str
) -> pb.ListLorasRequest:
    """One page's request."""
    return pb.ListLorasRequest(
        base=base, model=model, fitting_only=fitting_only, page_size=page_size, page_token=page_token
    )


def get_lora_request(name: str, sha256: str, model: str, include_modules: bool) -> pb.GetLoraRequest:
    """Build a request.

    Raises:
        ValueError: none or both of `name` and `sha256` are given.

    """
    if bool(name) == bool(sha256):
        raise ValueError("a LoRA file is looked up by its name or by its sha256")
    request = pb.GetLoraRequest(model=model, include_modules=include_modules)
    if name:
        request.name = name
    else:
        request.sha256 = sha256
    return request


def upload_requests(path: str | os.PathLike[str], name: str) -> Iterator[pb.UploadLoraRequest]:
    """The messages of an upload: a header with the file's hash, then the file in chunks."""
    with Path(path).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
        header = pb.UploadLoraHeader(name=name or Path(path).name, sha256=sha256, size_bytes=size)
        yield pb.UploadLoraRequest(header=header)
        file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            yield pb.UploadLoraRequest(chunk=chunk)


def watch_request(min_interval: float | None) -> pb.WatchStatusRequest:
    """Build a request; None is the server's own interval."""
    request = pb.WatchStatusRequest()
    if min_interval is not None:
        interval = Duration()
        interval.FromNanoseconds(round(min_interval * 1e9))
        request.min_interval.CopyFrom(interval)
    return request
