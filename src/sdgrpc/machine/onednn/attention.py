"""Attention on the CPU by oneDNN's products, a head at a time on a core each.

torch's own keeps to MKL for the products of its blocks, which has no fast way on some processors: 5 % of a
step's operations took a fifth of its time. Here a core computes a head's scores as a float32 product, some
rows at a time so that they stay in its cache, and adds up the values by their softmax. Both are rounded as
torch's are: scores and softmax are float32, and shares of bfloat16 tokens are bfloat16.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from sdgrpc.machine.onednn.linear import MULTIPLY, is_equal, multiplies_float32
from sdgrpc.machine.workers import step_workers

FEWEST_SCORES = {torch.bfloat16: 1 << 14, torch.float32: 1 << 20}
"""Of a head: with fewer what is done around the products outweighs them."""
SCORES_AT_A_TIME = 1 << 20
"""4 MiB: more leave the processor's cache before they are used."""


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Return `softmax(query @ key.T / sqrt(width)) @ value` of each head, `(rows, tokens, heads * width)`.

    `query` is `(rows, tokens, heads * width)`, `key` and `value` are `(rows, told, heads * width)`.
    Formula (1) of https://arxiv.org/abs/1706.03762.
    """
    can = query.device.type == "cpu" and multiplies(query.dtype)
    if can and query.shape[1] * key.shape[1] >= FEWEST_SCORES[query.dtype]:
        return _by_heads(query, key, value, heads)
    split = (_split(query, heads), _split(key, heads), _split(value, heads))
    return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


@lru_cache
def multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies what attention to tokens of a dtype takes faster than torch does here."""
    return multiplies_float32() and (dtype == torch.float32 or is_equal(dtype))


def _by_heads(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    rows, tokens, channels = query.shape
    width = channels // heads
    queries = _apart(query, heads, torch.float32)
    keys = _apart(key, heads, torch.float32).mul_(width**-0.5)
    values = _apart(value, heads, value.dtype).transpose(1, 2).contiguous()
    found = torch.empty((rows, tokens, heads, width), dtype=query.dtype)
    targets = found.transpose(1, 2)
    height = max(1, SCORES_AT_A_TIME // key.shape[1])

    def work(at: tuple[int, int]) -> None:
        head, begin = at
        part = slice(begin, begin + height)
        scores = MULTIPLY(queries[head, part], keys[head], None, "none", [], "")
        shares = torch.softmax(scores, -1, out=scores).to(value.dtype)
        targets[divmod(head, heads)][part] = MULTIPLY(shares, values[head], None, "none", [], "")

    parts = [(head, begin) for head in range(rows * heads) for begin in range(0, tokens, height)]
    if heads == 1 or torch.get_num_threads() == 1:  # one head's products are large enough for all cores
        for part in parts:
            work(part)
    else:
        step_workers().share(torch.inference_mode()(work), parts)
    return found.flatten(2)


def _apart(tokens: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """Return `(rows * heads, tokens, width)` in memory of its own."""
    split = _split(tokens, heads)
    return torch.empty(split.shape, dtype=dtype).copy_(split).flatten(0, 1)


def _split(tokens: Tensor, heads: int) -> Tensor:
    """Return a view `(rows, heads, tokens, width)`."""
    rows, many, channels = tokens.shape
    return tokens.view(rows, many, heads, channels // heads).transpose(1, 2)
