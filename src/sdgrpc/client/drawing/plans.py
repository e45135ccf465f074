"""What a request would do, asked without drawing it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration

from sdgrpc.client.drawing.blocks import steps_told, told
from sdgrpc.client.drawing.calls import DrawingCalls
from sdgrpc.client.events import Accepted, accepted
from sdgrpc.client.requests import Drawn, Options
from sdgrpc.domain import PlannedLora
from sdgrpc.domain.decimals import shortest
from sdgrpc.v1 import catalog_pb2 as pb
from sdgrpc.v1 import diffusion_pb2

_FIELDS = {
    diffusion_pb2.GenerateRequest: "generate",
    diffusion_pb2.TransformRequest: "transform",
    diffusion_pb2.InpaintRequest: "inpaint",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job would be told, what it would find, and how long it would take; nothing is held for it.

    A seed that was left open is in `accepted.sampling`; send it to draw what was planned. Seconds are None
    where no job of its model and size was measured lately. `memory_bytes` is needed beside what is in memory.
    """

    accepted: Accepted
    unet_steps: int
    guided_steps: int
    loras: tuple[PlannedLora, ...]
    lora_set_id: str
    lora_set_resident: bool
    model_resident: bool
    estimated_wait_seconds: float
    estimated_steps_seconds: float | None
    estimated_decoding_seconds: float | None
    memory_bytes: int


class Plans(DrawingCalls[Plan]):
    """`generate`, `transform` and `inpaint` as of a client; each returns the plan of what would be drawn."""

    def __init__(self, ask: Callable[[pb.PlanJobRequest, float | None], pb.PlanJobResponse]) -> None:
        self._ask = ask

    def _send(self, request: Drawn, options: Options) -> Plan:
        return plan(self._ask(plan_request(request), options.get("timeout")))


class AsyncPlans(DrawingCalls[Awaitable[Plan]]):
    """As `Plans`; each call is awaited."""

    def __init__(
        self, ask: Callable[[pb.PlanJobRequest, float | None], Awaitable[pb.PlanJobResponse]]
    ) -> None:
        self._ask = ask

    async def _plan(self, request: Drawn, timeout: float | None) -> Plan:  # noqa: ASYNC109 - a gRPC deadline
        return plan(await self._ask(plan_request(request), timeout))

    def _send(self, request: Drawn, options: Options) -> Awaitable[Plan]:
        return self._plan(request, options.get("timeout"))


def plan_request(request: Drawn) -> pb.PlanJobRequest:
    """Build a request."""
    inside: dict[str, Any] = {_FIELDS[type(request)]: request}
    return pb.PlanJobRequest(**inside)


def plan(message: pb.PlanJobResponse) -> Plan:
    """Decode a message."""
    return Plan(
        accepted=accepted(message.accepted),
        unet_steps=message.unet_steps,
        guided_steps=message.guided_steps,
        loras=tuple(map(_lora, message.loras)),
        lora_set_id=message.lora_set_id,
        lora_set_resident=message.lora_set_resident,
        model_resident=message.model_resident,
        estimated_wait_seconds=message.estimated_wait.ToNanoseconds() / 1e9,
        estimated_steps_seconds=_seconds(message.estimated_steps, known=message.HasField("estimated_steps")),
        estimated_decoding_seconds=_seconds(
            message.estimated_decoding, known=message.HasField("estimated_decoding")
        ),
        memory_bytes=message.memory_bytes,
    )


def _seconds(duration: Duration, *, known: bool) -> float | None:
    return duration.ToNanoseconds() / 1e9 if known else None


def _lora(message: pb.PlannedLora) -> PlannedLora:
    return PlannedLora(
        name=message.name,
        sha256=message.sha256,
        strength=shortest(message.strength),
        text_encoder_strength=shortest(message.text_encoder_strength),
        refusal=message.refusal,
        warnings=tuple(message.warnings),
        block_weights=told(message.block_weights),
        steps=steps_told(message),
    )
