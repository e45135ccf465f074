"""The engine's load."""

from __future__ import annotations

from dataclasses import dataclass


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
