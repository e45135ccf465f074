"""What a set makes of the weights, and what it says of that."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdgrpc.domain import LoraRef
from sdgrpc.errors import LoraError, LoraIncompatible, LoraMalformed
from sdgrpc.lora.dialects.adapter import Adapter
from sdgrpc.lora.files import reading
from sdgrpc.lora.fusing import maker
from sdgrpc.lora.fusing.cache import Lease, OverlaySwitch, SetStats
from sdgrpc.lora.fusing.changes import weight_change
from sdgrpc.lora.store.library import FoundLora, LoraLibrary
from tests.support.fused import EVERYWHERE, fused_weights, sets
from tests.support.loras import (
    CONVOLUTION,
    CROSS,
    LINEAR,
    POINTWISE,
    TEXT_LINEAR,
    every_algorithm,
    formula,
    kohya,
    kohya_file,
    lora_file,
    ref,
    shape_of,
    small_components,
    to_bytes,
    weight_of,
)

FUZZED = to_bytes(kohya_file(*EVERYWHERE, alpha=2.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("strengths", [(1.0,), (0.5,), (0.8, -0.3, 1.7)])
def test_fused_weights_are_the_formula(dtype: torch.dtype, strengths: tuple[float, ...]) -> None:
    """W + sum of s * alpha/r * up @ down, computed in float64, rounded once to the weight's dtype."""
    components = small_components(dtype)
    members = []
    for number, strength in enumerate(strengths):
        file = lora_file(
            kohya_file(*EVERYWHERE, rank=2 + number, alpha=1.5, seed=number, dtype=torch.float16)
        )
        members.append((file, ref(strength)))
    with sets(components).acquire(members) as lease:
        weights = fused_weights(lease)
        assert weights.keys() == set(EVERYWHERE)
        for path, weight in weights.items():
            base = weight_of(components, path)
            factors = []
            for file, asked in members:
                module = next(m for m in file.adapter().modules if m.spelling == kohya(path))
                factors.append(
                    (module.tensors["up"], module.tensors["down"], asked.strength * 1.5 / module.rank)
                )
            exact = formula(base, factors)
            assert weight.dtype == dtype
            unit = torch.finfo(dtype).eps * exact.abs().clamp(min=torch.finfo(dtype).tiny)
            slack = 1e-5 * (1 + exact.abs()) if dtype == torch.float32 else 0.51 * unit + 1e-5
            assert ((weight.double() - exact).abs() <= slack).all(), path


def test_the_base_is_never_written() -> None:
    """A, then B, then none: the base's weights are what they were, bit for bit."""
    components = small_components(torch.bfloat16)
    before = {path: weight_of(components, path).clone() for path in EVERYWHERE}
    cache = sets(components)
    switches = {name: OverlaySwitch(module) for name, module in components.items()}
    for seed in (1, 2):
        with cache.acquire([(lora_file(kohya_file(*EVERYWHERE, seed=seed)), ref())]) as lease:
            for name, switch in switches.items():
                switch.use(lease.overlay.tensors[name])
            assert not any(torch.equal(weight_of(components, path), before[path]) for path in EVERYWHERE)
    for switch in switches.values():
        switch.use({})
    assert all(torch.equal(weight_of(components, path), before[path]) for path in EVERYWHERE)


def test_order_does_not_matter() -> None:
    """Every order of the same members is the same set: one id, one fuse, the same bits."""
    members = [(lora_file(kohya_file(*EVERYWHERE, seed=n), f"l{n}"), ref(0.3 * n)) for n in (1, 2, 3)]
    cache = sets()
    leases = [cache.acquire(order) for order in itertools.permutations(members)]
    assert len({lease.set_id for lease in leases}) == 1
    assert cache.stats().fuse_count == 1
    again = sets().acquire(members[::-1])
    for path, weight in fused_weights(again).items():
        assert torch.equal(weight, fused_weights(leases[0])[path])
    assert [report.name for report in leases[-1].reports] == ["l3", "l2", "l1"]


