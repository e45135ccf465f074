"""What a LoRA did to a model, in the words of the contract."""

from __future__ import annotations

from collections import Counter

from sdgrpc.domain import LoraRef, LoraReport
from sdgrpc.lora.fusing.fuser import Fuser, Member
from sdgrpc.lora.store.contents import LoraFile

EXAMPLES = 5


def report(file: LoraFile, ref: LoraRef, member: Member, fuser: Fuser) -> LoraReport:
    """Describe what `member`, made from `file`, changes at its strengths."""
    prepared = member.prepared
    return LoraReport(
        name=file.name,
        sha256=file.sha256,
        algorithms=tuple(sorted({placed.source.label for placed in prepared.placement.placed})),
        modules=dict(Counter(placed.target.component for placed in member.active())),
        relative_norm=fuser.relative_norm(member),
        strength=ref.strength,
        text_encoder_strength=ref.text_encoder_strength,
        unmatched_tensors=len(prepared.unmatched),
        unmatched_examples=prepared.unmatched[:EXAMPLES],
        warnings=tuple(warnings(member)),
    )


def warnings(member: Member) -> list[str]:
    """Say what about a file may surprise its user."""
    placement, norms = member.prepared.placement, member.prepared.norms
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
    return said + member.prepared.vocabulary.warnings()
