"""The catalog's messages: requests built, answers decoded into records."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC
from pathlib import Path

from google.protobuf.duration_pb2 import Duration

from sdgrpc.client.drawing.blocks import told
from sdgrpc.client.events import encoded_image
from sdgrpc.client.records import (
    Embedding,
    LatentFormat,
    LoraDetails,
    LoraFile,
    LoraModule,
    LoraStrengthRange,
    Model,
    RecommendedSampling,
    ReplicaStatus,
    ResidentLoraSet,
    ServerStatus,
    UploadedLora,
)
from sdgrpc.domain import ResidentLora, Scheduler, TimestepSpacing
from sdgrpc.domain.decimals import shortest
from sdgrpc.v1 import catalog_pb2 as pb
from sdgrpc.v1 import diffusion_pb2

CHUNK_BYTES = 1 << 20


def model(message: pb.Model) -> Model:
    """Decode a message."""
    latent = message.latent_format
    return Model(
        name=message.name,
        base=message.base,
        inpainting=message.inpainting,
        tiny_decoder=message.tiny_decoder,
        prediction_type=message.prediction_type,
        dtype=message.dtype,
        width=message.width,
        height=message.height,
        steps=message.sampling.steps,
        guidance_scale=shortest(message.sampling.guidance_scale),
        latent_format=LatentFormat(
            latent.channels, latent.scale_factor, tuple(latent.rgb_factors), tuple(latent.rgb_bias)
        ),
        resident=message.resident,
        size_bytes=message.size_bytes,
        sha256=message.sha256,
        autov2=message.autov2,
        scheduler=_scheduler(message.sampling.scheduler),
        timestep_spacing=_timestep_spacing(message.sampling.timestep_spacing),
        guidance_rescale=shortest(message.sampling.guidance_rescale),
    )


def lora_strength_range(message: pb.ListModelsResponse) -> LoraStrengthRange:
    """Decode the range of an answer."""
    found = message.lora_strength_range
    return LoraStrengthRange(shortest(found.minimum), shortest(found.maximum))


def _scheduler(value: diffusion_pb2.Scheduler.ValueType) -> Scheduler | None:
    name = diffusion_pb2.Scheduler.Name(value).removeprefix("SCHEDULER_")
    return None if name == "UNSPECIFIED" else Scheduler[name]


def _timestep_spacing(value: diffusion_pb2.TimestepSpacing.ValueType) -> TimestepSpacing | None:
    name = diffusion_pb2.TimestepSpacing.Name(value).removeprefix("TIMESTEP_SPACING_")
    return None if name == "UNSPECIFIED" else TimestepSpacing[name]


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
        autov3=message.autov3,
        made_for=message.made_for,
        preferred_strength=shortest(message.preferred_strength)
        if message.HasField("preferred_strength")
        else None,
        has_thumbnail=message.has_thumbnail,
        air=message.air,
        base_model=message.base_model,
    )


def embedding(message: pb.Embedding) -> Embedding:
    """Decode a message."""
    return Embedding(
        name=message.name,
        sha256=message.sha256,
        size_bytes=message.size_bytes,
        modified=message.modified.ToDatetime(tzinfo=UTC),
        base=message.base,
        vector_count=message.vector_count,
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
        recommended_sampling=_recommended(message.recommended_sampling)
        if message.HasField("recommended_sampling")
        else None,
        thumbnail=encoded_image(message.thumbnail) if message.HasField("thumbnail") else None,
        beside_warnings=tuple(message.beside_warnings),
    )


def _recommended(message: pb.RecommendedSampling) -> RecommendedSampling:
    others = map(_scheduler, message.other_schedulers)
    most = message.guidance_scale_max
    return RecommendedSampling(
        steps=message.steps,
        guidance_scale=shortest(message.guidance_scale) if message.HasField("guidance_scale") else None,
        scheduler=_scheduler(message.scheduler),
        timestep_spacing=_timestep_spacing(message.timestep_spacing),
        steps_min=message.steps_min,
        steps_max=message.steps_max,
        guidance_scale_max=shortest(most) if message.HasField("guidance_scale_max") else None,
        other_schedulers=tuple(one for one in others if one is not None),
        prediction_type=message.prediction_type,
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
        replicas=tuple(map(_replica, message.replicas)),
    )


def _replica(message: pb.ReplicaStatus) -> ReplicaStatus:
    state = pb.ReplicaState.Name(message.state).removeprefix("REPLICA_STATE_").lower()
    same = {one.name: getattr(message, one.name) for one in fields(ReplicaStatus) if one.name != "state"}
    return ReplicaStatus(state=state, **same)


def _lora_set(message: pb.ResidentLoraSet) -> ResidentLoraSet:
    members = (
        ResidentLora(m.sha256, shortest(m.strength), shortest(m.text_encoder_strength), told(m.block_weights))
        for m in message.loras
    )
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
