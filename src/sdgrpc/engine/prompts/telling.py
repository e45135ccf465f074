"""What the UNet is told in each step: every text that the prompts say, encoded."""

from __future__ import annotations

from collections.abc import Callable

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.cache import PromptCache
from sdgrpc.diffusion.prompts.conditioning import Conditioning, encode
from sdgrpc.diffusion.prompts.reading import PromptContext
from sdgrpc.engine.prompts.texts import PromptTexts

Telling = Callable[[int], Conditioning]
"""Given a step, from 0; the same object wherever the same is said."""


def telling(
    model: Model,
    texts: PromptTexts,
    steps: tuple[int, int | None],
    clip_skip: int,
    context: PromptContext,
    cache: PromptCache,
    check_wanted: Callable[[], None],
) -> Telling:
    """Encode what is said from one step until before another, each text once.

    Args:
        model: whose text encoders run.
        texts: of all steps.
        steps: the first of them, from 0, and the one that comes after the last; None for all that follow.
        clip_skip: see `encode`; so are `context` and `cache`.
        context: what LoRAs and learned words make of the prompts.
        cache: where encoded prompts are looked up and kept.
        check_wanted: raises where nobody waits for the job any more; called before each text.

    Raises:
        InvalidRequest: as `encode`.

    """
    encoded: dict[tuple[str, str | None], Conditioning] = {}
    for said in texts.within(*steps):
        check_wanted()
        encoded[said] = encode(model, *said, clip_skip=clip_skip, context=context, cache=cache)
    return lambda step: encoded[texts.at(step)]
