"""How models use their device, from the settings to pictures."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch

import sdgrpc
from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.compiling.evaluator import Evaluator
from sdgrpc.domain import LoraRef
from sdgrpc.embedded import EMBEDDED
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.models.device_options import DeviceOptions
from sdgrpc.engine.models.served_model import ServedModel
from sdgrpc.engine.options import EngineOptions
from sdgrpc.errors import ModelError, SettingsError
from sdgrpc.lora.store.library import LoraLibrary
from sdgrpc.settings import Settings
from tests.engine.test_agreement import image_of
from tests.engine.test_local import pixels, run
from tests.support.tasks import task

LORAS = Path(sdgrpc.__file__).parent / "assets/tiny/loras"


@pytest.mark.parametrize(
    ("device", "given", "mode", "resident"),
    [
        ("cpu", {}, "off", False),
        ("cuda", {}, "graphs", True),
        ("mps", {}, "off", False),
        ("cpu", {"compile": "blocks", "resident_factors": "on"}, "blocks", True),
        ("cuda", {"compile": "off", "resident_factors": "off"}, "off", False),
        ("cuda", {"compile": "graphs", "resident_factors": "off"}, "graphs", True),
    ],
)
def test_what_is_chosen_for_a_device(device, given, mode, resident):
    """`auto` is off but on CUDA; graphs bring the live weights that they need."""
    chosen = DeviceOptions(**given).on(device)
    assert chosen is not None
    assert (chosen.compiling.mode, chosen.resident_factors) == (mode, resident)


def test_sizes_are_compiled_once_a_model_is_loaded(monkeypatch):
    """The model's own, or those that are named; for one guided picture, and nobody waits."""
    begun = []
    monkeypatch.setattr(Evaluator, "begin", lambda _, inputs: begun.append(inputs.shape))
    model = load("tiny", EMBEDDED, device=torch.device("cpu"), dtype=None)
    for sizes in (None, ["64x128", "128x64"]):
        options = DeviceOptions(compile="blocks", compile_size=sizes)
        ServedModel.of(model, lora_cache_bytes=0, options=options).restore()
    own = (model.info.height // 8, model.info.width // 8)
    assert [(shape.rows, shape.sample[1:], shape.tokens) for shape in begun] == [
        (2, own, 77),
        (2, (16, 8), 77),
        (2, (8, 16), 77),
    ]


def test_a_warm_up_compiles_nothing(monkeypatch):
    """Its size is nobody's."""
    asked = []
    monkeypatch.setattr(
        Evaluator, "__call__", lambda self, inputs: asked.append(inputs) or self._eager(inputs)
    )

    async def warmed() -> None:
        model = load("tiny", EMBEDDED, device=torch.device("cpu"), dtype=None)
        engine = LocalEngine([model], LoraLibrary([]))
        try:
            await engine.warm_up()
            assert not asked
            await run(engine, task(steps=1))
            assert asked
        finally:
            await engine.close()

    asyncio.run(warmed())


@pytest.mark.parametrize("size", ["512", "512x", "513x512", "0x8", "512X512", "99999x8"])
def test_a_size_that_is_none_is_named(size):
    """The message says what one is."""
    with pytest.raises(
        SettingsError, match=r"compile_size.*not WIDTHxHEIGHT in pixels, each a multiple of 8"
    ):
        Settings.load(compile_size=[size])


def test_graphs_need_cuda():
    """The failure names the setting, the model, its device and what to do."""
    model = load("tiny", EMBEDDED, device=torch.device("cpu"), dtype=None)
    with pytest.raises(ModelError, match=r"--compile graphs needs a CUDA device.*'tiny'.*cpu; use"):
        ServedModel.of(model, lora_cache_bytes=0, options=DeviceOptions(compile="graphs"))


def test_options_come_from_settings():
    """Each from the setting of its name."""
    settings = Settings(compile="blocks", compile_graphs=3, resident_factors="on", lora_factor_bytes=5 << 20)
    made = EngineOptions.of(settings).device
    assert (made.compile, made.compile_graphs) == ("blocks", 3)
    assert (made.resident_factors, made.lora_factor_bytes) == ("on", 5 << 20)


async def test_pictures_of_resident_factors_are_those_of_fused_sets():
    """One set after the other within 1 of 255; and without a set the very bytes."""
    drawn = {}
    names = ("night", "outline")
    for resident in ("off", "on"):
        model = load("tiny", EMBEDDED, device=torch.device("cpu"), dtype=torch.float32)
        options = EngineOptions(device=DeviceOptions(resident_factors=resident))
        engine = LocalEngine([model], LoraLibrary([LORAS]), options)
        asked = [task(loras=(LoraRef(name=name),), steps=6, width=128, height=128) for name in names]
        asked.append(task(steps=6, width=128, height=128))
        try:
            drawn[resident] = [image_of(await run(engine, one)) for one in asked]
        finally:
            await engine.close()
    differences = [
        float(np.abs(pixels(one).astype(float) - pixels(other)).max())
        for one, other in zip(drawn["off"], drawn["on"], strict=True)
    ]
    assert max(differences) <= 1
    assert drawn["off"][-1] == drawn["on"][-1]
    assert len(set(drawn["on"])) == len(drawn["on"])
