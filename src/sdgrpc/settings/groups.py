"""Every setting: its name, type, default and description, in groups that help and docs/settings.md show.

A new setting is one line here or in `groups_serving.py`: `name: Kind = Field(default, description="…")`,
with a kind of `kinds.py` that checks one value. It is then a flag of `serve`, a variable, a key of the TOML
file and an entry of docs/settings.md (`make gen` writes it). Where None is the default, `Unset` says in words
what that means. What several settings must satisfy together stands in `Settings`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from sdgrpc.embedded import EMBEDDED
from sdgrpc.settings.groups_serving import (
    ClusterSettings,
    ConnectionSettings,
    ObservingSettings,
    ServingSettings,
    TlsSettings,
    TokenSettings,
)
from sdgrpc.settings.kinds import (
    GIB,
    KIB,
    MIB,
    Area,
    Bytes,
    BytesOrNone,
    Count,
    CountOrNone,
    Device,
    ExistingFolders,
    Factor,
    Folder,
    Models,
    Rows,
    Seconds,
    Side,
    Sizes,
    Strength,
    TinyVaes,
    Unset,
    Upscalers,
    Vaes,
)

ROWS_PER_CALL = 8


class ModelSettings(BaseModel):
    """Models."""

    model: Models = Field(
        [EMBEDDED],
        description="A diffusers folder, a .safetensors file, a hub's owner/name, or `embedded`; repeat it.",
    )
    vae: Annotated[Vaes | None, Unset("each model's own")] = Field(
        None,
        description="A VAE of its own for a model, which needs none then: a folder or a .safetensors file; "
        "repeat it.",
    )
    tiny_vae: Annotated[TinyVaes | None, Unset("none")] = Field(
        None,
        description="A tiny decoder (AutoencoderTiny, TAESD) for a model's previews and fast pictures: "
        "a folder, a .safetensors file, a hub's owner/name, or `embedded` for that model's own; repeat it.",
    )
    upscaler: Annotated[Upscalers | None, Unset("none")] = Field(
        None,
        description="A network that enlarges pictures, of ESRGAN's kind or another that spandrel knows: a "
        ".safetensors or .pth file, for Upscale and second passes; repeat it (extra [upscale]).",
    )
    tokenizer: Annotated[Folder | None, Unset("the folder `tokenizer` beside the file")] = Field(
        None, description="A folder with CLIP's vocabulary, for models in single files."
    )
    resident_models: Count = Field(
        1, description="Models in memory at a time; the others are loaded when a request names them."
    )
    cache_dir: Annotated[Folder | None, Unset("computed at each start")] = Field(
        None, description="Keep the models' hashes in this folder, which is made if it is missing."
    )
    device: Device = Field("auto", description="What to compute on; auto takes a GPU where there is one.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto",
        description="The type of the weights; auto is bfloat16 where the device is fast with it, else "
        "float16 on GPUs and float32 on CPUs, and float32 for small models.",
    )
    compile: Literal["auto", "off", "blocks", "graphs"] = Field(
        "auto",
        description="UNets as they are (off), with compiled blocks, or compiled whole as CUDA graphs: "
        "fastest, and what auto is on CUDA. A size's first pictures are drawn without.",
    )
    compile_size: Annotated[Sizes | None, Unset("each model's own")] = Field(
        None,
        description="What is compiled as soon as a model is loaded, for one guided picture; other sizes are "
        "when they are first drawn; repeat it.",
    )
    compile_graphs: Count = Field(
        16, description="CUDA graphs kept for each model: one for each size and number of rows."
    )
    compile_graph_bytes: Bytes = Field(
        8 * GIB, description="Memory for what CUDA graphs compute in, for each model."
    )


class LoraSettings(BaseModel):
    """LoRA files."""

    lora_dir: Annotated[ExistingFolders | None, Unset("the embedded model's")] = Field(
        None, description="LoRA files, those of sub-folders included; repeat it."
    )
    embedding_dir: Annotated[ExistingFolders | None, Unset("none")] = Field(
        None,
        description="Textual inversions (safetensors), those of sub-folders included, whose names are words "
        "of prompts; repeat it.",
    )
    follow_links: bool = Field(
        False,
        description="Take what links in a lora_dir or embedding_dir lead to outside of it, as those of a "
        "hub's cache do; without it such files and folders are left out, and logged.",
    )
    lora_cache_bytes: BytesOrNone = Field(2 * GIB, description="Memory for fused LoRA sets, for each model.")
    prefetch: bool = Field(
        True,
        description="Read the LoRA files of jobs that wait beside the steps of others, at most 256 MiB of "
        "them, so that a job's turn begins with fusing.",
    )
    resident_factors: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Keep LoRA files' factors on the device and multiply sets from them, instead of fused "
        "sets; auto: on CUDA. Takes a second UNet's memory and its text encoders'.",
    )
    lora_factor_bytes: Bytes = Field(4 * GIB, description="Memory for such factors, for each model.")
    max_loras: CountOrNone = Field(16, description="LoRA files of one request.")
    lora_strength_min: Strength = Field(0.0, description="The least strength of a LoRA.")
    lora_strength_max: Strength = Field(1.0, description="The greatest strength of a LoRA.")
    upload_dir: Annotated[Folder | None, Unset("no uploads")] = Field(
        None, description="Let clients upload LoRA files, and keep them in this folder of its own."
    )
    upload_budget_bytes: Bytes = Field(
        10 * GIB, description="What uploads may take; the longest unused go first."
    )
    max_upload_bytes: Bytes = Field(GIB, description="The largest file that can be uploaded.")
    min_upload_bytes_per_second: BytesOrNone = Field(
        16 * KIB, description="How slowly an upload may come, over all and after a minute; 0 is no bound."
    )
    allow_inline_loras: bool = Field(False, description="Take LoRA files in requests.")
    max_inline_lora_bytes: Bytes = Field(256 * MIB, description="LoRA files in one request, all together.")


class DrawingSettings(BaseModel):
    """Drawing."""

    queue_size: Count = Field(64, description="Jobs that may wait; further ones are refused.")
    max_running_jobs: Count = Field(16, description="Jobs that are drawn side by side.")
    batching: bool = Field(True, description="Let jobs share UNet calls.")
    max_rows_per_call: Rows = Field(
        [str(ROWS_PER_CALL)],
        description="Rows of a UNet call, for every model or for one; guidance takes two a picture; "
        "repeat it.",
    )
    next_call: Literal["least_work", "least_slack", "oldest"] = Field(
        "least_work",
        description="Whose UNet call is next: of the jobs that can still be done by their deadlines, the one "
        "with the least work left or with the least slack; or the oldest of all.",
    )
    max_wait_calls: Count = Field(
        8,
        description="Calls of others that a job may have to sit out, or one round of all running jobs where "
        "that is longer.",
    )
    hang_timeout: Seconds = Field(
        60.0,
        description="A call of the device that has not returned by then, and by hang_factor times the "
        "longest of its kind, ends the server with status 70; 0 waits for ever.",
    )
    hang_factor: Factor = Field(10.0, description="See hang_timeout.")
    prompt_cache_bytes: BytesOrNone = Field(64 * MIB, description="Memory for encoded prompts.")


class KeepingSettings(BaseModel):
    """Jobs that outlive their connection."""

    keep_seconds: Seconds = Field(
        300.0, description="How long a job that was sent to be kept can be found again once it ended."
    )
    keep_bytes: BytesOrNone = Field(
        GIB,
        description="Memory for the events of such jobs, pictures included; those that ended first are "
        "forgotten first, and 0 keeps none.",
    )


class RequestLimits(BaseModel):
    """Limits of a request."""

    max_steps: Count = Field(150, description="Denoising steps.")
    max_side: Side = Field(4096, description="The longer side of a drawn picture.")
    max_pixels: Area = Field(2048 * 2048, description="Width times height of a drawn picture.")
    max_image_count: Count = Field(8, description="Pictures of one request.")
    max_prompt_chars: Count = Field(4000, description="Characters of a prompt.")
    max_image_bytes: Bytes = Field(32 * MIB, description="The file of a picture or mask that is sent.")
    max_image_pixels: Count = Field(32 * MIB, description="Width times height of a picture that is sent.")
    max_image_side: Side = Field(16384, description="The longer side of a picture that is sent.")
    image_read_timeout: Seconds = Field(
        20.0, description="How long a picture that is sent may take to be decoded."
    )
    body_budget_bytes: Bytes = Field(
        GIB, description="Memory for requests and the pictures in them, of all calls."
    )
    receive_timeout: Seconds = Field(60.0, description="How long a request may take to come whole.")
    write_timeout: Seconds = Field(30.0, description="How long an event may wait for its reader.")
    undelivered_budget_bytes: Bytes = Field(
        GIB, description="Finished pictures that may wait for their readers before jobs are refused."
    )


GROUPS: tuple[type[BaseModel], ...] = (
    ServingSettings,
    ObservingSettings,
    TlsSettings,
    TokenSettings,
    ConnectionSettings,
    ClusterSettings,
    ModelSettings,
    LoraSettings,
    DrawingSettings,
    KeepingSettings,
    RequestLimits,
)
