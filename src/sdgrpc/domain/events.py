"""What happens to a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdgrpc.domain.blocks import NO_WEIGHTS, BlockWeights
from sdgrpc.domain.phases import StepRange
from sdgrpc.domain.pictures import EncodedImage, LatentArray
from sdgrpc.domain.recommended import RecommendedSampling
from sdgrpc.domain.tasks import Task


@dataclass(frozen=True, slots=True)
class LoraReport:
    """What one LoRA did to the model; see `LoraReport` of the contract. `autov3` is its hash in A1111.

    `steps` are those that it was applied in; asked for from `start` to `end`, the same steps have it again.
    """

    name: str
    sha256: str
    algorithms: tuple[str, ...]
    modules: Mapping[str, int]
    relative_norm: float
    strength: float
    text_encoder_strength: float
    unmatched_tensors: int = 0
    unmatched_examples: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    recommended: RecommendedSampling | None = None
    autov3: str = ""
    block_weights: BlockWeights = NO_WEIGHTS
    steps: tuple[StepRange, ...] = ()
    start: float = 0.0
    end: float = 1.0


@dataclass(frozen=True, slots=True)
class Preview:
    """One image's preview: a small encoded picture or the predicted clean latent."""

    image_index: int
    content: EncodedImage | LatentArray


@dataclass(frozen=True, slots=True)
class Accepted:
    """The task is queued behind `queue_position` others; `warnings` are the contract's, a sentence each."""

    queue_position: int
    task: Task
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """The LoRA set is fused and the prompt encoded. `fuse_seconds` is 0 for a cached set."""

    loras: tuple[LoraReport, ...] = ()
    lora_set_id: str = ""
    lora_set_cached: bool = False
    fuse_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Step `step` (from 1) of `step_count` is done; `timestep` is the scheduler's, 0 to 999.

    It belongs to pass `pass_number`, from 1; the steps are counted over all passes.
    """

    step: int
    step_count: int
    timestep: float
    elapsed_seconds: float
    remaining_seconds: float
    previews: tuple[Preview, ...] = ()
    pass_number: int = 1


@dataclass(frozen=True, slots=True)
class ImageReady:
    """Image `index` of the task, drawn from `seed`; of a grid at `lora_strength`."""

    index: int
    seed: int
    image: EncodedImage
    lora_strength: float | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """Every image was sent; where the time went, in seconds."""

    queued_seconds: float
    prepared_seconds: float
    denoised_seconds: float
    decoded_seconds: float
    largest_batch: int
    unet_calls: int = 0


Event = Accepted | Prepared | Progress | ImageReady | Finished
