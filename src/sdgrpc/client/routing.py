"""What calls tell of themselves so that a proxy before several servers can bring them where they belong.

`x-sdgrpc-lora-set` is the same for calls that use the same LoRA set: a proxy that hashes it sends them to the
server that has the set fused. `x-sdgrpc-job` is the same for all calls about a kept job, which one server
keeps. Servers read neither. docs/scaling.md has the functions, tests/contract/routing.json examples.

Envoy decides, not this: `deploy/envoy/routes.yaml` hashes these headers, `servers.yaml` has the ring. One
server whose engine has many replicas decides itself, by `sdgrpc.engine.cluster.routing`.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable

from sdgrpc.v1 import catalog_pb2, jobs_pb2
from sdgrpc.v1 import diffusion_pb2 as pb

LORA_SET, JOB = "x-sdgrpc-lora-set", "x-sdgrpc-job"

_FORM = "sdgrpc lora set 1"
_DIGITS = 32
_TAG = re.compile(r"<lora:([^>]*)>")
_DRAWN = pb.GenerateRequest | pb.TransformRequest | pb.InpaintRequest


def routing(request: object) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call with this request; none for calls that any server answers alike."""
    found = []
    if isinstance(request, _DRAWN):
        found.append((LORA_SET, lora_set_id(request.model, request.loras, request.prompt)))
        keeps = request.on_disconnect == pb.ON_DISCONNECT_KEEP
        found.append((JOB, job_id(request.request_id) if keeps else ""))
    elif isinstance(request, catalog_pb2.PlanJobRequest):
        drawn = getattr(request, request.WhichOneof("request") or "generate")
        found.append((LORA_SET, lora_set_id(drawn.model, drawn.loras, drawn.prompt)))
    elif isinstance(request, catalog_pb2.PrepareLorasRequest):
        found.append((LORA_SET, lora_set_id(request.model, request.loras)))
    elif isinstance(request, jobs_pb2.AttachJobRequest | jobs_pb2.CancelJobRequest):
        found.append((JOB, job_id(request.request_id)))
    return tuple((name, value) for name, value in found if value)


def lora_set_id(model: str, loras: Iterable[pb.Lora], prompt: str = "") -> str:
    """Return 32 hex digits that depend on the model, the LoRAs and their strengths; empty without LoRAs.

    The order of `loras` has no meaning, and the `<lora:…>` tags of `prompt` count by their text.
    """
    lines = [_line(lora) for lora in loras]
    lines += [f"tag {tag}".encode() for tag in _TAG.findall(prompt)]
    if not lines:
        return ""
    return _hash(b"\n".join([_FORM.encode(), model.encode(), *sorted(lines)]))


def job_id(request_id: str) -> str:
    """Return 32 hex digits that depend on the id of a kept job; empty without one."""
    return _hash(request_id.encode()) if request_id else ""


def _line(lora: pb.Lora) -> bytes:
    strength = lora.strength if lora.HasField("strength") else 1.0
    text_encoder = lora.text_encoder_strength if lora.HasField("text_encoder_strength") else strength
    return f"{_bits(strength)} {_bits(text_encoder)} {_blocks(lora)}{_source(lora)}".encode()


def _blocks(lora: pb.Lora) -> str:
    """Strengths by block by their text; nothing where there are none."""
    if not lora.HasField("block_weights"):
        return ""
    weights = lora.block_weights
    numbers = [_bits(value) for value in weights.values]
    numbers += sorted(f"{name}*{_bits(value)}" for name, value in weights.blocks.items())
    return f"lbw {weights.preset} {','.join(numbers)} "


def _source(lora: pb.Lora) -> str:
    match lora.WhichOneof("source"):
        case "name":
            return f"name {lora.name.removesuffix('.safetensors')}"
        case "sha256":
            return f"sha256 {lora.sha256.lower()}"
        case "safetensors":
            return f"sha256 {hashlib.sha256(lora.safetensors).hexdigest()}"
    return "name "


def _bits(value: float) -> str:
    return struct.pack(">f", value).hex()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
