"""UNet calls that are compiled beside: nobody waits, and the predictions are the eager call's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.compiling.blocks import compiled_twin, compiled_whole
from sdgrpc.diffusion.compiling.calls import UNetCall, UNetInputs, call_unet, padded_rows
from sdgrpc.diffusion.compiling.evaluator import Evaluator
from sdgrpc.diffusion.compiling.options import CompileOptions
from sdgrpc.diffusion.model import Model
from sdgrpc.lora.fusing.overlay import OverlaySwitch
from tests.support.models import save_model, save_sdxl_model

BLOCKS = CompileOptions("blocks")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A tiny model."""
    folder = save_model(tmp_path_factory.mktemp("models"))
    return load("tiny", folder, device=torch.device("cpu"), dtype=None)


@pytest.fixture(params=[save_model, save_sdxl_model], ids=["sd15", "sdxl"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    """One of each structure."""
    return load("tiny", request.param(tmp_path), device=torch.device("cpu"), dtype=None)


def inputs(model: Model, rows: int, side: int = 8, tokens: int = 77) -> UNetInputs:
    drawn = torch.Generator().manual_seed(rows)
    width = model.unet.config.cross_attention_dim
    pooled = time_ids = None
    if model.is_sdxl:
        projected = model.text_encoders["text_encoder_2"].config.projection_dim
        pooled, time_ids = torch.randn(rows, projected, generator=drawn), torch.full((rows, 6), 64.0)
    return UNetInputs(
        torch.randn(rows, 4, side, side, generator=drawn),
        torch.linspace(100, 900, rows),
        torch.randn(rows, tokens, width, generator=drawn),
        pooled,
        time_ids,
    )


class Counting:
    """A backend of torch.compile that counts graphs and runs them as they are; it can be held or fail."""

    def __init__(self) -> None:
        self.graphs = 0
        self.failure: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        assert self.gate.wait(60)
        if self.failure is not None:
            raise self.failure
        self.graphs += 1
        return graph.forward


@torch.inference_mode()
def test_the_first_call_waits_for_no_compilation(either: Model) -> None:
    """It is eager, and equal to the bit, while the compilation is held up; later ones are compiled."""
    backend = Counting()
    backend.gate.clear()
    evaluator = Evaluator(either.unet, BLOCKS, backend=backend)
    asked = inputs(either, 2)
    eager = call_unet(either.unet, asked)
    for _ in range(3):
        assert torch.equal(evaluator(asked), eager)
    assert evaluator.ready == ()
    backend.gate.set()
    evaluator.wait()
    assert [shape.rows for shape in evaluator.ready] == [2]
    torch.testing.assert_close(evaluator(asked), eager)
    evaluator.close()


@torch.inference_mode()
def test_one_compilation_for_each_power_of_two_and_none_for_sets(model: Model) -> None:
    """Rows 1 to 4 compile as 1, 2 and 4; twenty sets and repeated calls compile nothing more."""
    backend = Counting()
    evaluator = Evaluator(model.unet, BLOCKS, backend=backend)
    for rows in range(1, 5):
        evaluator(inputs(model, rows))
        evaluator.wait()
    assert [shape.rows for shape in evaluator.ready] == [1, 2, 4]
    compiled = backend.graphs
    switch = OverlaySwitch(model.unet)
    pristine = dict(model.unet.named_parameters())
    names = [name for name in pristine if name.endswith(("to_q.weight", "conv1.weight"))]
    for number in range(20):
        chosen = names[number % len(names) :][:3]
        with torch.inference_mode(mode=False):  # as sets are made
            switch.use({name: pristine[name].detach() * (1.1 + number) for name in chosen})
        asked = inputs(model, 1 + number % 4)
        torch.testing.assert_close(evaluator(asked), call_unet(model.unet, asked), rtol=1e-4, atol=1e-4)
    switch.use({})
    assert backend.graphs == compiled
    evaluator.close()


@torch.inference_mode()
def test_what_cannot_be_compiled_is_called_eagerly(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    """It is tried once, and the log says why; other shapes are tried."""
    backend = Counting()
    backend.failure = RuntimeError("no compiler")
    evaluator = Evaluator(model.unet, BLOCKS, backend=backend)
    asked = inputs(model, 2)
    for _ in range(2):
        assert torch.equal(evaluator(asked), call_unet(model.unet, asked))
        evaluator.wait()
    assert sum("cannot be compiled" in line and "no compiler" in line for line in caplog.messages) == 1
    backend.failure = None
    evaluator(inputs(model, 4))
    evaluator.wait()
    assert [shape.rows for shape in evaluator.ready] == [4]
    evaluator.close()


@torch.inference_mode()
def test_shapes_are_bounded(model: Model) -> None:
    """Beyond them everything is eager."""
    evaluator = Evaluator(model.unet, CompileOptions("blocks", max_shapes=1), backend=Counting())
    for rows in (2, 4):
        evaluator(inputs(model, rows))
        evaluator.wait()
    assert [shape.rows for shape in evaluator.ready] == [2]
    asked = inputs(model, 4)
    assert torch.equal(evaluator(asked), call_unet(model.unet, asked))
    evaluator.close()


@torch.inference_mode()
def test_graphs_used_longest_ago_go(model: Model) -> None:
    """Recorded calls are kept, so many of them; one that went is recorded again when it is asked for."""
    recorded: list[int] = []

    def record(call: UNetCall, example: UNetInputs, _: object) -> UNetCall:
        recorded.append(example.rows)
        return call

    options = CompileOptions("graphs", max_graphs=2)
    evaluator = Evaluator(model.unet, options, backend=Counting(), record=record)

    def ask(rows: int) -> None:
        asked = inputs(model, rows)
        torch.testing.assert_close(evaluator(asked), call_unet(model.unet, asked))
        evaluator.wait()

    for rows in (1, 2, 1, 4):
        ask(rows)
    assert [shape.rows for shape in evaluator.ready] == [1, 4]
    ask(2)
    assert [shape.rows for shape in evaluator.ready] == [4, 2]
    assert recorded == [1, 2, 4, 2]
    evaluator.close()


def test_off_has_no_thread_and_no_compilation(model: Model) -> None:
    """And calls the network itself."""
    before = threading.active_count()
    evaluator = Evaluator(model.unet, CompileOptions("off"))
    with torch.inference_mode():
        asked = inputs(model, 3)
        assert torch.equal(evaluator(asked), call_unet(model.unet, asked))
        evaluator.begin(asked).result(timeout=1)
    assert threading.active_count() == before
    evaluator.close()


def test_rows_are_padded_with_what_is_there() -> None:
    """The last row again and again, so that no value is out of the ordinary."""
    assert [padded_rows(rows) for rows in (1, 2, 3, 4, 5, 8, 9)] == [1, 2, 4, 4, 8, 8, 16]
    asked = UNetInputs(torch.arange(3.0)[:, None], torch.arange(3.0), torch.ones(3, 2, 1))
    padded = asked.padded(4)
    assert padded.timesteps.tolist() == [0, 1, 2, 2]
    assert padded.sample.flatten().tolist() == [0, 1, 2, 2]
    assert padded.pooled is None
    assert asked.padded(3) is asked


@pytest.mark.slow
@torch.inference_mode()
def test_inductor_predicts_as_the_eager_call(either: Model) -> None:
    """What is compiled in earnest, on the CPU, within float32's rounding; the same for a switched set."""
    evaluator = Evaluator(either.unet, BLOCKS)
    asked = inputs(either, 2)
    evaluator(asked)
    evaluator.wait()
    assert evaluator.ready
    expect_near(evaluator(asked), call_unet(either.unet, asked))
    name, weight = next(
        (name, one) for name, one in either.unet.named_parameters() if name.endswith("to_q.weight")
    )
    switch = OverlaySwitch(either.unet)
    with torch.inference_mode(mode=False):
        switch.use({name: weight.detach() * 3})
    expect_near(evaluator(asked), call_unet(either.unet, asked))
    switch.use({})
    evaluator.close()


@pytest.mark.slow
@torch.inference_mode()
def test_inductor_predicts_as_the_eager_call_as_a_whole(either: Model) -> None:
    """What is recorded as a graph where there are some, with another weight in place too."""
    twin, asked = compiled_whole(either.unet), inputs(either, 2)
    expect_near(call_unet(twin, asked), call_unet(either.unet, asked))
    name = "conv_in.weight"
    switch = OverlaySwitch(either.unet)
    with torch.inference_mode(mode=False):
        switch.use({name: either.unet.conv_in.weight.detach() * 3})
    expect_near(call_unet(twin, asked), call_unet(either.unet, asked))


def expect_near(some: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(some, other, rtol=1e-4, atol=1e-5)


def test_the_twin_shares_parameters_and_buffers(model: Model) -> None:
    """What is put into the one is in the other."""
    twin = compiled_twin(model.unet, "eager")
    assert type(twin) is type(model.unet)
    layer, other = model.unet.get_submodule("conv_in"), twin.get_submodule("conv_in")
    before = layer._parameters["weight"]
    layer._parameters["weight"] = replaced = nn.Parameter(torch.zeros(1), requires_grad=False)
    assert other.weight is replaced
    layer._parameters["weight"] = before
