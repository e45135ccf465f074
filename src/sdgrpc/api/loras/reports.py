"""What LoRAs did, as it is sent."""

from __future__ import annotations

from sdgrpc import domain
from sdgrpc.api.loras.block_weights import told
from sdgrpc.api.loras.steps import step_ranges
from sdgrpc.v1 import diffusion_pb2 as pb


def lora_report(report: domain.LoraReport) -> pb.LoraReport:
    """What one LoRA file did to the model."""
    return pb.LoraReport(
        name=report.name,
        sha256=report.sha256,
        algorithms=report.algorithms,
        modules=report.modules,
        unmatched_tensors=report.unmatched_tensors,
        unmatched_examples=report.unmatched_examples,
        relative_norm=report.relative_norm,
        strength=report.strength,
        text_encoder_strength=report.text_encoder_strength,
        warnings=report.warnings,
        block_weights=told(report.block_weights),
        steps=step_ranges(report.steps),
        start=report.start,
        end=report.end,
    )
