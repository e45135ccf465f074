"""Dialects of keys."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.errors import LoraMalformed, LoraUnsupported
from sdgrpc.lora.bases.module_names import NameIndex
from sdgrpc.lora.bases.placement import place
from sdgrpc.lora.dialects.keys import parse
from sdgrpc.lora.files.reading import TensorFile
from tests.support.loras import LINEAR, adapter_of, factors, shape_of, small_shapes

INDEX = NameIndex(small_shapes())
UP, DOWN = factors(shape_of(LINEAR))
OLD = LINEAR.replace(".to_q", ".processor.to_q_lora")
KOHYA = "lora_unet_" + LINEAR.replace(".", "_")
TEXT = "encoder.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (f"{KOHYA}.lora_down.weight", f"{KOHYA}.lora_up.weight"),
        (f"{OLD}.down.weight", f"{OLD}.up.weight"),
        (f"unet.{OLD}.down.weight", f"unet.{OLD}.up.weight"),
        (f"unet.{LINEAR}.lora.down.weight", f"unet.{LINEAR}.lora.up.weight"),
        (f"unet.{LINEAR}.lora_A.weight", f"unet.{LINEAR}.lora_B.weight"),
        (f"base_model.model.{LINEAR}.lora_A.weight", f"base_model.model.{LINEAR}.lora_B.weight"),
        (
            f"base_model.model.{LINEAR}.lora_A.default.weight",
            f"base_model.model.{LINEAR}.lora_B.default.weight",
        ),
        (f"{LINEAR}.lora_A.weight", f"{LINEAR}.lora_B.weight"),
        (f"unet.{LINEAR}.lora_A.my_style.weight", f"unet.{LINEAR}.lora_B.my_style.weight"),
        (f"unet.{LINEAR}.lora_layer.down.weight", f"unet.{LINEAR}.lora_layer.up.weight"),
        (f"unet._orig_mod.{LINEAR}.lora_A.weight", f"unet._orig_mod.{LINEAR}.lora_B.weight"),
        (f"module.{OLD}.down.weight", f"module.{OLD}.up.weight"),
        (
            f"base_model.model._orig_mod.{LINEAR}.lora_A.default.weight",
            f"base_model.model._orig_mod.{LINEAR}.lora_B.default.weight",
        ),
        (
            f"base_model.model.base_model.model.{LINEAR}.lora_A.weight",
            f"base_model.model.base_model.model.{LINEAR}.lora_B.weight",
        ),
        (
            f"{KOHYA.replace('unet_', 'unet_unet_')}_lora_down.weight",
            f"{KOHYA.replace('unet_', 'unet_unet_')}_lora_up.weight",
        ),
    ],
)
def test_dialects_of_one_module(down: str, up: str) -> None:
    """Every dialect gives the same adapter: the same factors on the same module."""
    adapter = adapter_of({down: DOWN, up: UP})
    (placed,) = place(adapter, INDEX).placed
    assert (placed.target.component, placed.target.path) == ("unet", LINEAR)
    assert torch.equal(placed.source.tensors["down"], DOWN)
    assert torch.equal(placed.source.tensors["up"], UP)
    assert adapter.unmatched == ()


@pytest.mark.parametrize(
    "key",
    [
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_{}.weight",
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.{}.weight",
        "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.{}.weight",
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora.{}.weight",
    ],
)
def test_dialects_of_text_encoders(key: str) -> None:
    """The text encoder's names too, without the `text_model.` level in the model."""
    up, down = factors(shape_of(TEXT))
    adapter = adapter_of({key.format("up"): up, key.format("down"): down})
    (placed,) = place(adapter, INDEX).placed
    assert (placed.target.component, placed.target.path) == ("text_encoder", TEXT)


@pytest.mark.parametrize("alpha", [torch.tensor(4), torch.tensor([2.0]), torch.tensor(0.5).half()])
def test_alphas_of_every_kind(alpha: torch.Tensor) -> None:
    """An alpha may be an integer, one number in a list, or half precision."""
    adapter = adapter_of(
        {f"{KOHYA}.lora_up.weight": UP, f"{KOHYA}.lora_down.weight": DOWN, f"{KOHYA}.alpha": alpha}
    )
    (module,) = adapter.modules
    assert module.alpha == alpha.item()
    assert module.rank == 2


