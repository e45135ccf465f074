"""A model's first picture, which tells whether it is of use."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable

from sdgrpc.domain import Event, ModelInfo, Output, Picture, Sampling, SigmaSpacing, Task, TaskKind
from sdgrpc.engine.models.served_models import ServedModels
from sdgrpc.engine.supervision.runner import first_step_failed
from sdgrpc.errors import EngineFailed, OutOfMemory, SdgrpcError

logger = logging.getLogger(__name__)


def warm_up_task(info: ModelInfo) -> Task:
    """The smallest real task for a model: one guided step, at most 256 pixels wide, decoded.

    A model that can only inpaint redraws all of a black picture.
    """
    width, height = min(info.width, 256), min(info.height, 256)
    inpaints = info.is_inpainting
    return Task(
        kind=TaskKind.INPAINT if inpaints else TaskKind.GENERATE,
        request_id="warm-up",
        model=info.name,
        prompt="a picture",
        negative_prompt="",
        loras=(),
        sampling=Sampling(
            steps=1,
            guidance_scale=info.guidance_scale,
            scheduler=info.scheduler,
            sigma_spacing=SigmaSpacing.DEFAULT,
            seed=0,
            timestep_spacing=info.timestep_spacing,
        ),
        output=Output(omit_metadata=True),
        width=width,
        height=height,
        image=Picture(width, height, 3, bytes(3 * width * height)) if inpaints else None,
        mask=Picture(width, height, 1, b"\xff" * (width * height)) if inpaints else None,
    )


async def warm_up(models: ServedModels, draw: Callable[[Task], AsyncIterator[Event]]) -> None:
    """Load the models that are there from the start, and draw one small picture of one step with each.

    One that is loaded and fails is named in the log and refused from then on; the others are served.
    Where each of these fails, the models after them are tried, up to the first that works.

    Raises:
        ModelError, OutOfMemory: no model works; the failure is the first one's.
        EngineFailed: the engine cannot go on.

    """
    first = models.first
    failures: list[SdgrpcError] = []
    others = [info for info in models.infos if info not in first]
    for info in (*first, *others):
        if info not in first and len(failures) < len(first):
            break
        if (failure := await _first_failure(models, info, draw)) is not None:
            failures.append(failure)
        elif info not in first:
            break
    if len(failures) == len(models.infos):
        raise failures[0]


async def _first_failure(
    models: ServedModels, info: ModelInfo, draw: Callable[[Task], AsyncIterator[Event]]
) -> SdgrpcError | None:
    """Draw a model's first picture; return what went wrong, which the log has then."""
    started = time.monotonic()
    try:
        async for _ in draw(warm_up_task(info)):
            continue
    except EngineFailed:
        raise
    except Exception as error:  # whatever it is, other models may work
        known = isinstance(error, SdgrpcError)
        failure = error if isinstance(error, SdgrpcError) else first_step_failed(info.name)
        logger.error("model %s is not usable: %s", info.name, failure.message, exc_info=not known)
        if not isinstance(failure, OutOfMemory):  # of which there may be more later
            models.refuse(info.name, failure.message)
        return failure
    logger.info("model %s drew its first step in %.2f s", info.name, time.monotonic() - started)
    return None
