"""What of a call was seen, and how a call that was cut goes on.

`accepted` told the seed: the same request with it draws the same pictures, to the byte where jobs share no
UNet calls. So it is sent again, and what was seen is left out. A job that the server keeps is found so, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sdgrpc.client.errors import DeadlineExceededError, IncompleteAnswerError, SdgrpcServerError
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import jobs_pb2

DEFAULT_SECONDS = 10.0
"""How long a call that was cut is tried again until a server takes it."""

MOST_RESUMPTIONS = 5
"""How often a job is begun anew in all: what ends server after server is not to end all of them."""

FIRST_WAIT, LONGEST_WAIT = 0.1, 2.0

CLOCK_TOLERANCE = 0.05
"""Seconds by which a proxy's clock may run ahead of ours: a reset so close to the deadline is it."""

Request = pb.GenerateRequest | pb.TransformRequest | pb.InpaintRequest | jobs_pb2.AttachJobRequest


@dataclass
class Resumption:
    """One job's calls: `request` is what to send next, `seconds` 0 tries nothing again.

    `timeout` is the seconds that the job may take in all; None has no end.
    """

    request: Request
    seconds: float = DEFAULT_SECONDS
    timeout: float | None = None
    clock: Callable[[], float] = time.monotonic
    accepted: bool = False
    finished: bool = False
    _seen: set[tuple[str, int]] = field(default_factory=set)
    _first_failure: SdgrpcServerError | None = None
    _cut_at: float = 0.0
    _wait: float = FIRST_WAIT
    _count: int = 0

    def __post_init__(self) -> None:
        self._deadline = None if self.timeout is None else self.clock() + self.timeout

    def time_left(self) -> float | None:
        """Return the timeout of the next call in seconds, None without one."""
        return None if self._deadline is None else max(self._deadline - self.clock(), 0.0)

    def is_new(self, message: pb.JobEvent) -> bool:
        """Take note of an event; tell whether it was not seen before."""
        if self._first_failure is not None:  # a server has taken it up
            self._first_failure, self._wait = None, FIRST_WAIT
            self._count += 1
        key = key_of(message)
        if key in self._seen:
            return False
        self._seen.add(key)
        self._note(message)
        return True

    def wait_after(self, failure: SdgrpcServerError) -> float | None:
        """Return in how many seconds to send `request` again; None where the call is over.

        `failure` is how it ended; see `failure_after` for what to say then.
        """
        if not self.accepted or self.finished or not is_cut(failure) or self._count >= MOST_RESUMPTIONS:
            return None
        if self._first_failure is None:
            self._first_failure, self._cut_at = failure, self.clock()
        wait = max(self._wait, failure.retry_after or 0.0)
        self._wait = min(2 * self._wait, LONGEST_WAIT)
        if self.clock() + wait - self._cut_at > self.seconds:
            return None
        left = self.time_left()
        return None if left is not None and wait >= left else wait

    def failure_after(self, failure: SdgrpcServerError) -> SdgrpcServerError:
        """Return what ended the job.

        That is how it was cut, where nobody took it up, rather than how that failed. A proxy resets the
        stream at the deadline, perhaps before this side's clock has come to it.
        """
        left = self.time_left()
        if left is not None and left <= CLOCK_TOLERANCE and is_reset(failure):
            return DeadlineExceededError("DEADLINE_EXCEEDED", "the job's deadline passed")
        return self._first_failure if self._first_failure is not None and is_cut(failure) else failure

    def _note(self, message: pb.JobEvent) -> None:
        """Make `request` the one that goes on from here."""
        request, kind = self.request, message.WhichOneof("event")
        self.accepted = True
        self.finished = self.finished or kind == "finished"
        if isinstance(request, jobs_pb2.AttachJobRequest):
            request.after_sequence = message.sequence
        elif kind == "accepted":
            request.request_id = message.request_id
            request.sampling.seed = message.accepted.sampling.seed


def key_of(message: pb.JobEvent) -> tuple[str, int]:
    """What an event of a job is, whoever draws it."""
    kind = message.WhichOneof("event") or ""
    match kind:
        case "progress":
            return kind, message.progress.step
        case "image":
            return kind, message.image.index
        case "":
            return kind, message.sequence  # of a newer contract
    return kind, 0


def is_cut(failure: SdgrpcServerError) -> bool:
    """Whether a call ended because its server or connection did, or because there is none yet."""
    if isinstance(failure, IncompleteAnswerError):
        return True
    return failure.code == "UNAVAILABLE" or is_reset(failure)


def is_reset(failure: SdgrpcServerError) -> bool:
    """Whether the stream was reset, which is no server's word."""
    return failure.code in ("INTERNAL", "UNKNOWN") and not failure.reason
