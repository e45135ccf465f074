"""What front doors tell each other of a job that outlives its connection.

Events and jobs are messages of the contract, which only the API reads.
"""

from __future__ import annotations

from dataclasses import dataclass

from sdgrpc.errors import SdgrpcError

Key = tuple[str, str]
"""The caller's name and the `request_id`."""

UNKNOWN, REFUSED = -1, -2
"""Answers to a `Telling`, instead of a number of events: tell all of it; tell no more, it is another's."""


@dataclass(frozen=True, slots=True)
class KeptRequest:
    """A request as its front door begins to draw it.

    Attributes:
        key: whose it is, and its id.
        run: names this drawing; who draws the id anew gives another.
        kind: `generate`, `transform` or `inpaint`.
        digest: of its content, see `sdgrpc.api.jobs.content`.
        seed: that it gave, if it gave one.
        drawn_seed: that it is drawn with, whoever draws it.
        request: the contract's message; empty once it need not be drawn any more.
        created: a time of the wall clock, in seconds.
        deadline: another one, by which it is to be drawn; None where it may take for ever.

    """

    key: Key
    run: str
    kind: str
    digest: bytes
    seed: int | None
    drawn_seed: int
    request: bytes
    created: float
    deadline: float | None


@dataclass(frozen=True, slots=True)
class Telling:
    """What a front door tells of a job that it draws.

    Attributes:
        key, run: as `KeptRequest`.
        start: the sequence of the first of `events`.
        events: those that come next.
        job: what ListJobs is to say of it.
        request: where it may not be known yet.
        has_ended: `events` has the last one.
        error: what it failed by.
        expires: when it is forgotten, once it has ended; a time of the wall clock.
        is_refused: it was refused before anybody was told of it; there is nothing to keep.

    """

    key: Key
    run: str
    start: int = 0
    events: tuple[bytes, ...] = ()
    job: bytes = b""
    request: KeptRequest | None = None
    has_ended: bool = False
    error: SdgrpcError | None = None
    expires: float = 0.0
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a job: its request without its bytes, ListJobs' words as its door last told them.

    `door` draws it, or drew it. Where it `has_ended`, by `error` if it failed, it is kept until `expires`.
    """

    request: KeptRequest
    door: str
    job: bytes
    last_sequence: int
    is_cancelled: bool
    has_ended: bool
    error: SdgrpcError | None
    expires: float

    @property
    def is_void(self) -> bool:
        """Whether the same request has to be drawn anew."""
        return self.is_cancelled or self.error is not None


@dataclass(frozen=True, slots=True)
class Page:
    """Events of a job that follow the one that was asked for; with `has_ended` there are no more."""

    events: tuple[bytes, ...]
    has_ended: bool
    error: SdgrpcError | None


@dataclass(frozen=True, slots=True)
class Taken:
    """A job of a front door that died, and what it had told of it."""

    request: KeptRequest
    events: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Orders:
    """What a front door is to do. Another `life` is that of a registry that knows nothing yet.

    `cancels` are to be ended, by their keys and runs; `orphans` wait for somebody who draws them.
    """

    life: str
    cancels: tuple[tuple[Key, str], ...] = ()
    orphans: tuple[Key, ...] = ()