@pytest.mark.parametrize("strength", [0.0, -0.0])
def test_strength_zero_is_the_base(strength: float) -> None:
    """No strength, no LoRA: an empty overlay without an id, and a report that says that nothing changed."""
    cache = sets()
    lease = cache.acquire([(lora_file(kohya_file(*EVERYWHERE)), ref(strength))])
    assert (lease.set_id, lease.overlay.tensors, lease.cached, lease.fuse_seconds) == ("", {}, False, 0.0)
    (report,) = lease.reports
    assert (report.modules, report.relative_norm, report.algorithms) == ({}, 0.0, ("locon", "lora"))
    assert cache.acquire([]).set_id == ""
    assert cache.stats().fuse_count == 0


def test_the_text_encoder_has_its_own_strength() -> None:
    """Strength 0 on one part leaves it alone; the other gets its own."""
    file = lora_file(kohya_file(*EVERYWHERE))
    cache = sets()
    assert set(fused_weights(cache.acquire([(file, ref(1.0, 0.0))]))) == set(EVERYWHERE) - {TEXT_LINEAR}
    only_text = cache.acquire([(file, ref(0.0, 0.5))])
    (weight,) = fused_weights(only_text).values()
    tensors = next(m for m in file.adapter().modules if m.spelling == kohya(TEXT_LINEAR)).tensors
    exact = formula(weight_of(small_components(), TEXT_LINEAR), [(tensors["up"], tensors["down"], 0.25)])
    torch.testing.assert_close(weight.double(), exact, rtol=1e-5, atol=1e-5)
    assert only_text.reports[0].modules == {"text_encoder": 1}


def test_the_report_is_true() -> None:
    """Algorithms, modules per component, unmatched tensors and the relative norm, by an independent sum."""
    components = small_components()
    tensors = kohya_file(*EVERYWHERE, alpha=2.0) | {"stray": torch.ones(1)}
    file = lora_file(tensors, "styles/ink")
    lease = sets(components).acquire([(file, ref(0.5, 0.25))])
    (report,) = lease.reports
    changes = {path: weight - weight_of(components, path) for path, weight in fused_weights(lease).items()}
    change = sum(delta.double().pow(2).sum() for delta in changes.values()).sqrt()
    weight = sum(weight_of(components, path).double().pow(2).sum() for path in EVERYWHERE).sqrt()
    assert report.name == "styles/ink"
    assert report.sha256 == file.sha256
    assert report.algorithms == ("locon", "lora")
    assert report.modules == {"unet": 4, "text_encoder": 1}
    assert (report.unmatched_tensors, report.unmatched_examples) == (1, ("stray",))
    assert report.relative_norm == pytest.approx((change / weight).item(), rel=1e-4)
    assert (report.strength, report.text_encoder_strength) == (0.5, 0.25)
    assert report.warnings == ()


def test_warnings_say_what_changes_nothing() -> None:
    """An alpha of 0 and factors that hold only zeros are no errors, but no surprises either."""
    zero_alpha = sets().acquire([(lora_file(kohya_file(LINEAR, CROSS, alpha=0.0)), ref())])
    assert zero_alpha.reports[0].warnings == ("alpha is 0 in 2 of 2 modules, which therefore change nothing",)
    assert zero_alpha.reports[0].relative_norm == 0.0
    tensors = kohya_file(LINEAR, CROSS)
    tensors[f"{kohya(LINEAR)}.lora_up.weight"].zero_()
    zero_up = sets().acquire([(lora_file(tensors), ref())])
    assert zero_up.reports[0].warnings == ("1 of 2 modules hold only zeros and change nothing",)


@pytest.mark.parametrize("strength", [1.0, 0.0])
def test_strict_makes_unmatched_tensors_an_error(strength: float) -> None:
    """Also where the set is cached already by somebody who was not strict; its users are counted right."""
    file = lora_file(kohya_file(LINEAR) | {"stray": torch.ones(1)})
    cache = sets(capacity=1)
    cache.acquire([(file, ref(strength))]).release()
    with pytest.raises(LoraIncompatible, match=r"1 tensors find no place in the model \('stray'\)") as caught:
        cache.acquire([(file, ref(strength, strict=True))])
    assert caught.value.key == "stray"
    assert cache.stats().sets == 0


