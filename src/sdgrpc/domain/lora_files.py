"""LoRA files as the catalog tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sdgrpc.domain.pictures import EncodedImage
from sdgrpc.domain.recommended import RecommendedSampling


@dataclass(frozen=True, slots=True)
class LoraInfo:
    """A LoRA file. `size` in bytes, `modified` in seconds since 1970; ranks are 0 where there is none.

    `base` is `sd15`, `sd2`, `sdxl`, `embedded` or `unknown`; `refusal` says why the model that was asked
    about cannot take it, and is empty if it can. `autov3` is the hash of A1111, 12 digits of another SHA-256.
    `preferred_strength` to `base_model` are what lies beside it says.
    """

    name: str
    sha256: str
    size: int
    modified: float
    base: str
    algorithms: tuple[str, ...] = ()
    rank_min: int = 0
    rank_max: int = 0
    trigger_words: tuple[str, ...] = ()
    refusal: str = ""
    autov3: str = ""
    recommended: RecommendedSampling | None = None
    preferred_strength: float | None = None
    has_thumbnail: bool = False
    air: str = ""
    base_model: str = ""

    @property
    def fits(self) -> bool:
        """Whether the model that was asked about can take it."""
        return not self.refusal


@dataclass(frozen=True, slots=True)
class LoraModuleInfo:
    """One module that a file changes; None where the file or the algorithm has no such number."""

    component: str
    path: str
    algorithm: str
    rank: int | None
    alpha: float | None
    delta_norm: float | None


@dataclass(frozen=True, slots=True)
class LoraDetails:
    """All that is known of a file. `modules` is empty unless it was asked for.

    `picture` is where a picture lies beside it, `thumbnail` what was made of that; `beside_warnings` are what
    of the files beside it was ignored.
    """

    info: LoraInfo
    tensor_count: int
    module_count: int
    unmatched: tuple[str, ...]
    metadata: Mapping[str, str] = field(repr=False)
    modules: tuple[LoraModuleInfo, ...] = ()
    picture: Path | None = None
    thumbnail: EncodedImage | None = None
    beside_warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoraQuery:
    """Which files to list: at most `limit` by name after the name `after`, judged against `model`."""

    model: str
    limit: int
    after: str = ""
    base: str = ""
    fitting_only: bool = False


@dataclass(frozen=True, slots=True)
class LoraPage:
    """Files by name, and whether more may follow."""

    loras: tuple[LoraInfo, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class UploadHeader:
    """What an upload says of itself: `sha256` in lower-case hex, `size` in bytes."""

    name: str
    sha256: str
    size: int
