"""What `FusedSets.acquire` returns."""

from __future__ import annotations

from collections.abc import Callable

from sdgrpc.domain import LoraReport
from sdgrpc.lora.fusing.overlay import Overlay
from sdgrpc.lora.fusing.prompt_part import NO_PROMPT_PART, PromptPart


class Lease:
    """A set that stays fused until it is released. Usable as a context manager.

    Attributes:
        set_id: same set, same id; empty where no LoRA has a strength.
        cached: whether the set was there already, or being made for somebody else.
        fuse_seconds: what reading and fusing took; 0 for a cached set.
        reports: one per member, in the order asked for.
        overlay: the weights; valid until `release`.
        prompt_part: what the set means for prompts.

    """

    def __init__(
        self,
        set_id: str,
        overlay: Overlay,
        reports: tuple[LoraReport, ...],
        *,
        cached: bool,
        fuse_seconds: float,
        prompt_part: PromptPart = NO_PROMPT_PART,
        on_release: Callable[[], None] = lambda: None,
    ) -> None:
        self.set_id, self.overlay, self.reports = set_id, overlay, reports
        self.cached, self.fuse_seconds, self.prompt_part = cached, fuse_seconds, prompt_part
        self._on_release: list[Callable[[], None]] = [on_release]

    def release(self) -> None:
        """Give the set back; calling it again does nothing."""
        try:
            on_release = self._on_release.pop()  # atomic, so that two threads release once
        except IndexError:
            return
        on_release()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
