"""Textual inversions inside LoRA files: a name and the vectors that stand for it in the prompt.

Keys: `bundle_emb.NAME.string_to_param.*` and `.emb_params` (LyCORIS), `.clip_l` and `.clip_g` (LyCORIS and
OneTrainer, for SDXL's two text encoders), and `<s1>` (cloneofsimo). A vector is `(width,)`, several are
`(n, width)`. Strengths do not scale them: they are points in the embedding, not differences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from sdgrpc.errors import LoraMalformed

MAX_VECTORS = 75
"""A token's vectors stay in one chunk of the prompt: CLIP's 77 less begin and end."""

ONLY = ""
"""The part of a token that is not told apart by text encoders."""

PARTS: Mapping[str, tuple[str, ...]] = {"text_encoder": ("clip_l", ONLY), "text_encoder_2": ("clip_g",)}
"""Text encoder -> the parts that can hold its vectors, the first that is there."""

_KEY = re.compile(
    r"bundle_emb\.(?P<name>.*\S.*)\.(?P<part>string_to_param\.[^.]+|emb_params|emb|clip_l|clip_g)$"
    r"|(?P<placeholder><[^<>]+>)$"
)
_TOKEN_EMBEDDING = "embeddings.token_embedding.weight"  # noqa: S105  # the name of a weight, no secret

Vectors = Mapping[str, Tensor]
"""Text encoder -> `(n, width)`, with one n for all."""


@dataclass(frozen=True, slots=True)
class Bundled:
    """A token as a file has it: part -> tensor, and part -> key."""

    name: str
    tensors: Mapping[str, Tensor] = field(repr=False)
    keys: Mapping[str, str] = field(repr=False)

    def vectors(self, widths: Mapping[str, int]) -> Vectors | str:
        """Return the vectors for text encoders of these widths, or why they are of no use there."""
        found: dict[str, Tensor] = {}
        for component, width in widths.items():
            part = next((part for part in PARTS.get(component, ()) if part in self.tensors), None)
            if part is None:
                return f"the file has no vectors for {component}"
            tensor = self.tensors[part]
            if tensor.ndim not in (1, 2) or tensor.shape[-1] != width or not tensor.numel():
                return f"its shape is {list(tensor.shape)}; {component} takes vectors of {width}"
            found[component] = tensor.reshape(-1, width).clone()  # not a view that keeps the whole file
        counts = {len(rows) for rows in found.values()}
        if len(counts) != 1:
            return (
                f"it has {' and '.join(map(str, sorted(counts)))} vectors"
                if counts
                else "the model has no text encoder for it"
            )
        if max(counts) > MAX_VECTORS:
            return f"it has {max(counts)} vectors; a chunk of the prompt holds {MAX_VECTORS}"
        return found


def bundled(name: str, tensors: Mapping[str, Tensor], keys: Iterable[str]) -> tuple[Bundled, ...]:
    """Collect the tokens among these keys of a file, in the order of their names.

    Raises:
        LoraMalformed: two keys hold the same part of a token.

    """
    grouped: dict[str, dict[str, str]] = {}
    for key in keys:
        if found := _KEY.match(key):
            part = found["part"] if found["part"] in ("clip_l", "clip_g") else ONLY
            parts = grouped.setdefault(found["name"] or found["placeholder"], {})
            if part in parts:
                raise LoraMalformed(name, f"has {parts[part]!r} and {key!r}, which mean the same", key=key)
            parts[part] = key
    return tuple(
        Bundled(token, {part: tensors[key] for part, key in parts.items()}, parts)
        for token, parts in sorted(grouped.items())
    )


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What a file's tokens are for the loaded model: usable with their vectors, or not and why."""

    usable: Mapping[str, Vectors]
    faults: Mapping[str, str]
    unmatched: tuple[str, ...]

    @classmethod
    def of(cls, tokens: Sequence[Bundled], widths: Mapping[str, int]) -> Vocabulary:
        """Judge tokens for a model whose text encoders take vectors of these widths."""
        judged = [(token, token.vectors(widths)) for token in tokens]
        unused = [token for token, found in judged if isinstance(found, str)]
        return cls(
            {token.name: found for token, found in judged if not isinstance(found, str)},
            {token.name: found for token, found in judged if isinstance(found, str)},
            tuple(key for token in unused for key in token.keys.values()),
        )

    def warnings(self) -> list[str]:
        """Say which words of the prompt the file gives a meaning."""
        said = []
        for name, vectors in self.usable.items():
            count = len(next(iter(vectors.values())))
            said.append(
                f"brings the token {name!r} for the prompt ({count} vector{'s' if count > 1 else ''})"
            )
        return said + [f"the token {name!r} cannot be used: {why}" for name, why in self.faults.items()]


NO_TOKENS = Vocabulary({}, {}, ())


def embedding_widths(weights: Mapping[str, Mapping[str, Tensor]]) -> dict[str, int]:
    """Return how wide the vectors of each text encoder are: component -> width."""
    return {
        component: int(weight.shape[1])
        for component, named in weights.items()
        for name, weight in named.items()
        if name.endswith(_TOKEN_EMBEDDING)
    }
