"""What a UNet call takes, and what tells calls apart that need a compilation each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Shape:
    """What a compiled call is good for: rows, the latents' shape, tokens of the prompt."""

    rows: int
    sample: tuple[int, ...]
    tokens: int

    def __str__(self) -> str:
        height, width = self.sample[-2:]
        return f"{self.rows} rows of {width}x{height}, {self.tokens} tokens"


@dataclass(frozen=True, eq=False)
class UNetInputs:
    """What one call of a UNet takes, on its device.

    `sample` `[rows, C, h, w]` and `states` `[rows, tokens, width]` have its dtype, `timesteps` `[rows]` is
    float32; of SDXL `pooled` is `[rows, P]` in its dtype and `time_ids` `[rows, 6]` float32.
    """

    sample: Tensor
    timesteps: Tensor
    states: Tensor
    pooled: Tensor | None = None
    time_ids: Tensor | None = None

    @property
    def rows(self) -> int:
        """Rows of the call."""
        return int(self.sample.shape[0])

    @property
    def shape(self) -> Shape:
        """What a compilation of this call is good for."""
        return Shape(self.rows, tuple(self.sample.shape[1:]), int(self.states.shape[1]))

    @property
    def tensors(self) -> list[Tensor]:
        """Those that there are, in a fixed order."""
        every = (self.sample, self.timesteps, self.states, self.pooled, self.time_ids)
        return [one for one in every if one is not None]

    def each(self, work: Callable[[Tensor], Tensor]) -> UNetInputs:
        """Return the same with every tensor replaced by what `work` makes of it."""
        pooled = None if self.pooled is None else work(self.pooled)
        time_ids = None if self.time_ids is None else work(self.time_ids)
        return UNetInputs(work(self.sample), work(self.timesteps), work(self.states), pooled, time_ids)

    def padded(self, rows: int) -> UNetInputs:
        """Return the same with `rows` rows: the last one again and again."""
        missing = rows - self.rows
        if missing == 0:
            return self
        return self.each(lambda one: torch.cat([one, one[-1:].expand(missing, *one.shape[1:])]))


def example_inputs(unet: Any, rows: int, height: int, width: int) -> UNetInputs:  # noqa: ANN401 - diffusers'
    """Return zeros for a call of diffusers' UNet with latents of this height and width and 77 tokens."""
    config, weight = unet.config, next(unet.parameters())

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=weight.dtype, device=weight.device)

    pooled = time_ids = None
    if config.addition_embed_type == "text_time":
        pooled = zeros(
            rows, config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        )
        time_ids = zeros(rows, 6).float()
    sample = zeros(rows, config.in_channels, height, width)
    states = zeros(rows, 77, config.cross_attention_dim)
    return UNetInputs(sample, zeros(rows).float(), states, pooled, time_ids)


UNetCall = Callable[[UNetInputs], Tensor]
"""Returns the prediction `[rows, 4, h, w]`."""


def padded_rows(rows: int) -> int:
    """The rows that a compiled call has for so many: the next power of two, so that few are compiled."""
    return 1 << (rows - 1).bit_length()


def call_unet(unet: Any, inputs: UNetInputs) -> Tensor:  # noqa: ANN401 - diffusers has no types
    """Call diffusers' UNet."""
    added = None
    if inputs.pooled is not None:
        added = {"text_embeds": inputs.pooled, "time_ids": inputs.time_ids}
    output = unet(
        inputs.sample,
        inputs.timesteps,
        encoder_hidden_states=inputs.states,
        added_cond_kwargs=added,
        return_dict=False,
    )
    prediction: Tensor = output[0]
    return prediction
