"""Sets multiplied from resident factors are the sets that are fused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdgrpc.lora.fusing.overlay import Overlay
from sdgrpc.lora.resident.switching import runs
from tests.support.fused import EVERYWHERE
from tests.support.loras import (
    CONVOLUTION,
    CROSS,
    LINEAR,
    every_algorithm,
    factors,
    formula,
    kohya,
    kohya_file,
    lora_file,
    ref,
    shape_of,
    small_components,
    weight_of,
)
from tests.support.resident import Fused, Multiplied, channels_last, weights_of

TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}
"""Relative to a weight. In float32 the same sums in another order; else the step of the dtype: both sides
round once, and where a sum lies between two numbers they may choose either."""


def expect_alike(some: dict[str, Tensor], others: dict[str, Tensor], dtype: torch.dtype) -> None:
    for name, weight in some.items():
        error = (others[name].double() - weight.double()).norm() / weight.double().norm()
        assert error <= TOLERANCES[dtype], name


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_set_after_set_is_what_fusing_makes(dtype):
    """One file, two together, a change larger than its weight, none: and then the very bits of before."""
    fused, multiplied = Fused(small_components(dtype)), Multiplied(small_components(dtype))
    pristine = weights_of(multiplied.components)
    one = lora_file(kohya_file(*EVERYWHERE, rank=3, dtype=torch.float16))
    other = lora_file(kohya_file(LINEAR, CROSS, rank=2, seed=2, dtype=torch.float16), "b")
    for members in (
        [(one, ref(0.05))],
        [(other, ref(0.5))],
        [(one, ref(0.3)), (other, ref(1.0))],
        [(one, ref(50.0))],
        [(one, ref(0.0, 0.7))],
    ):
        expect_alike(fused.use(members), multiplied.use(members), dtype)
    back = multiplied.use([])
    assert all(torch.equal(back[name], weight) for name, weight in pristine.items())


def test_the_sum_is_that_of_the_formula_in_float64():
    """W + s a U D of two files for a weight that both change; strength and alpha included."""
    multiplied = Multiplied()
    pristine = weight_of(small_components(), LINEAR)
    one = lora_file(kohya_file(LINEAR, rank=4, alpha=2.0, seed=3))
    other = lora_file(kohya_file(LINEAR, rank=2, alpha=None, seed=4), "b")
    made = multiplied.use([(one, ref(0.7)), (other, ref(-0.4))])[f"unet.{LINEAR}.weight"]
    first, second = factors(shape_of(LINEAR), 4, 300), factors(shape_of(LINEAR), 2, 400)
    exact = formula(pristine, [(*first, 0.7 * 2 / 4), (*second, -0.4)])
    torch.testing.assert_close(made.double(), exact, rtol=1e-5, atol=1e-5)


def test_weights_with_channels_last_keep_their_order_and_their_place():
    """A set comes and goes, and everything stays where it was in memory."""
    components = channels_last(small_components())
    multiplied = Multiplied(components)
    before = {name: (w.data_ptr(), w.stride()) for name, w in components["unet"].named_parameters()}
    assert not weight_of(components, CONVOLUTION).is_contiguous()
    file = lora_file(kohya_file(*EVERYWHERE))
    made = multiplied.use([(file, ref(0.6))])
    expect_alike(Fused().use([(file, ref(0.6))]), made, torch.float32)
    after = {name: (w.data_ptr(), w.stride()) for name, w in components["unet"].named_parameters()}
    assert after == before


@pytest.mark.parametrize("label", every_algorithm(shape_of(LINEAR)))
def test_every_algorithm_has_its_way(label):
    """Low-rank changes by products, the others fused whole; also both on one weight."""
    endings = every_algorithm(shape_of(LINEAR))[label]
    file = lora_file({f"{kohya(LINEAR)}{ending}": tensor for ending, tensor in endings.items()})
    plain = lora_file(kohya_file(LINEAR, CROSS, seed=5), "b")
    fused, multiplied = Fused(), Multiplied()
    members = [(file, ref(0.6))]
    with multiplied.acquire(members) as lease:
        assert bool(lease.overlay.products.get("unet")) == (label == "lora")
        assert bool(lease.overlay.tensors.get("unet")) == (label != "lora")
    expect_alike(fused.use(members), multiplied.use(members), torch.float32)
    members.append((plain, ref(0.9)))
    expect_alike(fused.use(members), multiplied.use(members), torch.float32)
    back = multiplied.use([])
    assert all(torch.equal(back[name], w) for name, w in weights_of(small_components()).items())


def test_a_switch_that_failed_leaves_nothing_behind(monkeypatch):
    """What it had written is restored by the next one."""
    multiplied = Multiplied()
    pristine = weights_of(multiplied.components)
    file = lora_file(kohya_file(*EVERYWHERE))
    with multiplied.acquire([(file, ref(0.6))]) as lease:
        product, calls = torch.baddbmm, []

        def failing(*arguments, **options):
            calls.append(product(*arguments, **options))
            if len(calls) == 2:
                raise RuntimeError("the device is out of memory")

        monkeypatch.setattr(torch, "baddbmm", failing)
        with pytest.raises(RuntimeError):
            multiplied.switches["unet"].use(lease.overlay)
        monkeypatch.setattr(torch, "baddbmm", product)
        multiplied.switches["unet"].use(Overlay({}))
        assert all(torch.equal(w, pristine[name]) for name, w in weights_of(multiplied.components).items())
        multiplied.switches["unet"].use(lease.overlay)
        assert not torch.equal(
            weights_of(multiplied.components)[f"unet.{LINEAR}.weight"], pristine[f"unet.{LINEAR}.weight"]
        )


def test_the_same_set_again_is_no_work(monkeypatch):
    """Nor is going from no set to no set."""
    multiplied = Multiplied()
    with multiplied.acquire([(lora_file(kohya_file(LINEAR)), ref(0.6))]) as lease:
        multiplied.switches["unet"].use(lease.overlay)
        monkeypatch.setattr(torch, "baddbmm", None)
        multiplied.switches["unet"].use(lease.overlay)


def test_runs_of_slots():
    """Neighbours are one product."""
    cut = [(rows, slots) for rows, slots in runs((1, 2, 3, 5, 8, 9))]
    assert cut == [
        (slice(0, 3), slice(1, 4)),
        (slice(3, 4), slice(5, 6)),
        (slice(4, 6), slice(8, 10)),
    ]
    assert list(runs(())) == []
