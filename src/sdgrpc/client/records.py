"""What a server tells of itself: its models, its LoRA files, its state."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sdgrpc.domain import EncodedImage, LatentArray, ResidentLora, Scheduler, TimestepSpacing

if TYPE_CHECKING:
    from PIL.Image import Image


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

    `size_bytes` is that of its weights; 0 until it was loaded once. `sha256` and `autov2` are empty until the
    server has computed them.
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
    sha256: str = ""
    autov2: str = ""
    scheduler: Scheduler | None = None
    timestep_spacing: TimestepSpacing | None = None
    guidance_rescale: float = 0.0
    tiny_decoder: bool = False


@dataclass(frozen=True, slots=True)
class LoraStrengthRange:
    """The strengths of LoRAs that the server takes, both ends included."""

    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA file of the server; `refusal` says why it does not fit the model that was asked about.

    `made_for` tells, for people, what sampling it was distilled or trained for; empty if the file does not.
    `preferred_strength` to `base_model` are what lies beside it says; `air` is its id on CivitAI.
    """

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
    autov3: str = ""
    made_for: str = ""
    preferred_strength: float | None = None
    has_thumbnail: bool = False
    air: str = ""
    base_model: str = ""


@dataclass(frozen=True, slots=True)
class Embedding:
    """A textual inversion, whose name is a word of prompts; `refusal` says why it does not fit the model.

    `vector_count` are as many tokens of a prompt.
    """

    name: str
    sha256: str
    size_bytes: int
    modified: datetime
    base: str
    vector_count: int
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
class RecommendedSampling:
    """Sampling that a file was made for; 0, None or an empty text where any will do.

    `steps`, `guidance_scale` and `scheduler` are to begin with; up to `steps_max` and `guidance_scale_max`,
    and `other_schedulers`, fit too. `prediction_type` is empty where the file does not say.
    """

    steps: int
    guidance_scale: float | None
    scheduler: Scheduler | None
    timestep_spacing: TimestepSpacing | None
    steps_min: int
    steps_max: int
    guidance_scale_max: float | None
    other_schedulers: tuple[Scheduler, ...]
    prediction_type: str


@dataclass(frozen=True, slots=True)
class LoraDetails:
    """Everything about a file; `modules` are empty unless they were asked for.

    `thumbnail` is a small JPEG of the picture beside it; `beside_warnings` are what there was ignored.
    """

    file: LoraFile
    tensor_count: int
    module_count: int
    unmatched_tensors: int
    unmatched_examples: tuple[str, ...]
    metadata: Mapping[str, str]
    modules: tuple[LoraModule, ...]
    recommended_sampling: RecommendedSampling | None = None
    thumbnail: EncodedImage | None = None
    beside_warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UploadedLora:
    """A file that the server has now; `existed` if it was there before."""

    file: LoraFile
    existed: bool


@dataclass(frozen=True, slots=True)
class ResidentLoraSet:
    """A fused set in memory: a job with it starts at once."""

    lora_set_id: str
    model: str
    size_bytes: int
    in_use: bool
    loras: tuple[ResidentLora, ...]


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One engine of several behind a door; `state` is `starting`, `ready` or `draining`."""

    name: str
    state: str
    node: str
    process_id: int
    running: int
    queued: int
    lora_sets: int
    lora_set_bytes: int
    steps_per_second: float
    jobs_finished: int


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The server's state. `resident_models` are names and bytes; rates are over the last seconds.

    `replicas` are the engines that the server has jobs drawn by, where it has several.
    """

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
    replicas: tuple[ReplicaStatus, ...] = ()
