"""UNet calls on a GPU: compiled blocks and recorded graphs beside the eager call."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.compiling.calls import UNetInputs, call_unet
from sdgrpc.diffusion.model import Model
from sdgrpc.domain import LoraRef
from sdgrpc.engine.models.device_options import DeviceOptions
from sdgrpc.engine.models.served_model import ServedModel
from sdgrpc.lora.store.library import LoraLibrary


def inputs(model: Model, rows: int, side: int = 8) -> UNetInputs:
    """Random inputs of a call."""
    torch.manual_seed(rows)
    config, device, dtype = model.unet.config, model.device, model.dtype
    pooled = time_ids = None
    if model.is_sdxl:
        pooled = torch.randn(rows, model.text_encoders["text_encoder_2"].config.projection_dim)
        pooled, time_ids = pooled.to(device, dtype), torch.full((rows, 6), 64.0, device=device)
    return UNetInputs(
        torch.randn(rows, 4, side, side).to(device, dtype),
        torch.linspace(100, 900, rows).to(device),
        torch.randn(rows, 77, config.cross_attention_dim).to(device, dtype),
        pooled,
        time_ids,
    )


@pytest.mark.parametrize("mode", ["blocks", "graphs"])
@torch.inference_mode()
def test_a_ready_call_predicts_as_the_eager_one(folder: Path, device: torch.device, mode) -> None:
    """For row counts between powers of two, and with each LoRA set that is switched to meanwhile."""
    if mode == "graphs" and device.type != "cuda":
        pytest.skip("graphs are CUDA's")
    model = load("tiny", folder / "model", device=device, dtype=torch.float32)
    served = ServedModel.of(model, lora_cache_bytes=1 << 30, options=DeviceOptions(compile=mode))
    library = LoraLibrary([folder])
    for rows in (2, 3):
        asked = inputs(model, rows)
        torch.testing.assert_close(served.evaluator(asked), call_unet(model.unet, asked))
        served.evaluator.wait()
    assert [shape.rows for shape in served.evaluator.ready] == [2, 4]
    before = None
    for name in ("lora0", "lora1"):
        ref = LoraRef(name=name, strength=1.0)
        with served.sets.acquire([(library.find(ref), ref)]) as lease:
            served.use("unet", lease)
            for rows in (2, 3):
                asked = inputs(model, rows)
                fast, eager = served.evaluator(asked).clone(), call_unet(model.unet, asked)
                torch.testing.assert_close(fast, eager, rtol=2e-3, atol=2e-3)  # TF32 where cuDNN likes it
        assert before is None or not torch.allclose(fast, before, atol=1e-2)
        before = fast
    served.restore()


@torch.inference_mode()
def test_graphs_are_bounded(folder: Path, device: torch.device) -> None:
    """The one used longest ago goes, and is recorded again when it is asked for again."""
    if device.type != "cuda":
        pytest.skip("graphs are CUDA's")
    model = load("tiny", folder / "model", device=device, dtype=torch.float32)
    options = DeviceOptions(compile="graphs", compile_graphs=1)
    served = ServedModel.of(model, lora_cache_bytes=1 << 30, options=options)
    for rows in (1, 2, 1):
        asked = inputs(model, rows)
        served.evaluator(asked)
        served.evaluator.wait()
        assert [shape.rows for shape in served.evaluator.ready] == [rows]
        torch.testing.assert_close(
            served.evaluator(asked), call_unet(model.unet, asked), rtol=2e-3, atol=2e-3
        )
    served.restore()
