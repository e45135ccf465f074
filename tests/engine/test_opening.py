"""An engine opened from settings."""

from __future__ import annotations

import asyncio
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.engine.opening import choose_device, choose_dtype, open_engine
from sdgrpc.engine.options import LoopOptions
from sdgrpc.settings import Settings
from tests.support.assets import LORAS
from tests.support.models import save_model
from tests.support.original import save_original
from tests.support.published import save_published


def test_open_engine_warms_up(tmp_path):
    """An engine opened from settings has drawn its first step and knows its model by name."""
    save_model(tmp_path / "mine")
    engine = open_engine(Settings(model=[f"mine={tmp_path / 'mine'}"], device="cpu"))
    try:
        assert engine.status().ready
        assert [info.name for info in engine.models] == ["mine"]
    finally:
        asyncio.run(engine.close())


def test_the_settings_reach_the_loop(tmp_path):
    """Every bound of the engine is the operator's to choose, the most rows by model too."""
    save_model(tmp_path / "mine")
    settings = Settings(
        model=[f"mine={tmp_path / 'mine'}"],
        device="cpu",
        queue_size=3,
        max_running_jobs=2,
        max_rows_per_call=["6", "mine=4"],
        max_wait_calls=5,
        batching=False,
    )
    engine = open_engine(settings)
    try:
        expected = LoopOptions(
            queue_size=3,
            max_running_jobs=2,
            max_rows_per_call=6,
            rows_by_model={"mine": 4},
            max_wait_calls=5,
            batching=False,
        )
        assert engine.loop_options == expected
    finally:
        asyncio.run(engine.close())


def test_a_single_file_gets_its_vocabulary_from_the_settings(tmp_path):
    """`tokenizer` names the folder with CLIP's vocabulary for models in single files."""
    folder = save_published(tmp_path / "folder", "sd15", inpainting=False)
    whole = load("whole", folder, device=torch.device("cpu"), dtype=None)
    path = save_original(whole, tmp_path / "mine.safetensors")
    engine = open_engine(Settings(model=[str(path)], tokenizer=folder / "tokenizer", device="cpu"))
    try:
        assert [info.name for info in engine.models] == ["mine"]
    finally:
        asyncio.run(engine.close())


def test_devices_and_dtypes_by_name():
    """`auto` leaves the dtype to the model and takes some device that is there."""
    assert choose_dtype("auto") is None
    assert choose_dtype("bfloat16") is torch.bfloat16
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in {"cpu", "cuda", "mps"}


def test_models_and_links_as_the_settings_say(tmp_path: Path) -> None:
    """`vae` gives a file that has none one of its own, `follow_links` the LoRA files behind links."""
    folder = save_published(tmp_path / "folder", "sd15", inpainting=False)
    whole = load("whole", folder, device=torch.device("cpu"), dtype=None)
    path = save_original(whole, tmp_path / "mine.safetensors")
    tensors = {key: one.clone() for key, one in load_file(path).items() if not key.startswith("first_stage")}
    save_file(tensors, tmp_path / "bare.safetensors")
    loras = tmp_path / "loras"
    loras.mkdir()
    (loras / "behind.safetensors").symlink_to(LORAS / "sepia.safetensors")
    settings = Settings(
        model=[f"bare={tmp_path / 'bare.safetensors'}"],
        tokenizer=folder / "tokenizer",
        vae=[f"bare={folder / 'vae'}"],
        lora_dir=[loras],
        follow_links=True,
        device="cpu",
    )
    engine = open_engine(settings)
    try:
        assert [info.name for info in engine.models] == ["bare"]
        assert [entry.name for entry in engine.library.entries()] == ["behind"]
    finally:
        asyncio.run(engine.close())
