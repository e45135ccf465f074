"""Whether two requests ask for the same pictures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Self

from google.protobuf.message import Message

from sdgrpc.api.codec import KINDS, Request
from sdgrpc.errors import JobExists
from sdgrpc.v1 import diffusion_pb2 as pb

NOT_CONTENT = ("request_id", "on_disconnect")


@dataclass(frozen=True, slots=True)
class Content:
    """What a request asks for: a digest of all but its seed, and the seed where it gives one."""

    digest: bytes
    seed: int | None

    @classmethod
    def of(cls, request: Request) -> Self:
        """Return the content of a request; takes as long as hashing its pictures does."""
        digest = hashlib.sha256(KINDS[type(request)].value.encode())
        for field, value in request.ListFields():
            if field.name not in NOT_CONTENT:
                digest.update(f"{field.name}:".encode())
                for part in value if field.is_repeated else [value]:
                    written = _written(part)
                    digest.update(f"{len(written)}:".encode())
                    digest.update(written)
        sampling = request.sampling
        return cls(digest.digest(), sampling.seed if sampling.HasField("seed") else None)

    def is_same(self, kept: Content, drawn_seed: int | None) -> bool:
        """Tell whether this request may be answered by the job of `kept`, which drew from `drawn_seed`.

        A client that resumes gives the seed that it was told, where its first request gave none.
        """
        if self.digest != kept.digest:
            return False
        return self.seed == kept.seed or (self.seed is not None and self.seed == drawn_seed)


def _written(value: object) -> bytes:
    """A field's value; that of a message is its bytes, of Sampling without the seed."""
    if isinstance(value, pb.Sampling):
        bare = pb.Sampling()
        bare.CopyFrom(value)
        bare.ClearField("seed")
        value = bare
    return value.SerializeToString(deterministic=True) if isinstance(value, Message) else repr(value).encode()


def other_content(request_id: str) -> JobExists:
    """The failure of a request whose id another one has."""
    return JobExists(
        f"a job {request_id!r} with other content is kept here; give this one another "
        "request_id, or attach to that one"
    )
