"""UNet calls on a GPU: compiled blocks and recorded graphs beside the eager call."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.compiling.calls import UNetInputs, call_unet
from sdgrpc.diffusion.compiling.evaluator import Evaluator
from sdgrpc.diffusion.compiling.options import CompileOptions
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


@torch.inference_mode()
def test_compiled_blocks_predict_as_the_eager_call(folder: Path, device: torch.device) -> None:
    """With the pristine weights and with a LoRA set that is switched to; inductor compiles."""
    if (folder / "model/text_encoder_2").exists():
        pytest.skip("one structure will do: compiling takes long")
    model = load("tiny", folder / "model", device=device, dtype=torch.float32)
    served = ServedModel.of(model, lora_cache_bytes=1 << 30, options=DeviceOptions(compile="blocks"))
    asked = inputs(model, 2)
    torch.testing.assert_close(served.evaluator(asked), call_unet(model.unet, asked))
    served.evaluator.wait()
    assert [shape.rows for shape in served.evaluator.ready] == [2]
    predicts_with_sets(served, served.evaluator, LoraLibrary([folder]), rows=(1, 2))
    served.restore()


@torch.inference_mode()
def test_recorded_graphs_predict_as_the_eager_call(folder: Path, device: torch.device) -> None:
    """For row counts between powers of two, and with each LoRA set that is switched to meanwhile."""
    if device.type != "cuda":
        pytest.skip("graphs are CUDA's")
    model = load("tiny", folder / "model", device=device, dtype=torch.float32)
    options = DeviceOptions(compile="off", resident_factors="on")
    served = ServedModel.of(model, lora_cache_bytes=1 << 30, options=options)
    evaluator = Evaluator(model.unet, CompileOptions("graphs"), backend="eager")
    for rows in (2, 3):
        evaluator(inputs(model, rows))
    evaluator.wait()
    assert [shape.rows for shape in evaluator.ready] == [2, 4]
    predicts_with_sets(served, evaluator, LoraLibrary([folder]), rows=(2, 3))
    evaluator.close()
    served.restore()


def predicts_with_sets(
    served: ServedModel, evaluator: Evaluator, library: LoraLibrary, rows: tuple[int, ...]
) -> None:
    """Compare with the eager call on the weights of each set, and the sets with each other."""
    before = None
    for name in ("lora0", "lora1"):
        ref = LoraRef(name=name, strength=1.0)
        with served.sets.acquire([(library.find(ref), ref)]) as lease:
            served.use("unet", lease)
            for count in rows:
                asked = inputs(served.model, count)
                fast, eager = evaluator(asked).clone(), call_unet(served.model.unet, asked)
                torch.testing.assert_close(fast, eager, rtol=2e-3, atol=2e-3)  # TF32 where cuDNN likes it
        assert before is None or not torch.allclose(fast, before, atol=1e-3)
        before = fast


@torch.inference_mode()
def test_graphs_are_bounded(folder: Path, device: torch.device) -> None:
    """The one used longest ago goes, and is recorded again when it is asked for again."""
    if device.type != "cuda":
        pytest.skip("graphs are CUDA's")
    model = load("tiny", folder / "model", device=device, dtype=torch.float32)
    evaluator = Evaluator(model.unet, CompileOptions("graphs", max_graphs=1), backend="eager")
    for rows in (1, 2, 1):
        asked = inputs(model, rows)
        evaluator(asked)
        evaluator.wait()
        assert [shape.rows for shape in evaluator.ready] == [rows]
        torch.testing.assert_close(evaluator(asked), call_unet(model.unet, asked), rtol=2e-3, atol=2e-3)
    evaluator.close()
