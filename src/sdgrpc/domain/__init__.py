"""What the service talks about: frozen records of tasks, events and models.

Only the standard library is imported here, so that every other room may import this one.
"""

from sdgrpc.domain.blocks import NO_WEIGHTS, BlockWeights
from sdgrpc.domain.embeddings import EmbeddingInfo
from sdgrpc.domain.events import (
    Accepted,
    Event,
    Finished,
    ImageReady,
    LoraReport,
    Prepared,
    Preview,
    Progress,
)
from sdgrpc.domain.lora_files import (
    LoraDetails,
    LoraInfo,
    LoraModuleInfo,
    LoraPage,
    LoraQuery,
    UploadHeader,
)
from sdgrpc.domain.models import ModelInfo, ModelState
from sdgrpc.domain.output import Decoder, Output, PreviewKind, PreviewOptions
from sdgrpc.domain.phases import Phase, StepRange
from sdgrpc.domain.pictures import (
    EncodedImage,
    LatentArray,
    Picture,
    ResizeMode,
    UpscaleAccepted,
    UpscaleEvent,
    UpscaleProgress,
    UpscalerInfo,
    UpscaleTask,
)
from sdgrpc.domain.plans import JobPlan, PlannedLora
from sdgrpc.domain.recommended import RecommendedSampling
from sdgrpc.domain.sampling import (
    DEFAULT_ETA,
    DEFAULT_GAMMA,
    DEFAULT_REUSE_ORDER,
    DRAWS_NOISE,
    FEWEST_STEPS_PER_EVERY,
    REFUSES_REUSE,
    REFUSES_SAMPLE_PREDICTION,
    SUPPORTED_SPACINGS,
    SUPPORTED_TIMESTEP_SPACINGS,
    GuidanceInterval,
    Sampling,
    Scheduler,
    SigmaSpacing,
    StepReuse,
    Tiling,
    TimestepSpacing,
    Variation,
)
from sdgrpc.domain.second_pass import SecondPass, SecondPassMode
from sdgrpc.domain.status import EngineStatus, ReplicaState, ReplicaStatus, ResidentLora, ResidentSet
from sdgrpc.domain.tasks import LoraRef, Margins, MaskedContent, MaskOptions, Task, TaskKind

__all__ = [
    "DEFAULT_ETA",
    "DEFAULT_GAMMA",
    "DEFAULT_REUSE_ORDER",
    "DRAWS_NOISE",
    "FEWEST_STEPS_PER_EVERY",
    "NO_WEIGHTS",
    "REFUSES_REUSE",
    "REFUSES_SAMPLE_PREDICTION",
    "SUPPORTED_SPACINGS",
    "SUPPORTED_TIMESTEP_SPACINGS",
    "Accepted",
    "BlockWeights",
    "Decoder",
    "EmbeddingInfo",
    "EncodedImage",
    "EngineStatus",
    "Event",
    "Finished",
    "GuidanceInterval",
    "ImageReady",
    "JobPlan",
    "LatentArray",
    "LoraDetails",
    "LoraInfo",
    "LoraModuleInfo",
    "LoraPage",
    "LoraQuery",
    "LoraRef",
    "LoraReport",
    "Margins",
    "MaskOptions",
    "MaskedContent",
    "ModelInfo",
    "ModelState",
    "Output",
    "Phase",
    "Picture",
    "PlannedLora",
    "Prepared",
    "Preview",
    "PreviewKind",
    "PreviewOptions",
    "Progress",
    "RecommendedSampling",
    "ReplicaState",
    "ReplicaStatus",
    "ResidentLora",
    "ResidentSet",
    "ResizeMode",
    "Sampling",
    "Scheduler",
    "SecondPass",
    "SecondPassMode",
    "SigmaSpacing",
    "StepRange",
    "StepReuse",
    "Task",
    "TaskKind",
    "Tiling",
    "TimestepSpacing",
    "UploadHeader",
    "UpscaleAccepted",
    "UpscaleEvent",
    "UpscaleProgress",
    "UpscaleTask",
    "UpscalerInfo",
    "Variation",
]
