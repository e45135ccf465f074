"""OFTv2 as PEFT's configuration says: the length of the series, the exact map, constrained rotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import OFTConfig, get_peft_model
from torch import nn

from sdgrpc.lora.algorithms.oftv2 import oft2_size
from sdgrpc.lora.algorithms.tensors import BadTensors
from sdgrpc.lora.dialects.keys import parse
from sdgrpc.lora.dialects.peft import MAX_CAYLEY_TERMS, METADATA_KEY, PeftConfig
from sdgrpc.lora.files.reading import TensorFile
from sdgrpc.lora.fusing.changes import weight_change
from sdgrpc.lora.store.library import LoraLibrary
from tests.support.loras import ref, to_file

OUT, IN, BLOCK = 8, 12, 4
SETTINGS: list[dict[str, Any]] = [
    {},
    {"block_share": True},
    *({"num_cayley_neumann_terms": terms} for terms in range(9)),
    {"use_cayley_neumann": False},
    {"use_cayley_neumann": False, "num_cayley_neumann_terms": 2},
    {"coft": True},
    {"coft": True, "eps": 0.7},
    {"coft": True, "eps": 0.7, "block_share": True, "use_cayley_neumann": False},
]


def layer_of(kernel: int | None) -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(IN, OUT, kernel, bias=False) if kernel else nn.Linear(IN, OUT, bias=False)


def saved_by_peft(kernel: int | None, settings: dict[str, Any]) -> tuple[dict[str, torch.Tensor], str, Any]:
    """Tensors and configuration of a random adapter in PEFT's names, and the model that computes with it."""
    settings = {"oft_block_size": BLOCK, "r": 0, "init_weights": False, "target_modules": ["a"]} | settings
    config = OFTConfig(**settings)
    model = get_peft_model(nn.Sequential(nn.ModuleDict({"a": layer_of(kernel)})), config).double()
    packed = model.base_model.model[0].a.oft_R["default"].weight
    packed.data = (
        torch.randn(packed.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 0.2
    )
    state = {
        key.replace(".default", ""): value.detach().clone()
        for key, value in model.state_dict().items()
        if "oft_R" in key
    }
    return state, json.dumps(config.to_dict(), default=list), model


@pytest.mark.parametrize("kernel", [None, 3])
@pytest.mark.parametrize("settings", SETTINGS, ids=json.dumps)
def test_configured_rotations_are_pefts(kernel: int | None, settings: dict[str, Any]) -> None:
    """The change is that of PEFT's merged layer, which is never none."""
    weight = layer_of(kernel).weight.detach().double()
    state, text, model = saved_by_peft(kernel, settings)
    (source,) = parse(TensorFile("x", "", state, {}), PeftConfig.from_json(text)).modules
    change = weight_change(source, weight.flatten(1), tuple(weight.shape), torch.float64)
    merged = model.merge_and_unload()[0]["a"].weight.detach()
    torch.testing.assert_close(weight + change.view_as(weight), merged, rtol=1e-6, atol=1e-7)
    assert source.fits(tuple(weight.shape))
    is_identity = settings.get("num_cayley_neumann_terms", 5) < 2 and "use_cayley_neumann" not in settings
    assert bool(change.any()) != is_identity


def test_the_exact_map_turns_the_other_way() -> None:
    """PEFT's exact rotation is the transpose of what its series tends to, so reading the flag matters."""
    state, text, _ = saved_by_peft(None, {"num_cayley_neumann_terms": 60})
    config = json.loads(text)

    def turned(**changes: Any) -> torch.Tensor:
        found = PeftConfig.from_json(json.dumps(config | changes))
        (source,) = parse(TensorFile("x", "", state, {}), found).modules
        identity = torch.eye(IN, dtype=torch.float64)
        return identity + weight_change(source, identity, (IN, IN), torch.float64)

    series, exact = turned(), turned(use_cayley_neumann=False)
    torch.testing.assert_close(series, exact.T)
    assert (series - exact).abs().max() > 0.1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {}),
        ({"use_cayley_neumann": True}, {}),
        ({"num_cayley_neumann_terms": -3}, {"cayley_terms": 1}),
        ({"num_cayley_neumann_terms": 10**9}, {"cayley_terms": MAX_CAYLEY_TERMS}),
        ({"num_cayley_neumann_terms": "7", "use_cayley_neumann": 0}, {}),
        ({"num_cayley_neumann_terms": True, "coft": 1}, {}),
        ({"coft": True}, {"coft_eps": 6e-5}),
        ({"coft": True, "eps": None}, {"coft_eps": 6e-5}),
        ({"coft": False, "eps": 1.0}, {}),
    ],
)
def test_settings_that_are_none(values: dict[str, Any], expected: dict[str, float]) -> None:
    """What is not said, or is no number, leaves PEFT's default; no file may ask for endless work."""
    config = PeftConfig.from_json(json.dumps({"peft_type": "OFT"} | values))
    assert config is not None
    found = config.rotation("base_model.model.a")
    assert {role: value.item() for role, value in found.items()} == pytest.approx(expected)


def test_the_configuration_beside_a_file_and_in_it(tmp_path: Path) -> None:
    """`adapter_config.json` is read for an OFT too, and the file's own metadata goes before it."""
    state, text, _ = saved_by_peft(None, {"use_cayley_neumann": False})
    path = to_file(tmp_path / "a" / "turned.safetensors", state)
    path.with_name("adapter_config.json").write_text(text)
    flat = {METADATA_KEY: json.dumps({"num_cayley_neumann_terms": 7})}
    to_file(tmp_path / "a" / "own.safetensors", state, flat)
    library = LoraLibrary([tmp_path])
    terms = {
        name: library.find(ref(name=f"a/{name}")).adapter().modules[0].tensors["cayley_terms"].item()
        for name in ("turned", "own")
    }
    assert terms == {"turned": 0, "own": 7}


def test_blocks_that_are_none() -> None:
    """Seven numbers are no upper half of a square."""
    with pytest.raises(BadTensors, match="7 numbers"):
        oft2_size({"oft_R": torch.ones(2, 7)})
