"""The engine's load."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sdgrpc.domain.blocks import NO_WEIGHTS, BlockWeights


@dataclass(frozen=True, slots=True)
class ResidentLora:
    """A member of a fused set."""

    sha256: str
    strength: float
    text_encoder_strength: float
    block_weights: BlockWeights = NO_WEIGHTS


@dataclass(frozen=True, slots=True)
class ResidentSet:
    """A fused LoRA set in memory; one that is in use will not be evicted."""

    set_id: str
    model: str
    size_bytes: int
    in_use: bool
    loras: tuple[ResidentLora, ...]


class ReplicaState(Enum):
    """Whether an engine of several takes jobs."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One engine of several: where it runs, and its load. `node` is the address of its machine."""

    name: str
    state: ReplicaState = ReplicaState.STARTING
    node: str = ""
    process_id: int = 0
    running: int = 0
    queued: int = 0
    lora_sets: int = 0
    lora_set_bytes: int = 0
    steps_per_second: float = 0.0
    jobs_finished: int = 0


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """The engine's load at one moment. `prompts` and `prompt_bytes` are of the encoded prompts kept.

    `estimated_wait_seconds` is until a job sent now would begin. `lora_set_budget_bytes` is what the sets of
    one model may take.

    `wanted_sets` are the ids of sets that are not in memory and that jobs wait for, `max_sets` how many sets
    of the mean size there is room for. `heartbeat_seconds` is how long ago a thread of the engine that works
    last gave a sign of life. `replicas` are the engines that this one is the sum of, if it is one.
    """

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
    queue_size: int = 0
    estimated_wait_seconds: float = 0.0
    lora_set_budget_bytes: int = 0
    resident_sets: tuple[ResidentSet, ...] = ()
    lora_set_hits: int = 0
    lora_set_misses: int = 0
    lora_set_evictions: int = 0
    wanted_sets: tuple[str, ...] = ()
    max_sets: int = 0
    heartbeat_seconds: float = 0.0
    replicas: tuple[ReplicaStatus, ...] = ()
