"""What bounds an engine; every number is the operator's to choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """Bounds of the engine.

    `queue_size` jobs may wait; at most `max_running_jobs` are stepping at a time; a UNet call has at most
    `max_rows_per_call` rows (guidance takes two per image), or for a model in `rows_by_model` as many as that
    says; a job waits for at most `max_wait_calls` calls of others, see StepScheduler.
    """

    queue_size: int = 64
    max_running_jobs: int = 16
    max_rows_per_call: int = 8
    rows_by_model: Mapping[str, int] = field(default_factory=dict)
    max_wait_calls: int = 8
    batching: bool = True


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The loop's bounds, the bytes that fused LoRA sets, per model, and encoded prompts may take, and more.

    `resident_models` is how many of the models that were not given loaded may be in memory at a time.
    """

    loop: LoopOptions = field(default_factory=LoopOptions)
    lora_cache_bytes: int = 2 << 30
    prompt_cache_bytes: int = 64 << 20
    max_upload_bytes: int = 1 << 30
    resident_models: int = 1


DEFAULT_OPTIONS = EngineOptions()
