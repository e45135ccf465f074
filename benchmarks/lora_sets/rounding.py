"""What rounding the factors costs: `python -m benchmarks.lora_sets.rounding`.

A 1280 x 1280 weight in bfloat16 and three LoRAs of ranks 16, 32 and 8 in float16, W + U D by
`lora.fusing.products`: with the factors in float32, as the sum of two bfloat16 each (high and low part), and
rounded to bfloat16. Compared with float64, for changes of several sizes: the share of numbers that are not
the nearest bfloat16, and the whole error over that of rounding the exact sum, which nothing avoids.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from unittest.mock import patch

import torch
from torch import Tensor

from sdgrpc.lora.fusing import products
from sdgrpc.lora.fusing.products import LowRank, Products

SIDE = 1280
RANKS = (16, 32, 8)
RATIOS = (0.03, 0.06, products.SMALL, 0.25, 1.0)


def changes(weight: Tensor, ratio: float, generator: torch.Generator) -> tuple[LowRank, Tensor]:
    """Members whose sum has `ratio` of the weight's norm, and W + U D in float64."""
    ups = [torch.randn(SIDE, rank, generator=generator).half().double() for rank in RANKS]
    downs = [torch.randn(rank, SIDE, generator=generator).half().double() for rank in RANKS]
    scale = ratio * weight.double().norm() / (torch.cat(ups, 1) @ torch.cat(downs)).norm()
    members = LowRank([(up * scale).float() for up in ups], [down.float() for down in downs], 1.0)
    up, down = members.joined()
    return members, weight.double() + up.double() @ down.double()


def ways(weight: Tensor, members: LowRank) -> Iterator[tuple[str, Tensor]]:
    """W' by each kind of factors."""
    for name, multiplies, small in (
        ("float32", False, 0.0),
        ("high and low", True, 0.0),
        ("bfloat16", True, math.inf),
    ):
        out = torch.empty_like(weight)
        with (
            patch.object(products, "has_bfloat16", lambda _, answer=multiplies: answer),
            patch.object(products, "SMALL", small),
        ):
            Products().add(weight, 1.0, members, None, out)
        yield name, out


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(SIDE, SIDE, generator=generator) * SIDE**-0.5).bfloat16()
    print(f"{'|U D| / |W|':<13}{'factors':<14}{'not nearest':>12}{'error / rounding':>18}")
    for ratio in RATIOS:
        members, exact = changes(weight, ratio, generator)
        nearest = exact.bfloat16()
        least = (nearest.double() - exact).norm()
        for name, fused in ways(weight, members):
            wrong = (fused != nearest).double().mean().item()
            error = ((fused.double() - exact).norm() / least).item()
            print(f"{ratio:<13}{name:<14}{wrong:>12.4%}{error:>18.4f}")


if __name__ == "__main__":
    main()
