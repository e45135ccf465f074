"""How models use their device, from the settings to pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sdgrpc
from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.domain import LoraRef
from sdgrpc.embedded import EMBEDDED
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.models.device_options import DeviceOptions
from sdgrpc.engine.models.served_model import ServedModel
from sdgrpc.engine.options import EngineOptions
from sdgrpc.errors import ModelError
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
