"""What a LoRA did to a model, in the words of the contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sdgrpc.domain import LoraReport
from sdgrpc.errors import LoraIncompatible
from sdgrpc.lora.bases.placement import Placement
from sdgrpc.lora.dialects.tokens import Vocabulary
from sdgrpc.lora.fusing.fuser import Fuser, Member
from sdgrpc.lora.fusing.lora_set import SetMember
from sdgrpc.lora.fusing.placed_file import Parameter, PlacedFile
from sdgrpc.lora.headers.made_for import made_for

EXAMPLES = 5


def report(asked: SetMember, member: Member, fuser: Fuser) -> LoraReport:
    """Describe what `member`, made from the file that was asked for, changes at its strengths."""
    file, ref, placed_file = asked.file, asked.ref, member.placed_file
    return LoraReport(
        name=file.name,
        sha256=file.sha256,
        algorithms=tuple(sorted({placed.source.label for placed in placed_file.placement.placed})),
        modules=dict(Counter(placed.target.component for placed in member.active())),
        relative_norm=fuser.relative_norm(member),
        strength=ref.strength,
        text_encoder_strength=ref.text_encoder_strength,
        block_weights=ref.block_weights,
        unmatched_tensors=len(placed_file.unmatched),
        unmatched_examples=placed_file.unmatched[:EXAMPLES],
        warnings=_warnings_of(placed_file),
        autov3=placed_file.autov3,
        recommended=placed_file.recommended or made_for(file.name),
    )


def _warnings_of(placed_file: PlacedFile) -> tuple[str, ...]:
    """Make a file's warnings once for what is known of its norms, which only become more."""
    known, said = placed_file.warned
    if known != len(placed_file.norms):
        said = tuple(warnings(placed_file.placement, placed_file.norms, placed_file.vocabulary))
        placed_file.warned = len(placed_file.norms), said
    return said


def unmatched_refused(name: str, made: LoraReport) -> LoraIncompatible:
    """The failure of a file with tensors that find no place, where `strict` was asked for."""
    examples = ", ".join(repr(key) for key in made.unmatched_examples)
    return LoraIncompatible(
        name,
        f"{made.unmatched_tensors} tensors find no place in the model ({examples}), and strict was asked for",
        key=made.unmatched_examples[0],
    )


def warnings(
    placement: Placement, norms: Mapping[Parameter, float | None], vocabulary: Vocabulary
) -> list[str]:
    """Say what about a file may surprise its user.

    Args:
        placement: where its modules go.
        norms: of their changes at strength 1, as far as they are known.
        vocabulary: what its tokens are for the model.

    """
    total = len(placement.placed)
    said = []
    sources = [placed.source for placed in placement.placed]
    if alphas := sum(source.alpha == 0 and source.uses_alpha for source in sources):
        said.append(f"alpha is 0 in {alphas} of {total} modules, which therefore change nothing")
    if absent := sum(source.misses_alpha for source in sources):
        said.append(f"alpha is missing in {absent} of {total} modules, which are applied with a scale of 1")
    if integers := sum(source.has_integer_alpha for source in sources):
        said.append(f"alpha is stored as an integer in {integers} of {total} modules and used as it is")
    zeros = sum(
        placed.source.alpha != 0 and all(norms.get(parameter) == 0 for parameter in placed.parameters)
        for placed in placement.placed
    )
    if zeros:
        said.append(f"{zeros} of {total} modules hold only zeros and change nothing")
    if placement.repeated:
        said.append(
            f"{len(placement.repeated)} modules are there twice, under diffusers' and LDM's names; "
            "the latter are left out"
        )
    return said + vocabulary.warnings()
