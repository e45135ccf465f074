"""Alphas that stand in the header alone, in single keys."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from sdgrpc.lora.dialects.keys import parse
from sdgrpc.lora.dialects.peft import METADATA_KEY, PeftConfig
from sdgrpc.lora.files.reading import TensorFile
from sdgrpc.lora.headers.flat import number, said_true

UNET, TEXT, TEXT_2 = "unet.down_blocks.0.a", "text_encoder.text_model.a", "text_encoder_2.text_model.a"
KOHYA, KOHYA_TEXT = "lora_unet_down_blocks_0_a", "lora_te_text_model_a"
RANK = 4


def factors(spelling: str, *, kernel: tuple[int, ...] = ()) -> dict[str, Tensor]:
    names = ("lora_down", "lora_up") if spelling.startswith("lora_") else ("lora_A", "lora_B")
    shapes = ((RANK, 6, *kernel), (5, RANK, *(1 for _ in kernel)))
    return {f"{spelling}.{name}.weight": torch.ones(shape) for name, shape in zip(names, shapes, strict=True)}


def scale(
    metadata: dict[str, str],
    spelling: str = UNET,
    extra: dict[str, Tensor] | None = None,
    **kernel: tuple[int, ...],
) -> float:
    """The scale that a file's one module is applied with: the change of ones, over the rank."""
    (module,) = parse(TensorFile("x", "", factors(spelling, **kernel) | (extra or {}), metadata)).modules
    assert module.algorithm.factors is not None
    up, down = module.algorithm.factors(module.tensors)
    return float((up @ down)[0, 0]) / RANK


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, 1.0),
        ({"lora_alpha": "8", "r": "4"}, 2.0),
        ({"lora_alpha": "8"}, 2.0),
        ({"unet.lora_alpha": "8", "unet.r": "4"}, 2.0),
        ({"unet_lora_alpha": "8"}, 2.0),
        ({"unet.lora_alpha": "8", "lora_alpha": "1"}, 2.0),
        ({"text_encoder.lora_alpha": "8"}, 1.0),
        ({"text_encoder.lora_alpha": "8", "unet.lora_alpha": "2"}, 0.5),
        ({"network_alpha": "2"}, 0.5),
        ({"ss_network_alpha": "2.0", "ss_network_dim": "4"}, 0.5),
        ({"unet.network_alpha": "2"}, 0.5),
        ({"lora_alpha": "8", "use_rslora": "True"}, 4.0),
        ({"alpha": "8", "r": "4"}, 2.0),
        ({"alpha": "8"}, 1.0),
        ({"ss_network_alpha": "Dynamic", "ss_network_dim": "Dynamic"}, 1.0),
        ({"lora_alpha": "inf"}, 1.0),
        ({"lora_alpha": "1e999"}, 1.0),
        ({"lora_alpha": ""}, 1.0),
    ],
)
@pytest.mark.parametrize("spelling", [UNET, KOHYA])
def test_alpha_of_a_header(metadata: dict[str, str], expected: float, spelling: str) -> None:
    """Alpha / r, of the module's component where it has its own; what is no number is none."""
    assert scale(metadata, spelling) == expected


def test_a_pattern_in_a_header() -> None:
    """Modules may have their own, as in PEFT's configuration."""
    assert scale({"lora_alpha": "8", "alpha_pattern": '{"down_blocks.0.a": 2}'}) == 0.5


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        (UNET, 2.0),
        (TEXT, 0.5),
        (TEXT_2, 0.25),
        (KOHYA, 2.0),
        (KOHYA_TEXT, 0.5),
        ("lora_te2_text_model_a", 0.25),
    ],
)
def test_each_component_has_its_own(spelling: str, expected: float) -> None:
    """Whatever dialect the module is spelled in."""
    metadata = {"unet.lora_alpha": "8", "text_encoder.lora_alpha": "2", "text_encoder_2.lora_alpha": "1"}
    assert scale(metadata, spelling) == expected


def test_what_goes_before_the_header() -> None:
    """An alpha in the file, or what diffusers wrote as one map."""
    assert scale({"lora_alpha": "8"}, KOHYA, {f"{KOHYA}.alpha": torch.tensor(4.0)}) == 1.0
    blob = {METADATA_KEY: json.dumps({"unet.lora_alpha": 12})}
    assert scale({"lora_alpha": "8", **blob}) == 3.0


def test_the_header_goes_before_the_configuration_beside() -> None:
    """The file's own word counts more than a neighbour's."""
    beside = PeftConfig({"": {"lora_alpha": 16}})
    names = factors("base_model.model.a")
    alphas = [
        parse(TensorFile("x", "", names, metadata), beside).modules[0].alpha
        for metadata in ({}, {"lora_alpha": "8"})
    ]
    assert alphas == [16.0, 8.0]


@pytest.mark.parametrize(
    ("args", "module", "expected"),
    [
        ({"conv_dim": "4", "conv_alpha": "2"}, "networks.lora", 0.5),
        ({"conv_dim": "4"}, "networks.lora", 0.25),
        ({"conv_dim": "4"}, "lycoris.kohya", 2.0),
        ({}, "networks.lora", 2.0),
    ],
)
def test_convolutions_of_kohyas_trainers(args: dict[str, str], module: str, expected: float) -> None:
    """Those wider than 1x1 have an alpha of their own, 1 where only their rank was given."""
    metadata = {"ss_network_alpha": "8", "ss_network_module": module, "ss_network_args": json.dumps(args)}
    assert scale(metadata, KOHYA, kernel=(3, 3)) == expected
    assert scale(metadata, KOHYA, kernel=(1, 1)) == 2.0


def test_a_scale_that_is_told_is_no_guess() -> None:
    """Nobody is warned of a missing alpha then."""
    for metadata, missing in (({}, True), ({"ss_network_alpha": "8"}, False)):
        (module,) = parse(TensorFile("x", "", factors(KOHYA), metadata)).modules
        assert module.misses_alpha == missing


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("8", 8.0),
        (" 8.5 ", 8.5),
        (8, 8.0),
        ("x", None),
        (True, None),
        (None, None),
        ("nan", None),
        (math.inf, None),
        (10**400, None),
    ],
)
def test_numbers(value: object, expected: float | None) -> None:
    """Finite ones, as text or JSON."""
    assert number(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [("True", True), (True, True), ("1", True), ("no", False), (0, False)]
)
def test_yes(value: object, expected: bool) -> None:
    """As tools write it."""
    assert said_true(value) == expected
