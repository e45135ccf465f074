"""What the service talks about: frozen records of tasks, events and models.

Only the standard library is imported here, so that every other room may import this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class TaskKind(Enum):
    """Which of the three RPCs a task came from."""

    GENERATE = "generate"
    TRANSFORM = "transform"
    INPAINT = "inpaint"


class Scheduler(Enum):
    """The samplers of the contract; the values are its enum names without the prefix, in lower case."""

    EULER = "euler"
    EULER_ANCESTRAL = "euler_ancestral"
    HEUN = "heun"
    DDIM = "ddim"
    DDPM = "ddpm"
    PNDM = "pndm"
    LMS = "lms"
    DPMPP_2M = "dpmpp_2m"
    DPMPP_2M_SDE = "dpmpp_2m_sde"
    DPMPP_SDE = "dpmpp_sde"
    UNIPC = "unipc"
    KDPM2 = "kdpm2"
    KDPM2_ANCESTRAL = "kdpm2_ancestral"
    DEIS = "deis"
    LCM = "lcm"
    TCD = "tcd"


class SigmaSpacing(Enum):
    """How the noise levels of a schedule are spaced."""

    DEFAULT = "default"
    KARRAS = "karras"
    EXPONENTIAL = "exponential"
    BETA = "beta"


_ALL_SPACINGS = frozenset(SigmaSpacing)
_DEFAULT_SPACING = frozenset({SigmaSpacing.DEFAULT})

# The spacings that each scheduler can use; a test compares it with what diffusers' classes take.
SUPPORTED_SPACINGS: Mapping[Scheduler, frozenset[SigmaSpacing]] = {
    Scheduler.EULER: _ALL_SPACINGS,
    Scheduler.EULER_ANCESTRAL: _DEFAULT_SPACING,
    Scheduler.HEUN: _ALL_SPACINGS,
    Scheduler.DDIM: _DEFAULT_SPACING,
    Scheduler.DDPM: _DEFAULT_SPACING,
    Scheduler.PNDM: _DEFAULT_SPACING,
    Scheduler.LMS: _ALL_SPACINGS,
    Scheduler.DPMPP_2M: _ALL_SPACINGS,
    Scheduler.DPMPP_2M_SDE: _ALL_SPACINGS,
    Scheduler.DPMPP_SDE: _ALL_SPACINGS,
    Scheduler.UNIPC: _ALL_SPACINGS,
    Scheduler.KDPM2: _ALL_SPACINGS,
    Scheduler.KDPM2_ANCESTRAL: _ALL_SPACINGS,
    Scheduler.DEIS: _ALL_SPACINGS,
    Scheduler.LCM: _DEFAULT_SPACING,
    Scheduler.TCD: _DEFAULT_SPACING,
}


class PreviewKind(Enum):
    """What a preview holds."""

    NONE = "none"
    PICTURE = "picture"
    LATENT = "latent"
    DECODED = "decoded"


@dataclass(frozen=True, slots=True)
class Picture:
    """Decoded pixels, row-major, 8 bits each: `len(data) == width * height * channels`.

    `channels` is 3 (RGB) for images and 1 (grey) for masks.
    """

    width: int
    height: int
    channels: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image file and what it holds. `media_type` is `image/png`, `image/jpeg` or `image/webp`."""

    data: bytes = field(repr=False)
    media_type: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class LatentArray:
    """A latent as it travels: float16 little endian, `[channels, height, width]`, row-major."""

    channels: int
    height: int
    width: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LoraRef:
    """One LoRA of a task, by exactly one of `name`, `sha256` (lower-case hex) or `content`."""

    strength: float
    text_encoder_strength: float
    name: str = ""
    sha256: str = ""
    content: bytes = field(default=b"", repr=False)
    strict: bool = False

    @property
    def label(self) -> str:
        """What to call it in messages."""
        return self.name or self.sha256[:12] or "(inline)"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to denoise; every default is filled in."""

    steps: int
    guidance_scale: float
    scheduler: Scheduler
    sigma_spacing: SigmaSpacing
    seed: int
    image_count: int = 1
    clip_skip: int = 0


@dataclass(frozen=True, slots=True)
class PreviewOptions:
    """When to send previews and of what. `max_side` 0 is the latent's own size."""

    kind: PreviewKind = PreviewKind.NONE
    every_n_steps: int = 1
    max_side: int = 0


