"""PEFT's configuration of an adapter."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from torch import nn
from torch.nn.functional import conv2d, linear

from sdgrpc.errors import LoraUnsupported
from sdgrpc.lora.dialects.keys import parse
from sdgrpc.lora.dialects.peft import METADATA_KEY, PeftConfig
from sdgrpc.lora.files.reading import TensorFile
from sdgrpc.lora.fusing.changes import change_norm, weight_change

PREFIX = "base_model.model."


def alpha(values: dict[str, object], spelling: str = f"{PREFIX}a.to_q", rank: int = 4) -> float | None:
    config = PeftConfig.from_json(json.dumps(values))
    found = config.alpha(spelling, rank) if config else None
    return None if found is None else found.item()


@pytest.mark.parametrize("use_rslora", [False, True])
def test_the_scale_is_pefts(use_rslora: bool) -> None:
    """The change is that of PEFT's merged layer: rsLoRA, and one module with its own alpha and rank."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(6, 5), "b": nn.Linear(6, 5)})
    model.forward = lambda x: x
    before = {name: layer.weight.detach().clone() for name, layer in model.items()}
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["a", "b"],
        alpha_pattern={"b": 3},
        rank_pattern={"b": 2},
        use_rslora=use_rslora,
        init_lora_weights=False,
    )
    wrapped = get_peft_model(model, config)
    state = {
        key.replace(".default", ""): value.detach().clone()
        for key, value in wrapped.state_dict().items()
        if "lora_" in key
    }
    values = PeftConfig.from_json(json.dumps(config.to_dict(), default=list))
    adapter = parse(TensorFile("x", "", state, {}), values)
    merged = wrapped.merge_and_unload()
    for module in adapter.modules:
        name = module.spelling.removeprefix(PREFIX)
        up, down = module.algorithm.factors(module.tensors)  # type: ignore[misc]
        torch.testing.assert_close(before[name] + up @ down, merged[name].weight.detach())


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kernel", [None, 1, 3])
def test_a_layer_computes_what_pefts_does(kernel: int | None, strength: float) -> None:
    """With W + s dW a linear layer or a convolution gives what PEFT's unmerged layer gives, scaled by s.

    PEFT takes s into DoRA's norm and scales no OFT, so those two are compared at strength 1 only.
    """
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 5, kernel) if kernel else nn.Linear(6, 5)
    weight, x = layer.weight.detach().double(), torch.randn((2, 6, 5, 5) if kernel else (3, 6)).double()
    config = LoraConfig(r=2, lora_alpha=3, target_modules=["a"], init_lora_weights=False)
    model = get_peft_model(nn.Sequential(nn.ModuleDict({"a": layer})), config).double()
    wrapped = model.base_model.model[0]["a"]
    wrapped.set_scale("default", strength)
    state = {
        key.replace(".default", ""): value.detach().clone()
        for key, value in model.state_dict().items()
        if "lora_" in key
    }
    values = PeftConfig.from_json(json.dumps(config.to_dict(), default=list))
    (source,) = parse(TensorFile("x", "", state, {}), values).modules
    change = weight_change(source, None, tuple(weight.shape), torch.float64).view_as(weight)
    changed = weight + strength * change
    bias = layer.bias.detach()
    ours = conv2d(x, changed, bias) if kernel else linear(x, changed, bias)
    torch.testing.assert_close(ours, wrapped(x).detach())
    assert change.norm() > 0.1 * weight.norm()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lora_alpha": 8}, 8.0),
        ({"lora_alpha": 8, "use_rslora": True}, 16.0),
        ({"lora_alpha": 8, "alpha_pattern": {"to_q": 2}}, 2.0),
        ({"lora_alpha": 8, "alpha_pattern": {"a.to_q": 2}}, 2.0),
        ({"lora_alpha": 8, "alpha_pattern": {"^a.to_q": 2}}, 2.0),
        ({"lora_alpha": 8, "alpha_pattern": {"o_q": 2, "to_k": 3}}, 8.0),
        ({"lora_alpha": 8, "alpha_pattern": {"to_q": 2, "a.to_q": 3}}, 2.0),
        ({"lora_alpha": 8, "alpha_pattern": {r"a\.to_q$": 2}}, 2.0),
        ({"lora_alpha": 8, "alpha_pattern": [1]}, 8.0),
        ({"lora_alpha": "8"}, None),
        ({"lora_alpha": True}, None),
        ({"r": 4}, None),
    ],
)
def test_alpha_of_a_module(values: dict[str, object], expected: float | None) -> None:
    """Patterns are names, compared from the end, of which the first counts; what is no number is none."""
    assert alpha(values) == expected


@pytest.mark.parametrize("pattern", ["(a+)+$", ".*attn2.*", "to_[qk]"])
def test_a_pattern_that_is_no_name_is_refused(pattern: str) -> None:
    """Expressions from strangers are not run, and no alpha is guessed: the pattern is named."""
    config = PeftConfig({"": {"lora_alpha": 8, "alpha_pattern": {pattern: 2}}})
    tensors = {"a.to_q.lora_A.weight": torch.ones(4, 2), "a.to_q.lora_B.weight": torch.ones(3, 4)}
    with pytest.raises(LoraUnsupported, match="is no module's name; it is not run") as caught:
        parse(TensorFile("x", "", tensors, {}), config)
    assert pattern in caught.value.message


