"""What fusing in float32 gains over bfloat16 factors: `python -m benchmarks.lora_sets.rounding`.

A 1280 x 1280 weight in bfloat16 and three LoRAs of ranks 16, 32 and 8 in float16. W + U D is computed with
the factors in float32, as the sum of two bfloat16 each (high and low part), or rounded to bfloat16; summed in
float32, rounded once, and compared with float64. Errors are in last places of the larger of W and W'.
"""

from __future__ import annotations

import torch
from torch import Tensor

SIDE = 1280
RANKS = (16, 32, 8)


def factors(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """U and D of all members, strengths and alpha in U, in float64."""
    ups, downs = [], []
    for number, rank in enumerate(RANKS):
        up = (torch.randn(SIDE, rank, generator=generator) * 0.02).half()
        ups.append(up.double() * 0.5 * (0.8 - 0.1 * number))
        downs.append((torch.randn(rank, SIDE, generator=generator) * SIDE**-0.5).half().double())
    return torch.cat(ups, 1), torch.cat(downs)


def split(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """High and low part, each exact in bfloat16."""
    high = matrix.bfloat16().float()
    return high, (matrix.float() - high).bfloat16().float()


def products(up: Tensor, down: Tensor) -> dict[str, Tensor]:
    """U D in float32 with each kind of factors."""
    (up_high, up_low), (down_high, down_low) = split(up), split(down)
    joined = torch.cat([up_high, up_high, up_low], 1) @ torch.cat([down_high, down_low, down_high])
    return {"float32": up.float() @ down.float(), "high and low": joined, "bfloat16": up_high @ down_high}


def main() -> None:
    """Print the table."""
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(SIDE, SIDE, generator=generator) * SIDE**-0.5).bfloat16()
    up, down = factors(generator)
    exact = weight.double() + up @ down
    nearest = exact.bfloat16()
    unit = torch.exp2(
        torch.floor(torch.log2(exact.abs().maximum(weight.double().abs()))) - 7
    )  # bfloat16 has eight significant bits
    strength = ((up @ down).norm() / weight.double().norm()).item()
    print(f"|U D| is {strength:.2f} |W|")
    print(f"{'factors':<14}{'not nearest':>13}{'largest error':>16}{'error of U D':>14}")
    for name, product in products(up, down).items():
        fused = (weight.float() + product).bfloat16()
        wrong = (fused != nearest).double().mean().item()
        largest = ((fused.double() - exact).abs() / unit).max().item()
        relative = ((product.double() - up @ down).norm() / (up @ down).norm()).item()
        print(f"{name:<14}{wrong:>13.4%}{largest:>12.3f} ulp{relative:>14.1e}")


if __name__ == "__main__":
    main()
