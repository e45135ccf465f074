"""Which files have their factors on the device."""

from __future__ import annotations

import torch

from sdgrpc.lora.store.contents import FoundLora
from tests.support.fused import EVERYWHERE
from tests.support.loras import LINEAR, kohya_file, lora_file, ref, small_components
from tests.support.resident import Fused, Multiplied


def test_a_resident_file_is_not_read_again():
    """Neither for another strength nor in other company, whatever became of the parsed file."""
    multiplied = Multiplied()
    file = lora_file(kohya_file(*EVERYWHERE))
    reads = []

    def load():
        reads.append(file)
        return file.adapter()

    counted = FoundLora(file.name, file.sha256, load)
    for strength in (0.5, 0.6, 0.7):
        multiplied.use([(counted, ref(strength))])
    multiplied.use([(counted, ref(0.5)), (lora_file(kohya_file(LINEAR, seed=2), "b"), ref(1.0))])
    assert len(reads) == 1
    assert multiplied.files.count == 2


def test_factors_are_bounded():
    """Those used longest ago go; a set of files that went is made again, the same."""
    files = [lora_file(kohya_file(*EVERYWHERE, seed=seed), f"f{seed}") for seed in range(4)]
    unbounded = Multiplied()
    unbounded.use([(files[0], ref(0.5))])
    one = unbounded.files.nbytes
    bounded = Multiplied(capacity_bytes=int(2.5 * one))
    first = bounded.use([(files[0], ref(0.5))])
    for file in files[1:]:
        bounded.use([(file, ref(0.5))])
        assert bounded.files.nbytes <= 2.5 * one
    assert bounded.files.count == 2
    assert bounded.files.placed(files[0].identity) is None
    again = bounded.use([(files[0], ref(0.5))])
    assert all(torch.equal(again[name], weight) for name, weight in first.items())


def test_a_set_counts_its_factors():
    """Not the weights that it is multiplied into."""
    multiplied = Multiplied()
    multiplied.use([(lora_file(kohya_file(LINEAR, rank=2)), ref(0.5))])
    rows, columns = weight_shape()
    assert multiplied.sets.stats().bytes == 4 * 2 * (rows + columns)


def weight_shape() -> tuple[int, int]:
    shape = dict(small_components()["unet"].named_parameters())[f"{LINEAR}.weight"].shape
    return int(shape[0]), int(shape[1])


def test_what_would_overflow_is_fused_whole():
    """A factor that float16 cannot hold, in a set whose weights it can."""
    tensors = kohya_file(LINEAR, alpha=None)
    up = next(key for key in tensors if "lora_up" in key)
    down = next(key for key in tensors if "lora_down" in key)
    tensors[up], tensors[down] = tensors[up] * 1e6, tensors[down] * 1e-7
    multiplied = Multiplied(small_components(torch.float16))
    with multiplied.acquire([(lora_file(tensors), ref(1.0))]) as lease:
        assert not any(lease.overlay.products.values())
        assert all(torch.isfinite(one).all() for one in lease.overlay.tensors["unet"].values())


def test_reports_are_those_of_fused_sets():
    """The norms come from the batches."""
    members = [(lora_file(kohya_file(*EVERYWHERE)), ref(0.5))]
    (expected,) = Fused().sets.acquire(members).reports
    (made,) = Multiplied().acquire(members).reports
    assert abs(made.relative_norm - expected.relative_norm) < 1e-6 * expected.relative_norm
    assert made.modules == expected.modules
