"""Newer methods, each against the layer that PEFT merges."""

from __future__ import annotations

import json
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn

from sdgrpc.errors import LoraMalformed, LoraUnsupported
from sdgrpc.lora.algorithms.tensors import BadTensors
from sdgrpc.lora.dialects.adapter import AdapterModule
from sdgrpc.lora.dialects.keys import parse
from sdgrpc.lora.dialects.peft import PeftConfig
from sdgrpc.lora.files.reading import TensorFile
from sdgrpc.lora.fusing.cache import FusedSets
from sdgrpc.lora.fusing.changes import bias_change, change_norm, weight_change
from tests.support.loras import LINEAR, adapter_of, lora_file, ref, shape_of, small_components, weight_of

OUT, IN = 24, 16
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "delora": ("DeloraConfig", {"r": 3, "delora_lambda": 5.0, "init_weights": False}),
    "gralora": ("GraloraConfig", {"r": 4, "alpha": 12, "gralora_k": 2, "init_weights": False}),
    "gralora of four": ("GraloraConfig", {"r": 8, "alpha": 3, "gralora_k": 4, "init_weights": False}),
    "gralora, hybrid": (
        "GraloraConfig",
        {"r": 4, "alpha": 12, "gralora_k": 2, "hybrid_r": 3, "init_weights": False},
    ),
    "hira": ("HiraConfig", {"r": 3, "init_weights": False}),
    "c3a": ("C3AConfig", {"block_size": 4, "init_weights": "gaussian"}),
    "c3a of eight": ("C3AConfig", {"block_size": 8, "init_weights": "gaussian"}),
    "vera": ("VeraConfig", {"r": 5, "init_weights": False}),
    "shira": ("ShiraConfig", {"r": 2, "init_weights": False}),
    "fourierft": ("FourierFTConfig", {"n_frequency": 30, "scaling": 40.0, "init_weights": False}),
    "fourierft, another seed": (
        "FourierFTConfig",
        {"n_frequency": 30, "scaling": 7.0, "random_loc_seed": 5, "init_weights": False},
    ),
    "miss": ("MissConfig", {"r": 4, "init_weights": False}),
    "miss with a remainder": ("MissConfig", {"r": 5, "init_weights": False}),
    "miss, bat": ("MissConfig", {"r": 4, "init_weights": "bat"}),
    "road of one": ("RoadConfig", {"variant": "road_1", "group_size": 4, "init_weights": False}),
    "road of two": ("RoadConfig", {"variant": "road_2", "group_size": 8, "init_weights": False}),
    "road of four": ("RoadConfig", {"variant": "road_4", "group_size": 4, "init_weights": False}),
    "ia3": ("IA3Config", {"feedforward_modules": [], "init_ia3_weights": False}),
    "ia3 of the inputs": ("IA3Config", {"feedforward_modules": ["a"], "init_ia3_weights": False}),
    "hra": ("HRAConfig", {"r": 4, "init_weights": False}),
    "hra, orthogonal": ("HRAConfig", {"r": 4, "apply_GS": True, "init_weights": False}),
    "boft": ("BOFTConfig", {"boft_block_size": 4, "init_weights": False}),
}
FLOAT32 = {"fourierft", "c3a", "delora"}
"""What PEFT computes in float32 whatever the layer's type."""
CONVOLUTIONS = ["hra", "hra, orthogonal", "boft"]


def trained(name: str, layer: nn.Module) -> tuple[Tensor, dict[str, Tensor], str, Tensor, Tensor]:
    """The weight before; the tensors and configuration that PEFT saves; weight and bias that it merges."""
    kind, settings = METHODS[name]
    before = layer.weight.detach().double().clone()
    config = getattr(peft, kind)(target_modules=["a"], **settings)
    model = peft.get_peft_model(nn.Sequential(nn.ModuleDict({"a": layer})), config)
    generator = torch.Generator().manual_seed(3)
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator) * 0.4
            parameter.data = noise + (5.0 if key.endswith("delora_lambda.default") else 0.0)
    state = {key: tensor.clone() for key, tensor in peft.get_peft_model_state_dict(model).items()}
    merged = model.double().merge_and_unload()[0]["a"]
    text = json.dumps(config.to_dict(), default=list)
    return before, state, text, merged.weight.detach(), merged.bias.detach()


