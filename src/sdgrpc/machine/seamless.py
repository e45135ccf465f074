"""Convolutions that go on at the opposite edge, while a block of code runs and in its thread alone.

No module is changed: other threads, and the next call of this one, convolve as ever with the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sdgrpc.domain import Tiling
from sdgrpc.machine.onednn.packing import CONVOLVE


def seamless(tiling: Tiling) -> AbstractContextManager[object]:
    """Return a context in which convolutions and paddings of pictures wrap around the tiling's axes."""
    return _Wrapping(tiling) if tiling else nullcontext()


class _Wrapping(TorchFunctionMode):
    def __init__(self, tiling: Tiling) -> None:
        super().__init__()
        self._wraps = (tiling.vertical, tiling.horizontal)  # of rows, of columns

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401 - as torch has it
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        del types
        given = dict(kwargs or {})
        if func is F.conv2d:
            return self._convolved(*args, **given)
        if func in (CONVOLVE, CONVOLVE.default):
            return self._convolved_packed(*args)
        mode = args[2] if len(args) > 2 else given.get("mode", "constant")
        if func is F.pad and mode == "constant" and len(args[1]) == 4 and args[0].dim() == 4:
            return self._padded(args[0], args[1])
        return func(*args, **given)

    def _convolved(
        self,
        sample: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        stride: Any = 1,  # noqa: ANN401 - a number or two of them, as below
        padding: Any = 0,  # noqa: ANN401
        dilation: Any = 1,  # noqa: ANN401
        groups: int = 1,
    ) -> torch.Tensor:
        rows, columns = _two(padding)
        sample = self._padded(sample, (columns, columns, rows, rows))
        return F.conv2d(sample, weight, bias, stride, 0, dilation, groups)

    def _convolved_packed(
        self,
        sample: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        padding: Sequence[int],
        *others: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        sample = self._padded(sample, (padding[1], padding[1], padding[0], padding[0]))
        return CONVOLVE(sample, weight, bias, [0, 0], *others)

    def _padded(self, sample: torch.Tensor, sides: Sequence[int]) -> torch.Tensor:
        left, right, top, bottom = sides
        wraps_rows, wraps_columns = self._wraps
        for pad, wraps in (((left, right, 0, 0), wraps_columns), ((0, 0, top, bottom), wraps_rows)):
            if any(pad):
                sample = F.pad(sample, pad, mode="circular" if wraps else "constant")
        return sample


def _two(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
