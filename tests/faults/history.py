"""What happened to jobs, as clients saw it, and the model that every history must fit.

After etcd's robustness tests: traffic and faults first, while everything is recorded; then the record is
checked, without looking at the server any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sdgrpc.v1 import diffusion_pb2 as pb

# Which reasons a call may end with, by what was done to it.
ENDS = {
    "draw": {"OK", "OUT_OF_MEMORY", "INTERNAL", "QUEUE_FULL"},
    "cancel": {"CANCELLED", "OUT_OF_MEMORY", "INTERNAL", "QUEUE_FULL"},
    "reset": {"CANCELLED"},
    "hurry": {"OK", "DEADLINE_EXCEEDED", "DEADLINE_TOO_SOON", "OUT_OF_MEMORY", "INTERNAL", "QUEUE_FULL"},
    "nonsense": {"INVALID_REQUEST", "QUEUE_FULL"},  # whether there is room is asked before a request is read
    "unknown": {"LORA_NOT_FOUND", "QUEUE_FULL"},
    "linger": {"OK", "OUT_OF_MEMORY", "INTERNAL", "QUEUE_FULL"},
}


@dataclass
class Record:
    """One call: what was asked, what was done to it, when which events came, and how it ended."""

    key: str
    action: str
    request: pb.GenerateRequest
    events: list[tuple[float, pb.JobEvent]] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    ended: float = 0.0

    def images(self) -> list[bytes]:
        """The files that came."""
        return [event.image.image.data for _, event in self.events if event.HasField("image")]


def faults_of(record: Record) -> list[str]:
    """Say in what a call's events are no prefix of the grammar with one end that fits what was done to it."""
    faults = []
    events = [event for _, event in record.events]
    kinds = [event.WhichOneof("event") for event in events]
    if not _is_prefix(kinds, events):
        faults.append(f"no prefix of the grammar: {kinds}")
    if [event.sequence for event in events] != list(range(len(events))):
        faults.append("the sequence has gaps")
    if len({event.request_id for event in events}) > 1:
        faults.append("events of another job")
    if len(record.ends) != 1:
        faults.append(f"ended {len(record.ends)} times")
    elif record.ends[0] not in ENDS[record.action]:
        faults.append(f"{record.action} ended with {record.ends[0]}")
    if (kinds[-1:] == ["finished"]) != (record.ends == ["OK"]) and record.action not in ("cancel", "reset"):
        faults.append(f"ended with {record.ends} after {kinds[-1:]}")
    return [f"{record.key}: {fault}" for fault in faults]


def _is_prefix(kinds: Sequence[str | None], events: Sequence[pb.JobEvent]) -> bool:
    """`accepted prepared progress* image* finished`, cut anywhere; steps count up to the number announced."""
    order = ["accepted", "prepared", "progress", "image", "finished"]
    places = [order.index(str(kind)) for kind in kinds]
    if places != sorted(places) or any(
        kinds.count(once) > 1 for once in ("accepted", "prepared", "finished")
    ):
        return False
    if places and set(range(max(places) + 1)) - set(places):
        return False
    steps = [event.progress.step for event in events if event.HasField("progress")]
    indices = [event.image.index for event in events if event.HasField("image")]
    if steps != list(range(1, len(steps) + 1)) or indices != list(range(len(indices))):
        return False
    return not indices or len(steps) == events[0].accepted.step_count
