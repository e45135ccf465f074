"""What bounds an engine; every number is the operator's to choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from sdgrpc.engine.models.device_options import DeviceOptions
from sdgrpc.settings import ROWS_PER_CALL, Settings


def default(name: str) -> Any:  # noqa: ANN401 - as the setting's annotation says
    """The default that the settings say."""
    return Settings.model_fields[name].default


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """Bounds of the engine.

    `queue_size` jobs may wait; at most `max_running_jobs` are stepping at a time; a UNet call has at most
    `max_rows_per_call` rows (guidance takes two per image, and each further part of a prompt one), or for a
    model in `rows_by_model` as many as that says; `next_call` says whose it is, a job waits for at most
    `max_wait_calls` of others: StepScheduler.

    Of each caller with a name at most `max_running_jobs_per_token` jobs run and `max_queued_jobs_per_token`
    wait; None is as many as there is room for.
    """

    queue_size: int = default("queue_size")
    max_running_jobs: int = default("max_running_jobs")
    max_rows_per_call: int = ROWS_PER_CALL
    rows_by_model: Mapping[str, int] = field(default_factory=dict)
    next_call: Literal["least_work", "least_slack", "oldest"] = default("next_call")
    max_wait_calls: int = default("max_wait_calls")
    batching: bool = default("batching")
    max_running_jobs_per_token: int | None = default("max_running_jobs_per_token")
    max_queued_jobs_per_token: int | None = default("max_queued_jobs_per_token")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The loop's bounds, the bytes that fused LoRA sets, per model, and encoded prompts may take, and more.

    `resident_models` is how many of the models that were not given loaded may be in memory at a time. A call
    of the device that has not returned after `hang_factor` times the longest of its shape, and not before
    `hang_timeout` seconds, hangs, which ends the engine; with a timeout of 0 nothing counts as that. Models'
    hashes are kept in `cache_dir`. `device` is how models use it. With `prefetch` the LoRA files of jobs that
    wait are read before their turn.
    """

    loop: LoopOptions = field(default_factory=LoopOptions)
    lora_cache_bytes: int = default("lora_cache_bytes")
    prompt_cache_bytes: int = default("prompt_cache_bytes")
    prefetch: bool = default("prefetch")
    max_upload_bytes: int = default("max_upload_bytes")
    undelivered_budget_bytes: int = default("undelivered_budget_bytes")
    resident_models: int = default("resident_models")
    cache_dir: Path | None = None
    hang_timeout: float = default("hang_timeout")
    hang_factor: float = default("hang_factor")
    device: DeviceOptions = field(default_factory=DeviceOptions)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take each bound from the setting of its name."""
        loop = LoopOptions(
            **_of_their_names(LoopOptions, settings, but=("max_rows_per_call", "rows_by_model")),
            max_rows_per_call=settings.rows_per_call,
            rows_by_model=settings.rows_by_model,
        )
        device = DeviceOptions(**_of_their_names(DeviceOptions, settings, but=()))
        return cls(loop=loop, device=device, **_of_their_names(cls, settings, but=("loop", "device")))


def _of_their_names(options: type[Any], settings: Settings, *, but: tuple[str, ...]) -> dict[str, Any]:
    names = {one.name for one in fields(options)} & Settings.model_fields.keys() - set(but)
    return {name: getattr(settings, name) for name in names}


DEFAULT_OPTIONS = EngineOptions()