def test_a_file_for_another_base_is_refused() -> None:
    """The sentence names both, and the cache stays empty."""
    up, down = torch.ones(640, 1), torch.ones(1, 2048)
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_1_attn2_to_k"
    file = lora_file({f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down})
    cache = sets()
    with pytest.raises(
        LoraIncompatible, match=r"is for SDXL \(cross-attention width 2048\); the loaded model is"
    ):
        cache.acquire([(file, ref())])
    assert cache.stats() == SetStats(misses=1)


def test_fused_in_inference_mode_used_outside() -> None:
    """The tensors are ordinary ones, wherever they were made."""
    with torch.inference_mode():
        lease = sets().acquire([(lora_file(kohya_file(LINEAR)), ref())])
    (weight,) = fused_weights(lease).values()
    assert not weight.is_inference()
    assert not weight.requires_grad


def test_the_same_file_twice_adds_up() -> None:
    """0.5 and 0.25 of one file are 0.75 of it."""
    file = lora_file(kohya_file(LINEAR))
    twice = sets().acquire([(file, ref(0.5)), (file, ref(0.25))])
    once = sets().acquire([(file, ref(0.75))])
    torch.testing.assert_close(fused_weights(twice)[LINEAR], fused_weights(once)[LINEAR])
    assert len(twice.reports) == 2


@pytest.mark.parametrize("path", [LINEAR, POINTWISE, CONVOLUTION, TEXT_LINEAR])
@pytest.mark.parametrize("strength", [0.5, 1.0, -0.7])
def test_every_algorithm_is_fused_as_its_formula_says(path: str, strength: float) -> None:
    """W + s * (W' - W) in float64, for each algorithm on each kind of layer, and the norm in the report."""
    components = small_components()
    weight = weight_of(components, path)
    for tensors in every_algorithm(shape_of(path)).values():
        file = lora_file({f"{kohya(path)}{ending}": tensor for ending, tensor in tensors.items()})
        lease = sets(components).acquire([(file, ref(strength))])
        (module,) = file.adapter().modules
        flat = weight.double().flatten(1)
        change = weight_change(module, flat, tuple(weight.shape), torch.float64)
        exact = (flat + strength * change).view_as(weight)
        (fused,) = fused_weights(lease).values()
        assert (fused.double() - exact).norm() <= 3e-6 * exact.norm(), module.label
        (report,) = lease.reports
        assert report.algorithms == (module.label,)
        relative = abs(strength) * change.norm() / flat.norm()
        assert report.relative_norm == pytest.approx(relative.item(), rel=1e-4), module.label


def test_order_does_not_matter_for_any_algorithm() -> None:
    """Each member is computed from the pristine weight: a stack of all is the same in every order."""
    members = []
    for number, tensors in enumerate(every_algorithm(shape_of(LINEAR)).values()):
        named = {f"{kohya(LINEAR)}{ending}": tensor for ending, tensor in tensors.items()}
        members.append((lora_file(named, str(number)), ref(0.1 * (number + 1))))
    first = sets().acquire(members)
    second = sets().acquire(members[::-1])
    assert first.set_id == second.set_id
    assert torch.equal(fused_weights(first)[LINEAR], fused_weights(second)[LINEAR])
    total = weight_of(small_components(), LINEAR).double()
    base = total.clone()
    for file, asked in members:
        (module,) = file.adapter().modules
        total += asked.strength * weight_change(module, base, tuple(base.shape), torch.float64)
    torch.testing.assert_close(fused_weights(first)[LINEAR].double(), total, rtol=1e-5, atol=1e-5)


