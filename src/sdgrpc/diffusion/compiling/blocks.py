"""A twin of a UNet that is compiled, or its blocks are, on the same weights.

Compiling block by block (https://docs.pytorch.org/tutorials/recipes/regional_compilation.html) takes a
fraction of the time that the whole network takes, since most blocks are alike. Weights are arguments of what
is compiled: switching LoRA sets, which puts other tensors in their place, compiles nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache, partial
from types import FunctionType
from typing import Any, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)

BLOCKS = ("BasicTransformerBlock", "ResnetBlock2D")
"""What is compiled: most of a UNet's time. diffusers' `_repeated_blocks` names the first alone."""

COMPILATIONS = 512
"""Of one kind of block, in one process: shapes times models."""


def compiled_twin(unet: Network, backend: str | Callable[..., Any] = "inductor") -> Network:
    """Return a network with the same parameters, now and after every switch, whose blocks are compiled.

    Nothing is compiled before it is called; `unet` itself stays as it is.
    """
    _allow_compilations()
    twin = _twin(unet)
    for block in twin.modules():
        if type(block).__name__ in BLOCKS:
            shared = _compiled(type(block), _structure(block), backend)  # type: ignore[arg-type]
            block.forward = partial(shared, block)
    return twin


def compiled_whole(unet: Network, backend: str | Callable[..., Any] = "inductor") -> Network:
    """Return a network with the same parameters, now and after every switch, that is compiled as a whole."""
    _allow_compilations()
    twin = _twin(unet)
    shared = _compiled(type(unet), _structure(unet), backend)  # type: ignore[arg-type]
    twin.forward = partial(shared, twin)
    return twin


def _allow_compilations() -> None:
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, COMPILATIONS)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, 8 * COMPILATIONS)


@cache
def _compiled(
    kind: type[nn.Module],
    structure: Hashable,  # noqa: ARG001 - what tells blocks apart that cannot share
    backend: str | Callable[..., Any],
) -> Callable[..., Any]:
    """Return what blocks of one structure share, in all models of the process."""
    return torch.compile(_own(kind.forward), dynamic=False, backend=backend)


def _twin(module: Network) -> Network:
    """Copy a tree of modules without its parameters: each shares its dictionary of them with the original."""
    twin = module.__class__.__new__(module.__class__)
    twin.__dict__.update(module.__dict__)
    children = {name: None if child is None else _twin(child) for name, child in module._modules.items()}
    twin.__dict__["_modules"] = children
    return twin


def _structure(block: nn.Module) -> Hashable:
    """What blocks have in common that can share what is compiled."""
    weights = tuple((name, tuple(one.shape), one.dtype) for name, one in block.named_parameters())
    return type(block).__name__, weights


def _own(forward: Any) -> Callable[..., Any]:  # noqa: ANN401 - a plain function, which has no type of its own
    """Copy a function, code included: what is compiled is kept, and searched at each call, by code."""
    copy = FunctionType(
        forward.__code__.replace(),
        forward.__globals__,
        forward.__name__,
        forward.__defaults__,
        forward.__closure__,
    )
    copy.__kwdefaults__ = forward.__kwdefaults__
    return copy
