"""Factors that started from the base's weights are no difference from it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from sdgrpc.errors import LoraUnsupported
from sdgrpc.lora.dialects.keys import parse
from sdgrpc.lora.dialects.peft import METADATA_KEY, PeftConfig
from sdgrpc.lora.files.reading import TensorFile
from sdgrpc.lora.headers.initialization import FROM_WEIGHTS

PLAIN = {"a.lora_A.weight": torch.ones(2, 4), "a.lora_B.weight": torch.ones(3, 2)}
KOHYA = {"a.lora_down.weight": torch.ones(2, 4), "a.lora_up.weight": torch.ones(3, 2)}
REFUSED = {
    "pissa": "PiSSA",
    "pissa_niter_16": "PiSSA",
    "PiSSA": "PiSSA",
    "olora": "OLoRA",
    "OLoRA": "OLoRA",
    "corda": "CorDA",
    "lora_ga": "LoRA-GA",
    "loftq": "LoftQ",
    "urae": "is not known",
}
HARMLESS: list[Any] = [
    True,
    False,
    None,
    "gaussian",
    "Gaussian",
    "orthogonal",
    "eva",
    "mica",
    "true",
    "kaiming_uniform",
]


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    """In the configuration beside, in diffusers' map and in single keys, for all or for one component."""
    spelled = json.dumps({"lora_alpha": 4, "init_lora_weights": name})
    files = [
        ({}, PeftConfig.from_json(spelled)),
        ({}, PeftConfig.from_json(json.dumps({"init_lora_weights": name}))),
        ({METADATA_KEY: json.dumps({"unet.init_lora_weights": name})}, None),
        ({"init_lora_weights": name}, None),
        ({"text_encoder.init_lora_weights": name}, None),
    ]
    for metadata, config in files:
        with pytest.raises(LoraUnsupported, match="convert it to a plain LoRA first") as caught:
            parse(TensorFile("x", "", PLAIN, metadata), config)
        assert REFUSED[name] in caught.value.message
        assert name in caught.value.message


@pytest.mark.parametrize("name", HARMLESS, ids=str)
def test_what_leaves_the_base_alone(name: object) -> None:
    """Every other initialization of PEFT begins with a difference of nothing."""
    config = PeftConfig.from_json(json.dumps({"lora_alpha": 4, "init_lora_weights": name}))
    assert parse(TensorFile("x", "", PLAIN, {}), config).modules[0].alpha == 4
    assert parse(TensorFile("x", "", PLAIN, {"init_lora_weights": str(name)})).modules


def test_a_neighbour_says_nothing_of_kohyas_tensors() -> None:
    """A configuration beside a file is for PEFT's names."""
    config = PeftConfig.from_json(json.dumps({"lora_alpha": 4, "init_lora_weights": "pissa"}))
    assert parse(TensorFile("x", "", KOHYA, {}), config).modules


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"alora_invocation_tokens": [1, 2]}, "aLoRA"),
        ({"use_qalora": True}, "QALoRA"),
        ({"kasa_config": {"beta": 1}}, "KaSA"),
        ({"use_bdlora": {"nblocks": 2}}, "BD-LoRA"),
    ],
)
def test_variants_of_pefts_lora(values: dict[str, object], words: str) -> None:
    """What makes another algorithm of the same tensors is refused by its name."""
    config = PeftConfig.from_json(json.dumps({"lora_alpha": 4} | values))
    with pytest.raises(LoraUnsupported, match=words):
        parse(TensorFile("x", "", PLAIN, {}), config)


@pytest.mark.parametrize("name", ["pissa", "pissa_niter_4", "olora", "orthogonal", "gaussian", True, "mica"])
def test_peft_changes_the_base_where_it_is_refused(name: Any) -> None:
    """What is refused is what PEFT itself takes out of the base's weights."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 8, bias=False)
    before = layer.weight.detach().clone()
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["a"], init_lora_weights=name)
    model = get_peft_model(nn.Sequential(nn.ModuleDict({"a": layer})), config)
    kept = torch.equal(model.base_model.model[0]["a"].base_layer.weight, before)
    assert kept == (not str(name).startswith(tuple(FROM_WEIGHTS)))
