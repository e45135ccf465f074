"""What a LoRA set is: its members in their fixed order, and its name. Made once for each request."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sdgrpc.domain import LoraRef, ResidentLora
from sdgrpc.domain.blocks import Factors
from sdgrpc.lora.store.contents import FoundLora

MemberKey = tuple[str, float, float, Factors]


@dataclass(frozen=True, slots=True)
class SetMember:
    """A file of a request and how strongly it is asked for; `key` tells members apart, and is their order."""

    file: FoundLora
    ref: LoraRef
    key: MemberKey

    @classmethod
    def of(cls, file: FoundLora, ref: LoraRef) -> SetMember:
        """Name a member by its content and strengths."""
        return cls(file, ref, (file.identity, ref.strength, ref.text_encoder_strength, ref.block_factors))

    @property
    def changes_anything(self) -> bool:
        """Whether it has a strength."""
        return bool(self.ref.strength or self.ref.text_encoder_strength)


@dataclass(frozen=True, slots=True)
class LoraSet:
    """The files of a request as they were asked for, and as a set.

    Attributes:
        asked: every file, in the request's order.
        members: those with a strength, in an order that does not depend on the request's.
        set_id: the same for the same members; empty where there are none.

    """

    asked: Sequence[SetMember]
    members: Sequence[SetMember]
    set_id: str

    @classmethod
    def of(cls, files: Sequence[tuple[FoundLora, LoraRef]]) -> LoraSet:
        """Make the set of these files at these strengths."""
        asked = tuple(SetMember.of(file, ref) for file, ref in files)
        members = tuple(sorted((one for one in asked if one.changes_anything), key=_key))
        text = "\n".join(map(_line, members))
        return cls(asked, members, hashlib.sha256(text.encode()).hexdigest() if members else "")

    def residents(self) -> tuple[ResidentLora, ...]:
        """Describe the members for the engine's status."""
        return tuple(
            ResidentLora(
                one.file.sha256, one.ref.strength, one.ref.text_encoder_strength, one.ref.block_weights
            )
            for one in self.members
        )


def _line(member: SetMember) -> str:
    identity, strength, text_encoder_strength, factors = member.key
    blocks = "".join(f" {part}*{factor!r}" for part, factor in factors)
    return f"{identity} {strength!r} {text_encoder_strength!r}{blocks}"


def _key(member: SetMember) -> MemberKey:
    return member.key