@dataclass(frozen=True, slots=True)
class Output:
    """How to send the finished images."""

    media_type: str = "image/png"
    quality: int = 90
    preview: PreviewOptions = PreviewOptions()
    omit_metadata: bool = False


@dataclass(frozen=True, slots=True)
class MaskOptions:
    """How to use a mask. `crop_padding` None redraws the whole picture."""

    blur: float = 0.0
    crop_padding: int | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One valid request with every default resolved. `model` is the name of a loaded model.

    `width` and `height` are pixels, multiples of 8. `image` (RGB) is set for transform and inpaint, at
    its own size; `mask` (grey, as large as `image`) for inpaint. `strength` is 1 for generate.
    """

    kind: TaskKind
    request_id: str
    model: str
    prompt: str
    negative_prompt: str
    loras: tuple[LoraRef, ...]
    sampling: Sampling
    output: Output
    width: int
    height: int
    image: Picture | None = None
    mask: Picture | None = None
    strength: float = 1.0
    mask_options: MaskOptions = MaskOptions()

    @property
    def step_count(self) -> int:
        """Steps that will run: the share `strength` of the schedule, rounded down as diffusers does."""
        return min(int(self.sampling.steps * self.strength), self.sampling.steps)


@dataclass(frozen=True, slots=True)
class LoraReport:
    """What one LoRA did to the model; see `LoraReport` of the contract."""

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


@dataclass(frozen=True, slots=True)
class Preview:
    """One image's preview: a small encoded picture or the predicted clean latent."""

    image_index: int
    content: EncodedImage | LatentArray


@dataclass(frozen=True, slots=True)
class Accepted:
    """The task is queued behind `queue_position` others."""

    queue_position: int
    task: Task


@dataclass(frozen=True, slots=True)
class Prepared:
    """The LoRA set is fused and the prompt encoded. `fuse_seconds` is 0 for a cached set."""

    loras: tuple[LoraReport, ...] = ()
    lora_set_id: str = ""
    lora_set_cached: bool = False
    fuse_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Step `step` (from 1) of `step_count` is done; `timestep` is the scheduler's, 0 to 999."""

    step: int
    step_count: int
    timestep: float
    elapsed_seconds: float
    remaining_seconds: float
    previews: tuple[Preview, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageReady:
    """Image `index` of the task, drawn from `seed`."""

    index: int
    seed: int
    image: EncodedImage


@dataclass(frozen=True, slots=True)
class Finished:
    """Every image was sent; where the time went, in seconds."""

    queued_seconds: float
    prepared_seconds: float
    denoised_seconds: float
    decoded_seconds: float
    largest_batch: int


Event = Accepted | Prepared | Progress | ImageReady | Finished


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that tasks can name, and its defaults.

    `base` is `sd15`, `sd2`, `sdxl` or `embedded`. `latent_rgb_factors` is `[latent_channels][3]` and maps a
    latent to RGB in [-1, 1] together with `latent_rgb_bias`.
    """

    name: str
    base: str
    title: str
    description: str
    width: int
    height: int
    steps: int
    guidance_scale: float
    scheduler: Scheduler
    is_inpainting: bool
    latent_channels: int
    vae_scale_factor: int
    prediction_type: str
    text_encoder_layers: int
    latent_rgb_factors: tuple[tuple[float, float, float], ...]
    latent_rgb_bias: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ModelState:
    """A configured model and its weights: `dtype` is the UNet's, as `float32`, `float16` or `bfloat16`.

    `size_bytes` is what the weights take in memory, or took when they were there last; 0 until they were
    loaded once.
    """

    info: ModelInfo
    dtype: str
    resident: bool
    size_bytes: int


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """The engine's load at one moment. `prompts` and `prompt_bytes` are of the encoded prompts kept."""

    ready: bool
    running: int
    queued: int
    rows_per_call: float
    steps_per_second: float
    lora_sets: int
    lora_set_bytes: int
    fuse_count: int
    jobs_finished: int
    prompts: int = 0
    prompt_bytes: int = 0