def test_biases_and_norms_are_fused_too() -> None:
    """diff_b changes the bias; where a module has none, the tensor is reported as unmatched."""
    norm = "down_blocks.0.resnets.0.norm1"
    components = small_components()
    tensors = {
        f"{kohya(CONVOLUTION)}.diff": torch.ones(shape_of(CONVOLUTION)),
        f"{kohya(CONVOLUTION)}.diff_b": torch.arange(16.0),
        f"{kohya(norm)}.w_norm": torch.full((8,), 2.0),
        f"{kohya(norm)}.b_norm": torch.full((8,), 3.0),
        **kohya_file(LINEAR),
        f"{kohya(LINEAR)}.diff_b": torch.ones(8),
    }
    lease = sets(components).acquire([(lora_file(tensors), ref(0.5))])
    parameters = dict(components["unet"].named_parameters())
    fused = lease.overlay.tensors["unet"]
    assert fused.keys() == {
        f"{CONVOLUTION}.weight",
        f"{CONVOLUTION}.bias",
        f"{norm}.weight",
        f"{norm}.bias",
        f"{LINEAR}.weight",
    }
    for name, change in (
        (f"{CONVOLUTION}.bias", torch.arange(16.0)),
        (f"{norm}.weight", 2.0),
        (f"{norm}.bias", 3.0),
    ):
        torch.testing.assert_close(fused[name], parameters[name].detach() + 0.5 * change)
    (report,) = lease.reports
    assert report.algorithms == ("full", "lora", "norm")
    assert report.modules == {"unet": 3}
    assert report.unmatched_examples == (f"{kohya(LINEAR)}.diff_b",)


def unreachable() -> Adapter:
    raise AssertionError("a set that is there needs no file")


def test_parsed_files_are_let_go() -> None:
    """The cache of sets holds fused weights, not the files that they were made from."""
    cache = sets()
    adapter = lora_file(kohya_file(LINEAR)).adapter()
    watched = weakref.ref(adapter)
    lease = cache.acquire([(FoundLora("a", adapter.sha256, watched), ref())])
    del adapter
    gc.collect()
    assert watched() is None
    assert cache.acquire([(FoundLora("a", lease.reports[0].sha256, unreachable), ref())]).cached


def test_a_change_that_is_no_number_is_refused() -> None:
    """Factors that are finite but whose product is not."""
    tensors = {key: tensor * 1e30 for key, tensor in kohya_file(LINEAR).items()}
    cache = sets()
    with pytest.raises(LoraMalformed, match="too large for a number"):
        cache.acquire([(lora_file(tensors), ref())])
    assert cache.stats().sets == 0


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_flipped_bytes_never_change_the_base(data: st.DataObject) -> None:
    """Whatever a few flipped bytes make of a file, it is refused or fused beside the base."""
    content = bytearray(FUZZED)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 2000))
        content[place] ^= data.draw(st.integers(1, 255))
    components = small_components()
    before = {path: weight_of(components, path).clone() for path in EVERYWHERE}
    cache = sets(components)
    try:
        file = LoraLibrary([], allow_inline=True).find(LoraRef(1.0, 1.0, content=bytes(content)))
        with cache.acquire([(file, ref())]) as lease:
            assert lease.reports[0].relative_norm >= 0
    except LoraError:
        assert cache.stats().sets == 0
    assert all(torch.equal(weight_of(components, path), before[path]) for path in EVERYWHERE)


def test_another_strength_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stack of two, one member's strength changes: no file is opened, parsed or placed again."""
    for seed in (1, 2):
        (tmp_path / f"l{seed}.safetensors").write_bytes(to_bytes(kohya_file(*EVERYWHERE, seed=seed)))
    library, cache = LoraLibrary([tmp_path]), sets()
    calls: Counter[str] = Counter()
    for module, name in ((reading, "read"), (reading, "_open"), (maker, "place_or_refuse")):
        original = getattr(module, name)

        def counted(*args: Any, _name: str = name, _call: Any = original, **options: Any) -> Any:
            calls[_name] += 1
            return _call(*args, **options)

        monkeypatch.setattr(module, name, counted)

    def use(first: float, second: float) -> Lease:
        refs = [
            LoraRef(name=f"l{n}", strength=s, text_encoder_strength=s) for n, s in ((1, first), (2, second))
        ]
        return cache.acquire([(library.find(each), each) for each in refs])

    use(0.8, 0.5).release()
    assert (calls["read"], calls["place_or_refuse"]) == (2, 2)
    calls.clear()
    lease = use(0.6, 0.5)
    assert not lease.cached
    assert calls == Counter()
