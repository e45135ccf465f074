"""Methods of PEFT that change what a layer puts out, its bias as well as its weight.

Notation as in `multiplicative`: W comes flat, `(out, columns)`, a bias b is `(out,)`, both pristine; each
function returns the difference that strength 1 makes. The tests compare each with the layer that PEFT merges.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdgrpc.lora.algorithms.tensors import BadTensors, Size, Tensors, expect


def tuned_norm_size(tensors: Tensors) -> Size:
    """Check a tuned norm.

    Raises:
        BadTensors: it is no vector.

    """
    size = Size(expect(tensors, "ln_weight", 1).shape[0], 1)
    if "ln_bias" in tensors and tensors["ln_bias"].shape != tensors["ln_weight"].shape:
        raise BadTensors("ln_bias", f"has the shape {list(tensors['ln_bias'].shape)}")
    return size


def tuned_norm(weight: Tensor, tensors: Tensors) -> Tensor:
    """LN tuning: the norm's own weight, w' = ln_weight. Zhao et al. 2023, https://arxiv.org/abs/2312.11420."""
    return tensors["ln_weight"].reshape(-1, 1) - weight


def tuned_norm_bias(bias: Tensor, tensors: Tensors) -> Tensor:
    """LN tuning: b' = ln_bias; none where the file has none."""
    return tensors["ln_bias"] - bias if "ln_bias" in tensors else torch.zeros_like(bias)


def road_size(tensors: Tensors) -> Size:
    """Check the angles of a RoAd.

    Raises:
        BadTensors: angles and lengths differ in number.

    """
    theta, alpha = expect(tensors, "road_theta", 1), expect(tensors, "road_alpha", 1)
    if theta.shape != alpha.shape:
        raise BadTensors("road_alpha", f"has the shape {list(alpha.shape)}, not that of the angles")
    counts: tuple[int, ...] = (theta.shape[0] * 2, theta.shape[0], theta.shape[0] // 2)
    if "road_group" in tensors:
        group = int(tensors["road_group"].item())
        if group < 2 or group % 2:
            raise BadTensors("road_theta", f"cannot be taken in groups of {group}, as its configuration says")
        counts = tuple(count for count in counts if count % group == 0) or (0,)
    return Size(row_counts=counts)


def road(weight: Tensor, tensors: Tensors) -> Tensor:
    """RoAd: W' = R W, R turning pairs of rows. Liao et al. 2024, https://arxiv.org/abs/2409.00119.

    In each group of g rows, row i of the first half is paired with row i of the second: x' = c x - s y and
    y' = c y + s x, c = alpha cos(theta) and s = alpha sin(theta). road_theta and road_alpha have out / 2
    numbers (each for both rows of a pair), out (one for each row) or 2 out (for c, then for s of each group).
    g is `group_size` of the configuration.
    """
    return _road(weight, tensors) - weight


def road_bias(bias: Tensor, tensors: Tensors) -> Tensor:
    """RoAd: b' = R b."""
    return _road(bias[:, None], tensors)[:, 0] - bias


def _road(values: Tensor, tensors: Tensors) -> Tensor:
    theta, alpha, group = tensors["road_theta"], tensors["road_alpha"], int(tensors["road_group"].item())
    cosines, sines, rows = alpha * theta.cos(), alpha * theta.sin(), values.shape[0]
    if theta.shape[0] == 2 * rows:
        cosines = cosines.reshape(-1, 2, group)[:, 0].reshape(-1)
        sines = sines.reshape(-1, 2, group)[:, 1].reshape(-1)
    elif theta.shape[0] != rows:
        halves = [one.reshape(-1, 1, group // 2).expand(-1, 2, -1) for one in (cosines, sines)]
        cosines, sines = (one.reshape(-1) for one in halves)
    pairs = values.reshape(-1, 2, group // 2, values.shape[1])
    across = torch.stack((-pairs[:, 1], pairs[:, 0]), dim=1).reshape(values.shape)
    return values * cosines[:, None] + across * sines[:, None]


def peft_ia3_size(tensors: Tensors) -> Size:
    """Check the vector of an (IA)^3 as PEFT writes it: `(out, 1)`, or `(1, in)` in feed-forward layers.

    Raises:
        BadTensors: it is another shape, as that for convolutions, which does not tell its side.

    """
    vector = expect(tensors, "ia3_l", 2)
    if 1 not in vector.shape:
        raise BadTensors("ia3_l", f"has the shape {list(vector.shape)}, not that of a vector")
    return Size(rows=vector.shape[0]) if vector.shape[1] == 1 else Size(columns=vector.shape[1])


def peft_ia3(weight: Tensor, tensors: Tensors) -> Tensor:
    """(IA)^3: W' = l * W along the outputs or the inputs. Liu et al. 2022, https://arxiv.org/abs/2205.05638."""
    return weight * tensors["ia3_l"] - weight


def peft_ia3_bias(bias: Tensor, tensors: Tensors) -> Tensor:
    """(IA)^3: b' = l * b where the outputs are scaled."""
    vector = tensors["ia3_l"]
    return bias * vector[:, 0] - bias if vector.shape[1] == 1 else torch.zeros_like(bias)
