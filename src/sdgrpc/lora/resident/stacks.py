"""A network's weights twice: as they are, and where the network computes with them, at fixed addresses.

Weights of one shape lie one after the other, so that the changes of all of them are one batched product.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdgrpc.machine.matrices import as_matrix, has_channels_last

Kind = tuple[tuple[int, ...], torch.dtype, bool]


@dataclass(frozen=True, eq=False)
class Stack:
    """The weights of one shape, dtype and order: `pristine` and `live` are `(n, out, columns)`.

    `norms` are the Frobenius norms of the pristine ones.
    """

    names: tuple[str, ...]
    pristine: Tensor
    live: Tensor
    norms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a parameter lies: the number of its stack, and its own in it."""

    stack: int
    index: int


class LiveWeights:
    """Moves a network's parameters into stacks and has the network compute with the live ones.

    What is loaded is taken over weight by weight, so the network's memory is there twice at most.

    Attributes:
        stacks: of all weights with two or more dimensions.
        places: where each of these is, by its parameter's name.
        pristine: every parameter of the network by name, never written.
        live: those that the network computes with; always at the same addresses.

    """

    def __init__(self, network: nn.Module) -> None:
        owners = dict(_owners(network))
        self.stacks: list[Stack] = []
        self.places: dict[str, Place] = {}
        self.pristine: dict[str, Tensor] = {}
        self.live: dict[str, Tensor] = {}
        with torch.inference_mode(False), torch.no_grad():
            for kind, names in _kinds(owners).items():
                if len(kind[0]) < 2:
                    self._keep_alone(names, owners)
                else:
                    self._stack(kind, names, owners)

    def _keep_alone(self, names: list[str], owners: Mapping[str, Owner]) -> None:
        for name in names:
            module, leaf = owners[name]
            weight = module._parameters[leaf]
            assert weight is not None  # noqa: S101 - `_owners` leaves those out
            self.pristine[name], self.live[name] = weight.detach(), weight.detach().clone()
            module._parameters[leaf] = nn.Parameter(self.live[name], requires_grad=False)

    def _stack(self, kind: Kind, names: list[str], owners: Mapping[str, Owner]) -> None:
        shape, dtype, last = kind
        first = owners[names[0]][0]._parameters[owners[names[0]][1]]
        assert first is not None  # noqa: S101 - `_owners` leaves those out
        size = (len(names), *as_matrix(first.detach()).shape)
        pristine = torch.empty(size, dtype=dtype, device=first.device)
        for index, name in enumerate(names):
            module, leaf = owners[name]
            weight = module._parameters[leaf]
            assert weight is not None  # noqa: S101 - as above
            pristine[index].copy_(as_matrix(weight.detach()))
            self.pristine[name] = _as_weight(pristine[index], shape, last)
            # Let go of the loaded one before the next, so that the memory of one weight is there thrice.
            module._parameters[leaf] = nn.Parameter(self.pristine[name], requires_grad=False)
        live = pristine.clone()
        for index, name in enumerate(names):
            module, leaf = owners[name]
            self.live[name] = _as_weight(live[index], shape, last)
            module._parameters[leaf] = nn.Parameter(self.live[name], requires_grad=False)
            self.places[name] = Place(len(self.stacks), index)
        norms = torch.stack([torch.linalg.vector_norm(one, dtype=torch.float32) for one in pristine])
        self.stacks.append(Stack(tuple(names), pristine, live, tuple(norms.tolist())))

    def norm(self, name: str) -> float | None:
        """Frobenius norm of a pristine weight; None of what is in no stack."""
        place = self.places.get(name)
        return None if place is None else self.stacks[place.stack].norms[place.index]

    @property
    def nbytes(self) -> int:
        """Bytes that the pristine weights take beside the live ones, which are the network's."""
        return sum(weight.nbytes for weight in self.pristine.values())


Owner = tuple[nn.Module, str]


def _owners(network: nn.Module) -> Iterator[tuple[str, Owner]]:
    for path, module in network.named_modules():
        for leaf, _ in module.named_parameters(recurse=False):
            yield (f"{path}.{leaf}" if path else leaf), (module, leaf)


def _kinds(owners: Mapping[str, Owner]) -> dict[Kind, list[str]]:
    """Group parameters by shape; those of the same role side by side, since files change whole roles."""
    grouped: dict[Kind, list[str]] = defaultdict(list)
    for name, (module, leaf) in owners.items():
        weight = module._parameters[leaf]
        assert weight is not None  # noqa: S101 - `_owners` leaves those out
        grouped[tuple(weight.shape), weight.dtype, has_channels_last(weight)].append(name)
    return {kind: sorted(names, key=_role) for kind, names in grouped.items()}


def _role(name: str) -> tuple[str, str]:
    """`attn1.to_q` of `….transformer_blocks.0.attn1.to_q.weight` before the rest of the name."""
    return ".".join(name.split(".")[-3:]), name


def _as_weight(matrix: Tensor, shape: tuple[int, ...], last: bool) -> Tensor:
    """Return the view of a matrix `(out, columns)` that has the weight's own shape."""
    if not last:
        return matrix.view(shape)
    out, inner, height, width = shape
    return matrix.view(out, height, width, inner).permute(0, 3, 1, 2)
