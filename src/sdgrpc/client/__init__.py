"""A thin, typed client over the generated stubs. It needs no torch.

::

    from sdgrpc.client import Client

    with Client("localhost:50051") as client:
        for image in client.generate("a red circle", loras=["postcard:0.8"], seed=7).images():
            image.save(f"{image.seed}.png")

`sdgrpc.testing` has a server without a model for the tests of what is written with it.
"""

from sdgrpc.client.aio import AsyncClient
from sdgrpc.client.channel import Tls
from sdgrpc.client.drawing.plans import Plan
from sdgrpc.client.drawing.upscaling import UpscaledImage
from sdgrpc.client.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    IncompleteAnswerError,
    InternalServerError,
    InvalidRequestError,
    JobCancelledError,
    JobExistsError,
    JobNotFoundError,
    LoraNotFoundError,
    LoraUnusableError,
    ModelNotFoundError,
    NotFoundError,
    OutOfMemoryError,
    PermissionDeniedError,
    QueueFullError,
    Resource,
    ResourceExhaustedError,
    SdgrpcServerError,
    TokenQueueFullError,
    UnauthenticatedError,
    UnavailableError,
)
from sdgrpc.client.events import Accepted, Event, Result
from sdgrpc.client.jobs.job_aio import AsyncJob
from sdgrpc.client.jobs.job_sync import Job
from sdgrpc.client.jobs.records import JobState, KeptJob, OnDisconnect
from sdgrpc.client.loras import Lora
from sdgrpc.client.pictures import DrawnImage, open_image
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
from sdgrpc.client.requests import Options
from sdgrpc.client.sync import Client
from sdgrpc.domain import (
    EncodedImage,
    Finished,
    GuidanceInterval,
    ImageReady,
    LatentArray,
    LoraReport,
    Margins,
    MaskedContent,
    PlannedLora,
    Prepared,
    Preview,
    PreviewKind,
    PreviewOptions,
    Progress,
    ResidentLora,
    ResizeMode,
    Sampling,
    Scheduler,
    SecondPass,
    SecondPassMode,
    SigmaSpacing,
    StepRange,
    StepReuse,
    Tiling,
    TimestepSpacing,
    UpscaleProgress,
    UpscalerInfo,
    Variation,
)
from sdgrpc.errors import FieldViolation

__all__ = [
    "Accepted",
    "AsyncClient",
    "AsyncJob",
    "Client",
    "DeadlineExceededError",
    "DrawnImage",
    "Embedding",
    "EncodedImage",
    "Event",
    "FailedPreconditionError",
    "FieldViolation",
    "Finished",
    "GuidanceInterval",
    "ImageReady",
    "IncompleteAnswerError",
    "InternalServerError",
    "InvalidRequestError",
    "Job",
    "JobCancelledError",
    "JobExistsError",
    "JobNotFoundError",
    "JobState",
    "KeptJob",
    "LatentArray",
    "LatentFormat",
    "Lora",
    "LoraDetails",
    "LoraFile",
    "LoraModule",
    "LoraNotFoundError",
    "LoraReport",
    "LoraStrengthRange",
    "LoraUnusableError",
    "Margins",
    "MaskedContent",
    "Model",
    "ModelNotFoundError",
    "NotFoundError",
    "OnDisconnect",
    "Options",
    "OutOfMemoryError",
    "PermissionDeniedError",
    "Plan",
    "PlannedLora",
    "Prepared",
    "Preview",
    "PreviewKind",
    "PreviewOptions",
    "Progress",
    "QueueFullError",
    "RecommendedSampling",
    "ReplicaStatus",
    "ResidentLora",
    "ResidentLoraSet",
    "ResizeMode",
    "Resource",
    "ResourceExhaustedError",
    "Result",
    "Sampling",
    "Scheduler",
    "SdgrpcServerError",
    "SecondPass",
    "SecondPassMode",
    "ServerStatus",
    "SigmaSpacing",
    "StepRange",
    "StepReuse",
    "Tiling",
    "TimestepSpacing",
    "Tls",
    "TokenQueueFullError",
    "UnauthenticatedError",
    "UnavailableError",
    "UploadedLora",
    "UpscaleProgress",
    "UpscaledImage",
    "UpscalerInfo",
    "Variation",
    "open_image",
]
