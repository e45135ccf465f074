"""A step of the UNet: ours as it is, with compiled blocks and as recorded graphs, beside diffusers'."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.subject import Subject
from benchmarks.gpu.timing import Clock, Work, alternate
from sdgrpc.diffusion.compiling.calls import call_unet
from sdgrpc.diffusion.compiling.evaluator import Evaluator
from sdgrpc.diffusion.compiling.graphs import Graph
from sdgrpc.diffusion.compiling.options import CompileOptions, Mode

Record = dict[str, Any]
ROUNDS = 12


@torch.inference_mode()
def steps(subject: Subject, clock: Clock, rows: tuple[int, ...], modes: Sequence[Mode]) -> Iterator[Record]:
    """Yield a record for each number of rows: the median seconds of a call, and what compiling took."""
    unet, device = subject.model.unet, subject.model.device
    evaluators = {mode: Evaluator(unet, CompileOptions(mode)) for mode in modes}
    for count in rows:
        if clock.left < 35:
            yield {"rows": count, "skipped": "no time left"}
            continue
        inputs = subject.inputs(count)
        eager = partial(call_unet, unet, inputs)
        works: dict[str, Work] = {"eager": eager}
        record: Record = {"rows": count}
        if device.type == "cuda":
            works["eager, recorded"] = partial(Graph(partial(call_unet, unet), inputs, None), inputs)
        yield record | _summary(alternate(works, ROUNDS, device))  # compiling may take all the time left
        for name, evaluator in evaluators.items():
            started = time.perf_counter()
            evaluator.begin(inputs).result()
            record[f"{name}: seconds until ready"] = time.perf_counter() - started
            works[name] = partial(evaluator, inputs)
        times = alternate(works, ROUNDS, device)
        yield record | _summary(times) | {"errors": _errors(works)}
    for evaluator in evaluators.values():
        evaluator.close()


@torch.inference_mode()
def whole(subject: Subject, clock: Clock, rows: int, needed: float) -> Record:
    """Time `torch.compile(unet)`, as diffusers' users compile it, beside the same UNet as it is."""
    if clock.left < needed:
        return {"rows": rows, "skipped": "no time left"}
    unet, inputs = subject.model.unet, subject.inputs(rows)
    compiled = torch.compile(unet, dynamic=False)
    started = time.perf_counter()
    call_unet(compiled, inputs)
    record = {"rows": rows, "compile_seconds": time.perf_counter() - started}
    works: dict[str, Work] = {
        "diffusers": partial(call_unet, unet, inputs),
        "diffusers, compiled": partial(call_unet, compiled, inputs),
    }
    if subject.model.device.type == "cuda":
        works["diffusers, compiled, recorded"] = partial(
            Graph(partial(call_unet, compiled), inputs, None), inputs
        )
    times = alternate(works, ROUNDS, subject.model.device)
    return record | _summary(times) | {"errors": _errors(works)}


def _summary(times: dict[str, list[float]]) -> Record:
    middle = {name: statistics.median(values) for name, values in times.items()}
    spread = {name: [min(values), max(values)] for name, values in times.items()}
    return {"seconds": middle, "range": spread}


def _errors(works: dict[str, Work]) -> dict[str, float]:
    """How far each prediction is from the first one's, relative to it."""
    answers = {}
    for name, work in works.items():
        answer = work()
        assert isinstance(answer, torch.Tensor)  # noqa: S101 - the works are calls of a UNet
        answers[name] = answer.float().clone()
    first = next(iter(answers.values()))
    return {name: float((one - first).norm() / first.norm()) for name, one in answers.items()}