@pytest.mark.parametrize(
    ("tensors", "key", "words"),
    [
        ({f"{KOHYA}.lora_up.weight": UP}, f"{KOHYA}.lora_up.weight", r"without its partner \(down\)"),
        ({f"{KOHYA}.lora_down.weight": DOWN}, f"{KOHYA}.lora_down.weight", r"without its partner \(up\)"),
        (
            {f"{KOHYA}.lora_up.weight": UP[:, :1].contiguous(), f"{KOHYA}.lora_down.weight": DOWN},
            f"{KOHYA}.lora_up.weight",
            "rank 1",
        ),
        (
            {
                f"{KOHYA}.lora_up.weight": UP,
                f"{KOHYA}.lora_down.weight": DOWN,
                f"{KOHYA}.alpha": torch.ones(2),
            },
            f"{KOHYA}.alpha",
            "not one number",
        ),
        (
            {"a.lora.up.weight": UP, "a.lora_B.weight": UP, "a.lora_A.weight": DOWN},
            "a.lora_B.weight",
            "mean the same",
        ),
    ],
)
def test_broken_modules_are_named(tensors: dict[str, torch.Tensor], key: str, words: str) -> None:
    """Half a pair, ranks that differ, an alpha that is none, two of one kind: the key is named."""
    with pytest.raises(LoraMalformed, match=words) as caught:
        adapter_of(tensors)
    assert caught.value.key == key
    assert key in caught.value.message


def test_the_algorithm_says_whether_a_kernel_is_wide() -> None:
    """LoRA of a convolution wider than 1x1 is called LoCon; 1x1 is a linear layer."""
    for kernel, name in (((), "lora"), ((1, 1), "lora"), ((3, 3), "locon")):
        up, down = factors((8, 4, *kernel))
        (module,) = adapter_of({"a.lora_up.weight": up, "a.lora_down.weight": down}).modules
        assert module.label == name


def test_keys_of_no_known_kind_are_kept_for_the_report() -> None:
    """What is no LoRA's tensor is listed, not dropped."""
    adapter = adapter_of(
        {f"{KOHYA}.lora_up.weight": UP, f"{KOHYA}.lora_down.weight": DOWN, "whatever": torch.ones(1)}
    )
    assert adapter.unmatched == ("whatever",)
    assert adapter.tensor_count == 3


def test_an_alpha_that_was_left_behind_is_reported_alone() -> None:
    """Where a tool took a module's factors out, its alpha means nothing, and the rest is applied."""
    adapter = adapter_of(
        {f"{KOHYA}.lora_up.weight": UP, f"{KOHYA}.lora_down.weight": DOWN, "b.alpha": torch.ones(())}
    )
    assert [module.spelling for module in adapter.modules] == [KOHYA]
    assert adapter.unmatched == ("b.alpha",)


def test_an_infinite_alpha_of_two_whole_factors_is_ignored() -> None:
    """LyCORIS writes 100,000 where factors are whole, infinite in half precision; it counts nothing."""
    infinite = {"a.alpha": torch.tensor(100_000).half()}
    whole = {"a.lokr_w1": torch.ones(2, 2), "a.lokr_w2": torch.ones(3, 3)}
    (module,) = parse(TensorFile("a", "", whole | infinite, {})).modules
    assert module.alpha is None
    (module,) = parse(TensorFile("a", "", whole | {"a.alpha": torch.tensor(8.0)}, {})).modules
    assert module.alpha == 8.0
    with pytest.raises(LoraMalformed, match=r"'a\.alpha' holds NaN or infinity"):
        parse(TensorFile("a", "", {"a.lora_up.weight": UP, "a.lora_down.weight": DOWN, **infinite}, {}))


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("lambda_layer", "T-LoRA"),
        ("lora_E", "AdaLoRA"),
        ("oft_r", "OFT as PEFT"),
        ("randlora_lambda.default", "RandLoRA"),
        ("waveft_spectrum", "WaveFT"),
        ("bone_block", "Bone"),
    ],
)
def test_algorithms_that_are_not_applied_are_named(ending: str, words: str) -> None:
    """What is known and not applied is refused by its name, whatever stands beside it."""
    with pytest.raises(LoraUnsupported, match=f"uses .*{words}.*not applied"):
        adapter_of({f"{LINEAR}.alpha": torch.ones(()), f"{LINEAR}.{ending}": UP})


@pytest.mark.parametrize("ending", ["reshape_weight", "set_weight"])
def test_what_only_flux_has_is_refused_by_name(ending: str) -> None:
    """Padding and replacing weights is not applied in silence."""
    tensors = {f"{KOHYA}.lora_up.weight": UP, f"{KOHYA}.lora_down.weight": DOWN, f"{KOHYA}.{ending}": UP + 1}
    with pytest.raises(LoraUnsupported, match="which only Flux has"):
        adapter_of(tensors)
