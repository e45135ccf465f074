"""What a task would do, told without drawing it."""

from __future__ import annotations

from dataclasses import dataclass

from sdgrpc.domain.blocks import NO_WEIGHTS, BlockWeights
from sdgrpc.domain.phases import StepRange
from sdgrpc.domain.tasks import Task


@dataclass(frozen=True, slots=True)
class PlannedLora:
    """A LoRA of a task, found; `refusal` says why the model cannot take it, and is empty if it can."""

    name: str
    sha256: str
    strength: float
    text_encoder_strength: float
    refusal: str = ""
    warnings: tuple[str, ...] = ()
    block_weights: BlockWeights = NO_WEIGHTS
    steps: tuple[StepRange, ...] = ()


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What a task would do if it came now; see `PlanJobResponse` of the contract.

    `step_seconds` and `decoding_seconds` are None where no job of its model and size was measured lately.
    `memory_bytes` is what it needs beside what is in memory already.
    """

    task: Task
    queue_position: int
    unet_steps: int
    guided_steps: int
    loras: tuple[PlannedLora, ...] = ()
    lora_set_id: str = ""
    lora_set_resident: bool = False
    model_resident: bool = True
    wait_seconds: float = 0.0
    step_seconds: float | None = None
    decoding_seconds: float | None = None
    memory_bytes: int = 0
