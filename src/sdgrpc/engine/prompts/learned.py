"""The words of a job's prompts that a folder's textual inversions give a meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.chunks import words_of
from sdgrpc.diffusion.prompts.reading import PromptContext
from sdgrpc.diffusion.prompts.syntax import parse
from sdgrpc.lora.embeddings.library import NOTHING, EmbeddingLibrary, Learned
from sdgrpc.lora.fusing.prompt_part import PromptPart


def learned_words(
    library: EmbeddingLibrary, widths: Mapping[str, int], prompts: Sequence[str | None]
) -> Learned:
    """Read the textual inversions that prompts use, for text encoders of widths; others are not opened."""
    names = [*library.words()]
    used = {
        word.text
        for prompt in prompts
        if prompt and names
        for section in words_of(parse(prompt), names)
        for word in section
        if word.is_learned
    }
    return library.learned(used, widths) if used else NOTHING


def context_of(part: PromptPart, learned: Learned, activate: Callable[[], None]) -> PromptContext:
    """Return what a set and the textual inversions that prompts use mean for them.

    What a LoRA of the request brings goes before a folder's word of that name.
    """
    own = {*part.tokens, *part.disputed}
    refused = {word: why for word, why in learned.refused.items() if word not in own}
    tokens = {word: vectors for word, vectors in learned.tokens.items() if word not in own}
    return PromptContext(part.text_encoders, {**tokens, **part.tokens}, part.disputed, activate, refused)


def widths_of(model: Model) -> dict[str, int]:
    """Return how wide the vectors of each text encoder are."""
    return {
        name: int(encoder.get_input_embeddings().weight.shape[1])
        for name, encoder in model.text_encoders.items()
    }
