"""What a LoRA set is: its members in their fixed order, and its name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sdgrpc.domain import LoraRef, ResidentLora
from sdgrpc.lora.store.contents import LoraFile

MemberKey = tuple[str, float, float]


def member_key(file: LoraFile, ref: LoraRef) -> MemberKey:
    """Return what tells members of sets apart; also their order."""
    return file.identity, ref.strength, ref.text_encoder_strength


def residents(members: Sequence[tuple[LoraFile, LoraRef]]) -> tuple[ResidentLora, ...]:
    """Describe the members of a set in their fixed order."""
    return tuple(
        ResidentLora(file.sha256, ref.strength, ref.text_encoder_strength)
        for file, ref in sorted(members, key=lambda member: member_key(*member))
    )


def identify(members: Sequence[tuple[LoraFile, LoraRef]]) -> str:
    """Return the id of a set: the same for the same files at the same strengths in any order."""
    keys = sorted(member_key(file, ref) for file, ref in members)
    text = "\n".join(f"{sha256} {strength!r} {other!r}" for sha256, strength, other in keys)
    return hashlib.sha256(text.encode()).hexdigest()