def changed(state: dict[str, Tensor], text: str, before: Tensor) -> tuple[AdapterModule, Tensor]:
    (source,) = parse(TensorFile("x", "", state, {}), PeftConfig.from_json(text)).modules
    assert source.fits(tuple(before.shape))
    flat = before.flatten(1)
    return source, weight_change(source, flat, tuple(before.shape), torch.float64).view_as(before)


@pytest.mark.parametrize("ending", ["", ".default"])
@pytest.mark.parametrize("name", METHODS)
def test_a_linear_layer_is_pefts(name: str, ending: str) -> None:
    """The change is what PEFT merges, with the settings of its configuration, and so is its norm."""
    torch.manual_seed(0)
    before, state, text, merged, _ = trained(name, nn.Linear(IN, OUT))
    if ending:
        weights = (".weight",)
        state = {
            key.removesuffix(".weight") + ending + ".weight"
            if key.endswith(weights)
            else key + ending: tensor
            for key, tensor in state.items()
        }
    source, change = changed(state, text, before)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if name.split(",")[0].split(" ")[0] in FLOAT32 else {}
    torch.testing.assert_close(before + change, merged, **(tolerance or {"rtol": 1e-6, "atol": 1e-7}))
    assert change.norm() > 0.01 * before.norm()
    norm = change_norm(source, tuple(before.shape), torch.float64)
    assert norm is None if source.needs_weight else norm == pytest.approx(float(change.norm()), rel=1e-5)


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("kernel", [1, 2])
def test_a_convolution_is_pefts(name: str, kernel: int) -> None:
    """Those that PEFT trains on convolutions."""
    torch.manual_seed(0)
    before, state, text, merged, _ = trained(name, nn.Conv2d(IN, OUT, kernel))
    _, change = changed(state, text, before)
    torch.testing.assert_close(before + change, merged, rtol=1e-5, atol=1e-6)
    assert change.norm() > 0.01 * before.norm()


