"""LoRA files and textual inversions -> messages of the catalog."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from sdgrpc.api.codec import image
from sdgrpc.api.sampling.messages import scheduler_value, timestep_spacing_value
from sdgrpc.domain import EmbeddingInfo, LoraDetails, LoraInfo, LoraModuleInfo, RecommendedSampling
from sdgrpc.v1 import catalog_pb2 as pb
from sdgrpc.v1 import diffusion_pb2

EXAMPLES = 5


def clean(text: str) -> str:
    """The text as UTF-8 can hold it: file names and JSON may have lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")


def lora_file(info: LoraInfo) -> pb.LoraFile:
    """A file."""
    modified = Timestamp()
    modified.FromNanoseconds(round(info.modified * 1e9))
    return pb.LoraFile(
        name=clean(info.name),
        sha256=info.sha256,
        size_bytes=info.size,
        modified=modified,
        base=info.base,
        algorithms=info.algorithms,
        rank_min=info.rank_min,
        rank_max=info.rank_max,
        trigger_words=map(clean, info.trigger_words),
        fits=info.fits,
        refusal=clean(info.refusal),
        autov3=info.autov3,
        made_for=info.recommended.text if info.recommended else "",
        preferred_strength=info.preferred_strength,
        has_thumbnail=info.has_thumbnail,
        air=info.air,
        base_model=clean(info.base_model),
    )


def embedding(info: EmbeddingInfo) -> pb.Embedding:
    """A textual inversion."""
    modified = Timestamp()
    modified.FromNanoseconds(round(info.modified * 1e9))
    return pb.Embedding(
        name=clean(info.name),
        sha256=info.sha256,
        size_bytes=info.size,
        modified=modified,
        base=info.base,
        vector_count=info.vectors,
        fits=info.fits,
        refusal=clean(info.refusal),
    )


def lora_details(details: LoraDetails) -> pb.GetLoraResponse:
    """All about a file."""
    return pb.GetLoraResponse(
        lora=lora_file(details.info),
        tensor_count=details.tensor_count,
        module_count=details.module_count,
        unmatched_tensors=len(details.unmatched),
        unmatched_examples=map(clean, details.unmatched[:EXAMPLES]),
        metadata={clean(key): clean(value) for key, value in details.metadata.items()},
        modules=map(_module, details.modules),
        recommended_sampling=_recommended(details.info.recommended) if details.info.recommended else None,
        thumbnail=image(details.thumbnail) if details.thumbnail else None,
        beside_warnings=map(clean, details.beside_warnings),
    )


def _recommended(told: RecommendedSampling) -> pb.RecommendedSampling:
    return pb.RecommendedSampling(
        steps=told.steps,
        guidance_scale=told.guidance_scale,
        scheduler=scheduler_value(told.scheduler) if told.scheduler else diffusion_pb2.SCHEDULER_UNSPECIFIED,
        timestep_spacing=timestep_spacing_value(told.timestep_spacing),
        steps_min=told.steps_min,
        steps_max=told.steps_max,
        guidance_scale_max=told.guidance_scale_max,
        other_schedulers=map(scheduler_value, told.other_schedulers),
        prediction_type=told.prediction_type,
    )


def _module(module: LoraModuleInfo) -> pb.LoraModule:
    return pb.LoraModule(
        component=module.component,
        path=module.path,
        algorithm=module.algorithm,
        rank=module.rank or 0,
        alpha=module.alpha,
        delta_norm=module.delta_norm,
    )
