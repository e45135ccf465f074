"""The load of many engines as that of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from sdgrpc.domain import EngineStatus, ModelState, ReplicaState, ReplicaStatus
from sdgrpc.engine.cluster.replica import Report

COUNTERS = ("fuse_count", "jobs_finished", "lora_set_hits", "lora_set_misses", "lora_set_evictions")
"""What only grows."""
LISTS = ("resident_sets", "wanted_sets", "replicas")


def summed(all_of: Sequence[EngineStatus]) -> EngineStatus:
    """Add what can be added.

    Rows a call are the mean of those that make calls, the wait is that at the best replica, and the sign of
    life that of the quietest.
    """
    values: dict[str, object] = {}
    for name in (field.name for field in fields(EngineStatus)):
        each = [getattr(status, name) for status in all_of]
        if name == "ready":
            values[name] = any(each)
        elif name == "rows_per_call":
            calling = [value for value in each if value]
            values[name] = sum(calling) / len(calling) if calling else 0.0
        elif name == "estimated_wait_seconds":
            values[name] = min(each, default=0.0)
        elif name == "heartbeat_seconds":
            values[name] = max(each, default=0.0)
        elif name in LISTS:
            values[name] = tuple(dict.fromkeys(one for value in each for one in value))
        else:
            values[name] = sum(each)
    return EngineStatus(**values)  # type: ignore[arg-type]  # its own fields


def counted(status: EngineStatus, past: EngineStatus) -> EngineStatus:
    """Add what engines that are gone had counted."""
    return replace(status, **{name: getattr(status, name) + getattr(past, name) for name in COUNTERS})


def models_of(states: Sequence[Sequence[ModelState]]) -> Sequence[ModelState]:
    """Tell of each model whether one engine has it in memory, as that one tells."""
    return [max(each, key=lambda state: state.resident) for each in zip(*states, strict=True)]


def replica_status(name: str, report: Report | None, *, draining: bool) -> ReplicaStatus:
    """Tell of one replica, by its last report; there is none of one that starts."""
    if report is None:
        return ReplicaStatus(name)
    now = report.status
    return ReplicaStatus(
        name,
        ReplicaState.DRAINING if draining else ReplicaState.READY,
        report.node,
        report.process_id,
        now.running,
        now.queued,
        now.lora_sets,
        now.lora_set_bytes,
        now.steps_per_second,
        now.jobs_finished,
    )