@pytest.mark.parametrize(("stages", "block"), [(2, 4), (3, 2), (2, 2), (4, 2)])
def test_a_butterfly_of_several_stages(stages: int, block: int) -> None:
    """PEFT makes it on a GPU alone: the product of its own permutations and its own Cayley map."""
    torch.manual_seed(0)
    config = peft.BOFTConfig(boft_block_size=block, target_modules=["a"], init_weights=False)
    layer = nn.Sequential(nn.ModuleDict({"a": nn.Linear(IN, OUT)}))
    theirs = peft.get_peft_model(layer, config).double().base_model.model[0]["a"]
    count, weight = IN // block, torch.randn(OUT, IN, dtype=torch.float64)
    blocks, scales = torch.randn(stages, count, block, block).double(), torch.randn(OUT, 1).double()
    total = torch.eye(IN, dtype=torch.float64)
    for stage in range(stages):
        order = theirs.block_butterfly_perm(IN, count // 2**stage, block // 2, stages - 1)
        places = theirs.perm2mat(order).double()
        turns = torch.block_diag(*theirs.cayley_batch(blocks[stage]))
        total = places @ turns @ places.T @ total
    expected = (total @ weight.T).T * scales
    state = {"lora_unet_a.boft_R": blocks, "lora_unet_a.boft_s": scales}
    _, change = changed(state, "", weight)
    torch.testing.assert_close(weight + change, expected, rtol=1e-6, atol=1e-7)


def test_vera_shares_its_projections() -> None:
    """One pair for layers of several sizes, which take their part of it."""
    torch.manual_seed(0)
    layers = nn.ModuleDict({"a": nn.Linear(IN, OUT), "b": nn.Linear(10, 12)})
    before = {name: layer.weight.detach().double().clone() for name, layer in layers.items()}
    config = peft.VeraConfig(r=4, target_modules=["a", "b"], init_weights=False)
    model = peft.get_peft_model(nn.Sequential(layers), config)
    for key, parameter in model.named_parameters():
        if "vera_lambda" in key:
            parameter.data = torch.randn_like(parameter)
    state = {key: tensor.clone() for key, tensor in peft.get_peft_model_state_dict(model).items()}
    merged = model.double().merge_and_unload()[0]
    modules = parse(TensorFile("x", "", state, {})).modules
    assert len(modules) == 2
    for module in modules:
        weight = before[module.spelling[-1]]
        change = weight_change(module, weight, tuple(weight.shape), torch.float64)
        torch.testing.assert_close(
            weight + change, merged[module.spelling[-1]].weight.detach(), rtol=1e-6, atol=1e-7
        )


BIASED = ["road of one", "road of two", "road of four", "ia3", "ia3 of the inputs"]


@pytest.mark.parametrize("name", BIASED)
def test_biases_are_pefts(name: str) -> None:
    """What scales or turns the outputs does so with the bias."""
    torch.manual_seed(0)
    layer = nn.Linear(IN, OUT)
    assert layer.bias is not None
    bias = layer.bias.detach().double().clone()
    _, state, text, _, merged = trained(name, layer)
    (source,) = parse(TensorFile("x", "", state, {}), PeftConfig.from_json(text)).modules
    change = bias_change(source, bias, torch.float64)
    torch.testing.assert_close(bias + change, merged, rtol=1e-6, atol=1e-7)
    assert bool(change.any()) == ("inputs" not in name)


def test_a_tuned_norm_is_pefts() -> None:
    """Weight and bias are those of the file, at half the strength half of the way there."""
    norm = nn.LayerNorm(IN)
    config = peft.LNTuningConfig(target_modules=["a"])
    model = peft.get_peft_model(nn.Sequential(nn.ModuleDict({"a": norm})), config)
    for key, parameter in model.named_parameters():
        if "ln_tuning" in key:
            parameter.data = torch.randn_like(parameter)
    state = {key: tensor.clone() for key, tensor in peft.get_peft_model_state_dict(model).items()}
    weight, bias = torch.ones(IN, 1, dtype=torch.float64), torch.zeros(IN, dtype=torch.float64)
    (source,) = parse(TensorFile("x", "", state, {})).modules
    merged = model.double().merge_and_unload()[0]["a"]
    assert source.fits((IN,))
    change = weight_change(source, weight, (IN,), torch.float64)
    torch.testing.assert_close((weight + change)[:, 0], merged.weight.detach())
    torch.testing.assert_close(bias + bias_change(source, bias, torch.float64), merged.bias.detach())


def test_a_job_changes_biases_too() -> None:
    """In a set: b + (b' - b) / 2, and the report counts the module once."""
    components = small_components()
    module = "down_blocks.0.resnets.0.time_emb_proj"
    parameters = dict(components["unet"].named_parameters())
    weight, bias = (parameters[f"{module}.{leaf}"].detach() for leaf in ("weight", "bias"))
    vector = torch.randn(len(bias), 1)
    sets = FusedSets(components, base="embedded", capacity_bytes=1 << 24)
    file = lora_file({f"base_model.model.{module}.ia3_l": vector})
    with sets.acquire([(file, ref(0.5))]) as lease:
        fused = lease.overlay.tensors["unet"]
        torch.testing.assert_close(fused[f"{module}.weight"], weight * (1 + vector) / 2)
        torch.testing.assert_close(fused[f"{module}.bias"], bias * (1 + vector[:, 0]) / 2)
        assert lease.reports[0].modules == {"unet": 1}


def test_road_without_its_configuration() -> None:
    """The size of its groups is said there."""
    with pytest.raises(LoraUnsupported, match=r"uses RoAd, whose settings .* put it beside the file"):
        adapter_of({"a.road_theta": torch.ones(4), "a.road_alpha": torch.ones(4)})


@pytest.mark.parametrize("group", [0, 1, 3, 16])
def test_groups_that_do_not_fit(group: int) -> None:
    """A configuration that says so makes the file refused, or for no weight of that size."""
    state = {"a.road_theta": torch.ones(24), "a.road_alpha": torch.ones(24)}
    config = PeftConfig.from_json(json.dumps({"peft_type": "ROAD", "group_size": group}))
    if group == 16:
        assert not parse(TensorFile("x", "", state, {}), config).modules[0].fits((24, 8))
        return
    with pytest.raises(LoraMalformed, match=f"in groups of {group}"):
        parse(TensorFile("x", "", state, {}), config)


def test_numbers_beyond_all_numbers() -> None:
    """A seed that no generator takes is none."""
    config = PeftConfig.from_json(
        json.dumps({"peft_type": "FOURIERFT", "scaling": 1, "random_loc_seed": 10**30})
    )
    with pytest.raises(LoraUnsupported, match="put it beside the file"):
        parse(TensorFile("x", "", {"a.fourierft_spectrum": torch.ones(4)}, {}), config)


def test_vera_without_projections() -> None:
    """They are random; where they were not saved nothing can be computed."""
    state = {"a.vera_lambda_b": torch.ones(4), "a.vera_lambda_d": torch.ones(2)}
    with pytest.raises(LoraUnsupported, match="VeRA without its projections"):
        adapter_of(state)


def test_fourierft_without_its_configuration() -> None:
    """Where its numbers belong is drawn from a seed, which is said there."""
    with pytest.raises(LoraUnsupported, match="put it beside the file"):
        adapter_of({"a.fourierft_spectrum": torch.ones(4)})


BROKEN: dict[str, tuple[dict[str, Tensor], str]] = {
    "delora": (
        {"A": torch.ones(2, 4), "B": torch.ones(4, 3), "lambda": torch.ones(1), "w_norm": torch.ones(4)},
        "rank 3",
    ),
    "delora norms": (
        {"A": torch.ones(2, 4), "B": torch.ones(4, 2), "lambda": torch.ones(1), "w_norm": torch.ones(5)},
        "has the shape",
    ),
    "gralora": ({"A": torch.ones(2, 4, 4), "B": torch.ones(2, 3, 4)}, "does not fit"),
    "hira": ({"A": torch.ones(2, 4), "B": torch.ones(4, 3)}, "rank 3"),
    "shira": ({"weight": torch.ones(3), "indices": torch.ones(2, 4).int()}, r"not \(2, 3\)"),
    "shira below": ({"weight": torch.ones(1), "indices": torch.tensor([[-1], [0]])}, "no place"),
    "miss": ({"block": torch.ones(2, 3, 4)}, "not square"),
    "c3a": ({"kernel": torch.ones(3)}, "does not know"),
    "boft": ({"R": torch.ones(1, 2, 3, 4), "s": torch.ones(4, 1)}, "not square"),
    "boft of too many stages": ({"R": torch.ones(3, 2, 4, 4), "s": torch.ones(4, 1)}, "no butterfly"),
    "hra": ({"u": torch.ones(4)}, "does not know"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_shapes_that_contradict_each_other(name: str) -> None:
    """The key is named."""
    tensors, words = BROKEN[name]
    method = name.split(" ")[0]
    with pytest.raises(LoraMalformed, match=words) as caught:
        adapter_of({f"a.{method}_{part}": tensor for part, tensor in tensors.items()})
    assert caught.value.key.startswith(f"a.{method}_")
    assert issubclass(BadTensors, ValueError)


def test_places_outside_of_the_weight_fit_none() -> None:
    """A SHiRA whose places lie beyond a weight is for another."""
    state = {"a.shira_weight": torch.ones(2), "a.shira_indices": torch.tensor([[0, 9], [3, 1]])}
    (module,) = adapter_of(state).modules
    assert module.fits((10, 4))
    assert not module.fits((9, 4))
    assert not module.fits((10, 3))


def test_a_job_applies_them() -> None:
    """In a set, at half the strength: W + (W' - W) / 2."""
    out, inner = shape_of(LINEAR)
    kernel = torch.randn(out // 4, inner // 4, 4)
    components = small_components()
    sets = FusedSets(components, base="embedded", capacity_bytes=1 << 24)
    weight = weight_of(components, LINEAR)
    (module,) = adapter_of({f"base_model.model.{LINEAR}.c3a_kernel": kernel}).modules
    change = weight_change(module, None, (out, inner), torch.float32)
    file = lora_file({f"base_model.model.{LINEAR}.c3a_kernel": kernel})
    with sets.acquire([(file, ref(0.5))]) as lease:
        fused = lease.overlay.tensors["unet"][f"{LINEAR}.weight"]
        assert lease.reports[0].algorithms == ("c3a",)
    torch.testing.assert_close(fused, weight + change / 2)
