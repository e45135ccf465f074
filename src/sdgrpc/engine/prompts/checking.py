"""What a job would refuse of its prompts' words once it encodes them, told without encoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdgrpc.diffusion.prompts.reading import word_faults
from sdgrpc.domain import Task
from sdgrpc.domain.phases import phases
from sdgrpc.engine.prompts.learned import context_of, learned_words
from sdgrpc.engine.prompts.texts import PromptTexts
from sdgrpc.errors import FieldViolation, InvalidRequest
from sdgrpc.lora.dialects.tokens import Vocabulary
from sdgrpc.lora.embeddings.library import EmbeddingLibrary
from sdgrpc.lora.fusing.prompt_part import PromptPart, merged


def check_words(
    task: Task, library: EmbeddingLibrary, widths: Mapping[str, int], vocabularies: Sequence[Vocabulary]
) -> None:
    """Judge what the prompts of a task say in all steps, each by what the LoRAs of its steps bring.

    Args:
        task: whose prompts they are.
        library: the textual inversions that may stand in them; those that do are read.
        widths: text encoder -> how wide its vectors are.
        vocabularies: what each LoRA of the task brings for prompts.

    Raises:
        InvalidRequest: with the violations that the job would end with.

    """
    texts, planned = PromptTexts.of(task), phases(task)
    learned = learned_words(library, widths, texts.every)
    for phase, end in zip(planned, [*(one.begins for one in planned[1:]), None], strict=True):
        tokens, disputed = merged(vocabularies[place] for place in phase.loras)
        context = context_of(PromptPart("", tokens, disputed), learned, lambda: None)
        for parts, negative in texts.within(phase.begins, end):
            said = [*(("prompt", part) for part in parts), ("negative_prompt", negative or "")]
            found = [(field, fault) for field, text in said for fault in word_faults(text, context)]
            if found:
                raise InvalidRequest([FieldViolation(*each) for each in dict.fromkeys(found)])