LYCORIS = {
    "loha": LoHaConfig(r=3, alpha=5, init_weights=False, use_effective_conv2d=True),
    "lokr": LoKrConfig(r=2, alpha=5, init_weights=False, use_effective_conv2d=True),
    "lokr, both factored": LoKrConfig(r=2, alpha=5, init_weights=False, decompose_both=True),
    "lokr, both whole": LoKrConfig(r=40, alpha=5, init_weights=False),
    "patterns": LoKrConfig(r=40, alpha=5, init_weights=False, alpha_pattern={"a": 7}, rank_pattern={"a": 30}),
}


@pytest.mark.parametrize("kernel", [None, 1, 3])
@pytest.mark.parametrize("name", LYCORIS)
@pytest.mark.parametrize("ending", ["", ".default"])
def test_loha_and_lokr_are_pefts(name: str, kernel: int | None, ending: str) -> None:
    """The change is what PEFT merges, with its alpha and rank from the configuration, and so is its norm."""
    torch.manual_seed(0)
    layer = nn.Conv2d(24, 32, kernel) if kernel else nn.Linear(24, 32)
    before = layer.weight.detach().double()
    config = copy.deepcopy(LYCORIS[name])
    config.target_modules = ["a"]
    model = get_peft_model(nn.Sequential(nn.ModuleDict({"a": layer})), config).double()
    state = {
        key.removesuffix(".default") + ending: value.detach().clone()
        for key, value in model.state_dict().items()
        if "hada_" in key or "lokr_" in key
    }
    values = PeftConfig.from_json(json.dumps(config.to_dict(), default=list))
    (source,) = parse(TensorFile("x", "", state, {}), values).modules
    assert source.spelling == f"{PREFIX}0.a"
    expected = model.merge_and_unload()[0]["a"].weight.detach() - before
    shape = tuple(before.shape)
    torch.testing.assert_close(weight_change(source, None, shape, torch.float64).view_as(before), expected)
    assert change_norm(source, shape, torch.float64) == pytest.approx(float(expected.norm()), rel=1e-5)


def test_a_configuration_is_for_its_own_algorithm() -> None:
    """That of a LoRA says nothing about a LoKr, nor does any about a LoHa with an alpha of its own."""
    whole = {"a.lokr_w1": torch.ones(2, 2), "a.lokr_w2": torch.ones(3, 3)}
    for values in ({"lora_alpha": 8, "r": 2}, {"peft_type": "LOHA", "alpha": 8, "r": 2}):
        (source,) = parse(TensorFile("x", "", whole, {}), PeftConfig({"": values})).modules
        assert source.tensors.keys() == {"lokr_w1", "lokr_w2"}
    config = PeftConfig({"": {"peft_type": "LOHA", "alpha": 8}})
    pair = {f"a.hada_w{n}_{part}": torch.ones(2, 2) for n in (1, 2) for part in "ab"}
    (source,) = parse(TensorFile("x", "", {**pair, "a.alpha": torch.tensor(3.0)}, {}), config).modules
    assert source.alpha == 3.0


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "null", '{"peft_type": "LOHA"}'])
def test_what_is_no_configuration(text: str) -> None:
    """Broken text is as if it were not there."""
    assert PeftConfig.from_json(text) is None


def test_an_infinite_alpha_is_none() -> None:
    """JSON as Python reads it knows Infinity; a scale does not."""
    config = PeftConfig.from_json('{"lora_alpha": Infinity}')
    assert config is not None
    assert config.alpha("a", 4) is None


def test_metadata_as_diffusers_writes_it() -> None:
    """One flat map, each name after its component."""
    flat = {
        "unet.lora_alpha": 8,
        "unet.use_rslora": True,
        "unet.alpha_pattern": {"to_k": 2},
        "text_encoder.lora_alpha": 3,
        "text_encoder_2.lora_alpha": 5,
    }
    config = PeftConfig.from_metadata({METADATA_KEY: json.dumps(flat)})
    assert config is not None
    found = {
        spelling: config.alpha(spelling, 4)
        for spelling in ("unet.a.to_q", "unet.a.to_k", "text_encoder.a", "text_encoder_2.a")
    }
    assert [value.item() for value in found.values() if value is not None] == [16.0, 4.0, 3.0, 5.0]
    assert config.alpha("transformer.a", 4) is None
    assert PeftConfig.from_metadata({}) is None
    assert PeftConfig.from_metadata({METADATA_KEY: "{}"}) is None


def test_only_pefts_names_have_its_alpha() -> None:
    """A configuration says nothing about kohya's tensors beside it, nor against an alpha in the file."""
    config = PeftConfig({"": {"lora_alpha": 8}})

    def parsed(**tensors: torch.Tensor) -> float | None:
        named = {f"a.{name.replace('__', '.')}": tensor for name, tensor in tensors.items()}
        return parse(TensorFile("x", "", named, {}), config).modules[0].alpha

    up, down = torch.ones(3, 4), torch.ones(4, 2)
    assert parsed(lora_up__weight=up, lora_down__weight=down) is None
    assert parsed(lora_B__weight=up, lora_A__weight=down) == 8.0
    assert parsed(lora_B__weight=up, lora_A__weight=down, alpha=torch.tensor(1.0)) == 1.0
