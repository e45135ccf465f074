"""An engine on a tiny random model, with two LoRA files."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.options import EngineOptions, LoopOptions
from sdgrpc.lora.dialects.adapt import read_adapter
from sdgrpc.lora.store.library import LoraLibrary
from tests.support.models import save_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Model:
    """A random model of SD1's structure."""
    folder = save_model(tmp_path_factory.mktemp("tiny"))
    return load("tiny", folder, device=torch.device("cpu"), dtype=None)


@pytest.fixture(scope="session")
def lora_dir(tmp_path_factory, tiny_model) -> Path:
    """Two files that change every query projection of the UNet and the text encoder, strongly."""
    folder = tmp_path_factory.mktemp("loras")
    for seed, name in enumerate(("one", "two")):
        generator = torch.Generator().manual_seed(seed)
        tensors: dict[str, torch.Tensor] = {}
        for prefix, module in (
            ("lora_unet", tiny_model.unet),
            ("lora_te", tiny_model.text_encoders["text_encoder"]),
        ):
            for path, layer in module.named_modules():
                if path.endswith(("to_q", "q_proj")):
                    key = f"{prefix}_{path.replace('.', '_')}"
                    if prefix == "lora_te" and not path.startswith("text_model"):
                        key = f"lora_te_text_model_{path.replace('.', '_')}"
                    rows, columns = layer.weight.shape
                    tensors[f"{key}.lora_down.weight"] = torch.randn(4, columns, generator=generator)
                    tensors[f"{key}.lora_up.weight"] = torch.randn(rows, 4, generator=generator)
                    tensors[f"{key}.alpha"] = torch.tensor(2.0)
        save_file(tensors, folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def open_tiny(tiny_model, lora_dir):
    """A context manager that opens an engine with the given loop options and closes it."""

    @asynccontextmanager
    async def opened(
        *,
        lora_cache_bytes: int = 64 << 20,
        prompt_cache_bytes: int = 1 << 20,
        loras: Path = lora_dir,
        **options,
    ):
        engine = LocalEngine(
            [tiny_model],
            LoraLibrary([loras]),
            EngineOptions(LoopOptions(**options), lora_cache_bytes, prompt_cache_bytes),
        )
        try:
            yield engine
        finally:
            await engine.close()

    return opened


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The names of the files that are read, one after the other."""
    names: list[str] = []

    def counted(source, name, *rest, **options):
        names.append(name)
        return read_adapter(source, name, *rest, **options)

    monkeypatch.setattr("sdgrpc.lora.store.contents.read_adapter", counted)
    return names
