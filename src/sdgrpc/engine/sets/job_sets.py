"""The sets of one job: one is used, the next is made ready beside its steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sdgrpc.diffusion.prompts.conditioning import Conditioning
from sdgrpc.domain import Phase
from sdgrpc.lora.fusing.lease import Lease


@dataclass(frozen=True, eq=False, slots=True)
class ReadySet:
    """A fused set, and what the prompts say in a step, from 0, encoded with its part in the text encoders."""

    lease: Lease
    told: Callable[[int], Conditioning]


class JobSets:
    """Goes through the phases of a job. The preparing thread puts sets, the step thread moves on to them.

    A set is held from when it is put until the next one begins, or until `close`. `on_begin` is told, on the
    thread that moves on, which phase begins with which step, from 0; `before_release` is called before a set
    is given back.
    """

    def __init__(
        self,
        phases: Sequence[Phase],
        *,
        on_begin: Callable[[int, int], None] = lambda _phase, _step: None,
        before_release: Callable[[], None] = lambda: None,
    ) -> None:
        self.phases = tuple(phases)
        self._on_begin, self._before_release = on_begin, before_release
        self._ready: list[ReadySet | None] = []
        self._current, self._decided, self._closed = -1, -1, False
        self._lock = threading.Lock()

    @property
    def current(self) -> ReadySet:
        """The set that is used now."""
        ready = self._ready[self._current]
        assert ready is not None, "a set is there before it is used"  # noqa: S101
        return ready

    @property
    def next_phase(self) -> Phase | None:
        """The phase whose set is to be made ready now: that after the one that is used, if there is one."""
        with self._lock:
            made = len(self._ready)
            return self.phases[made] if made < len(self.phases) and made <= self._current + 1 else None

    @property
    def is_complete(self) -> bool:
        """Whether the sets of all phases were made ready."""
        with self._lock:
            return len(self._ready) == len(self.phases)

    def end_of(self, phase: Phase) -> int | None:
        """The step, from 0, before which a phase ends at the latest; None for the last."""
        following = self.phases.index(phase) + 1
        return self.phases[following].begins if following < len(self.phases) else None

    def put(self, ready: ReadySet) -> None:
        """Take the set of `next_phase`; after `close` it is given back at once."""
        with self._lock:
            if not self._closed:
                self._ready.append(ready)
                return
        ready.lease.release()

    def conditioning_at(self, step: int) -> Conditioning | None:
        """Move on to the phase of a step, from 0, and return what the UNet is told in it.

        None where its set is not there yet: ask again once it was put. The set does not change within a step,
        however often it is asked for.
        """
        if step != self._decided:
            while (following := self._current + 1) < len(self.phases) and step >= self._earliest(following):
                if following < len(self._ready):
                    self._begin(following, step)
                elif step >= self.phases[following].begins:
                    return None
                else:
                    break
            self._decided = step
        return self.current.told(step)

    def _earliest(self, phase: int) -> int:
        return self.phases[phase].may_begin

    def _begin(self, phase: int, step: int) -> None:
        with self._lock:
            before = self._ready[phase - 1] if phase else None
            if before is not None:
                self._ready[phase - 1] = None
            self._current = phase
        self._on_begin(phase, step)
        if before is not None:
            self._before_release()
            before.lease.release()

    def close(self) -> None:
        """Give back every set, now and in the future."""
        with self._lock:
            self._closed = True
            held = [ready for ready in self._ready if ready is not None]
            self._ready = [None] * len(self._ready)
        for ready in held:
            ready.lease.release()
