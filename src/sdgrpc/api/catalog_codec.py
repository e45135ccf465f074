"""The catalog's records -> messages, and page tokens."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence

from sdgrpc.api.codec import accepted, duration
from sdgrpc.api.loras.block_weights import told
from sdgrpc.api.loras.files import clean
from sdgrpc.api.loras.steps import step_ranges
from sdgrpc.api.sampling.messages import scheduler_value, timestep_spacing_value
from sdgrpc.domain import (
    DEFAULT_ETA,
    DEFAULT_GAMMA,
    Accepted,
    EngineStatus,
    JobPlan,
    ModelState,
    PlannedLora,
    ReplicaState,
    ReplicaStatus,
)
from sdgrpc.errors import FieldViolation, InvalidRequest
from sdgrpc.v1 import catalog_pb2 as pb
from sdgrpc.v1 import diffusion_pb2

EXAMPLES = 5
AUTOV2_DIGITS = 10
REPLICA_STATES = {
    ReplicaState.STARTING: pb.REPLICA_STATE_STARTING,
    ReplicaState.READY: pb.REPLICA_STATE_READY,
    ReplicaState.DRAINING: pb.REPLICA_STATE_DRAINING,
}


def model(state: ModelState) -> pb.Model:
    """A model, its defaults and how to show its latents."""
    info = state.info
    return pb.Model(
        name=info.name,
        base=info.base,
        inpainting=info.is_inpainting,
        tiny_decoder=info.tiny_decoder,
        prediction_type=info.prediction_type,
        dtype=state.dtype,
        width=info.width,
        height=info.height,
        sampling=diffusion_pb2.Sampling(
            steps=info.steps,
            guidance_scale=info.guidance_scale,
            scheduler=scheduler_value(info.scheduler),
            sigma_spacing=diffusion_pb2.SIGMA_SPACING_DEFAULT,
            image_count=1,
            timestep_spacing=timestep_spacing_value(info.timestep_spacing),
            guidance_rescale=info.guidance_rescale,
            eta=DEFAULT_ETA.get(info.scheduler),
            gamma=DEFAULT_GAMMA.get(info.scheduler),
        ),
        latent_format=pb.LatentFormat(
            channels=info.latent_channels,
            scale_factor=info.vae_scale_factor,
            rgb_factors=[value for channel in info.latent_rgb_factors for value in channel],
            rgb_bias=info.latent_rgb_bias,
        ),
        resident=state.resident,
        size_bytes=state.size_bytes,
        sha256=state.sha256,
        autov2=state.sha256[:AUTOV2_DIGITS],
    )


def status(now: EngineStatus, models: Sequence[ModelState], *, ready: bool) -> pb.WatchStatusResponse:
    """The server's state; numbers that are measured have two digits, which is as good as they are."""
    return pb.WatchStatusResponse(
        ready=ready,
        running=now.running,
        queued=now.queued,
        queue_size=now.queue_size,
        rows_per_call=float(f"{now.rows_per_call:.2g}"),
        steps_per_second=float(f"{now.steps_per_second:.2g}"),
        estimated_wait=duration(float(f"{now.estimated_wait_seconds:.2g}")),
        models=[
            pb.ResidentModel(name=state.info.name, size_bytes=state.size_bytes)
            for state in models
            if state.resident
        ],
        lora_sets=[
            pb.ResidentLoraSet(
                lora_set_id=each.set_id,
                model=each.model,
                size_bytes=each.size_bytes,
                in_use=each.in_use,
                loras=[
                    pb.ResidentLora(
                        sha256=lora.sha256,
                        strength=lora.strength,
                        text_encoder_strength=lora.text_encoder_strength,
                        block_weights=told(lora.block_weights),
                    )
                    for lora in each.loras
                ],
            )
            for each in now.resident_sets
        ],
        lora_set_bytes=now.lora_set_bytes,
        lora_set_budget_bytes=now.lora_set_budget_bytes,
        jobs_finished=now.jobs_finished,
        replicas=map(replica, now.replicas),
    )


def replica(one: ReplicaStatus) -> pb.ReplicaStatus:
    """One engine of several."""
    return pb.ReplicaStatus(
        name=one.name,
        state=REPLICA_STATES[one.state],
        node=one.node,
        process_id=one.process_id,
        running=one.running,
        queued=one.queued,
        lora_sets=one.lora_sets,
        lora_set_bytes=one.lora_set_bytes,
        steps_per_second=float(f"{one.steps_per_second:.2g}"),
        jobs_finished=one.jobs_finished,
    )


def page_token(request: pb.ListLorasRequest, after: str) -> str:
    """Where the next page begins, and what it is a page of."""
    raw = json.dumps([_digest(request), after]).encode()
    return base64.urlsafe_b64encode(raw).decode()


def page_start(request: pb.ListLorasRequest) -> str:
    """The name after which the page begins; raises InvalidRequest for a token that is not this list's."""
    if not request.page_token:
        return ""
    try:
        digest, after = json.loads(base64.b64decode(request.page_token, altchars=b"-_", validate=True))
    except (ValueError, TypeError, RecursionError):
        raise _bad_token("is not a `next_page_token` of this server") from None
    if not isinstance(after, str) or not isinstance(digest, str):
        raise _bad_token("is not a `next_page_token` of this server")
    if digest != _digest(request):
        raise _bad_token("is of a list with another base, model or fitting_only; they must stay the same")
    return after


def _digest(request: pb.ListLorasRequest) -> str:
    text = json.dumps([request.base, request.model, request.fitting_only])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _bad_token(sentence: str) -> InvalidRequest:
    return InvalidRequest([FieldViolation("page_token", sentence)])


def planned(plan: JobPlan) -> pb.PlanJobResponse:
    """What a request would do."""
    known = {
        name: duration(seconds)
        for name, seconds in (
            ("estimated_steps", plan.step_seconds),
            ("estimated_decoding", plan.decoding_seconds),
        )
        if seconds is not None
    }
    return pb.PlanJobResponse(
        accepted=accepted(Accepted(plan.queue_position, plan.task, plan.task.warnings)),
        unet_steps=plan.unet_steps,
        guided_steps=plan.guided_steps,
        loras=map(_planned_lora, plan.loras),
        lora_set_id=plan.lora_set_id,
        lora_set_resident=plan.lora_set_resident,
        model_resident=plan.model_resident,
        estimated_wait=duration(plan.wait_seconds),
        memory_bytes=plan.memory_bytes,
        **known,
    )


def _planned_lora(lora: PlannedLora) -> pb.PlannedLora:
    return pb.PlannedLora(
        name=clean(lora.name),
        sha256=lora.sha256,
        strength=lora.strength,
        text_encoder_strength=lora.text_encoder_strength,
        refusal=clean(lora.refusal),
        warnings=map(clean, lora.warnings),
        block_weights=told(lora.block_weights),
        steps=step_ranges(lora.steps),
    )
