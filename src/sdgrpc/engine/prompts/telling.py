"""What the UNet is told in each step: every text that the prompts say, encoded."""

from __future__ import annotations

from collections.abc import Callable

from sdgrpc.diffusion.prompts.conditioning import Conditioning
from sdgrpc.engine.prompts.texts import PromptTexts, Said

Telling = Callable[[int], Conditioning]
"""Given a step, from 0; the same object wherever the same is said."""


def telling(
    texts: PromptTexts, steps: tuple[int, int | None], encode: Callable[[Said], Conditioning]
) -> Telling:
    """Encode what is said from one step until before another, each text once.

    Args:
        texts: of all steps.
        steps: the first of them, from 0, and the one that comes after the last; None for all that follow.
        encode: makes of a prompt and a negative one what the UNet is told; whatever it raises goes on.

    """
    encoded = {said: encode(said) for said in texts.within(*steps)}
    return lambda step: encoded[texts.at(step)]
