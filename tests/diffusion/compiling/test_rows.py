"""Rows of a UNet call shared out among cores."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from sdgrpc.diffusion.compiling import rows
from sdgrpc.diffusion.compiling.calls import UNetCall, UNetInputs
from sdgrpc.diffusion.compiling.rows import share_rows
from sdgrpc.machine.workers import Workers

CORES = 3


class Calls:
    """A UNet that adds up what it is told of each row, and notes who called it and with how many."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int, bool]] = []

    def __call__(self, inputs: UNetInputs) -> Tensor:
        name = threading.current_thread().name
        self.made.append((name, inputs.rows, torch.is_inference_mode_enabled()))
        sums = sum(one.flatten(1).sum(1) for one in inputs.tensors if one.ndim > 1)
        assert isinstance(sums, Tensor)
        return (sums + inputs.timesteps).view(-1, 1, 1, 1).expand(-1, 4, 2, 2)


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def shared(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> UNetCall:
    """It is called on a machine with three cores."""
    workers = Workers(CORES, "test-rows")
    monkeypatch.setattr(rows, "step_workers", lambda: workers)
    monkeypatch.setattr(torch, "get_num_threads", lambda: CORES)
    return share_rows(calls)


def inputs(count: int, *, sdxl: bool = False) -> UNetInputs:
    drawn = torch.Generator().manual_seed(count)
    added = [torch.randn(count, 5, generator=drawn), torch.full((count, 6), 8.0)] if sdxl else []
    return UNetInputs(
        torch.randn(count, 4, 2, 2, generator=drawn),
        torch.arange(float(count)),
        torch.randn(count, 77, 8, generator=drawn),
        *added,
    )


@pytest.mark.parametrize("sdxl", [False, True])
@pytest.mark.parametrize("count", [CORES, 4 * CORES])
def test_each_core_has_as_many(shared: UNetCall, calls: Calls, count: int, sdxl: bool) -> None:
    """In their order, all that a row is told with it, on the pool's threads and without gradients."""
    asked = inputs(count, sdxl=sdxl)
    found = shared(asked)
    assert {made[1:] for made in calls.made} == {(count // CORES, True)}
    assert len(calls.made) == CORES
    assert all(name.startswith("test-rows") for name, _, _ in calls.made)
    assert torch.equal(found, Calls()(asked))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_does_not_come_out_is_one_call(shared: UNetCall, calls: Calls, count: int) -> None:
    """Cores that have nothing to do would be lost."""
    shared(inputs(count))
    assert calls.made == [(threading.current_thread().name, count, False)]


def test_a_thread_of_one_core_calls_by_itself(
    shared: UNetCall, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was given its share already."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    shared(inputs(CORES))
    assert calls.made == [(threading.current_thread().name, CORES, False)]


def test_a_failure_is_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a core met is raised, and the next call is made as ever."""
    workers = Workers(2, "test-rows")
    monkeypatch.setattr(rows, "step_workers", lambda: workers)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    failures = [torch.OutOfMemoryError("no memory for this row")]

    def fails_once(asked: UNetInputs) -> Tensor:
        if asked.timesteps[0] == 0 and failures:
            raise failures.pop()
        return Calls()(asked)

    shared = share_rows(fails_once)
    with pytest.raises(torch.OutOfMemoryError, match="this row"):
        shared(inputs(2))
    assert torch.equal(shared(inputs(2)), Calls()(inputs(2)))
