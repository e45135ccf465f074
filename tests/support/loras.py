"""LoRA files and small models to put them on."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn

from sdgrpc.domain import LoraRef
from sdgrpc.lora.bases.architectures import TextPlan, UNetPlan
from sdgrpc.lora.bases.module_names import TEXT_ENCODER, UNET
from sdgrpc.lora.dialects.adapt import adapt
from sdgrpc.lora.dialects.adapter import Adapter
from sdgrpc.lora.files.reading import read
from sdgrpc.lora.store.contents import FoundLora

SHARED = Path(__file__).parents[3] / "shared"

SMALL_UNET = UNetPlan((8, 16), (1, 0), 12, linear_projection=False, layers=1)
SMALL_TEXT = TextPlan(12, 2)

LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CROSS = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
CONVOLUTION = "down_blocks.1.resnets.0.conv1"
POINTWISE = "down_blocks.0.attentions.0.proj_in"
TEXT_LINEAR = "encoder.layers.1.mlp.fc1"


def require_shared(folder: str) -> Path:
    """Return a folder of test data beside the repository, or skip; the full run fails without it."""
    path = SHARED / folder
    if folder == "loras":
        if named := os.environ.get("SDGRPC_REAL_LORAS"):
            return Path(named)
        if not (path.is_dir() and os.environ.get("SDGRPC_REQUIRE_ALL") == "1"):
            pytest.skip("SDGRPC_REAL_LORAS is unset: it names a folder of real LoRA files")
        pytest.fail("SDGRPC_REQUIRE_ALL=1 needs SDGRPC_REAL_LORAS, the folder of real LoRA files")
    if not path.is_dir():
        pytest.skip(f"{path} is not there: it has the names and shapes of real files")
    return path


def small_shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """Parameter shapes of a U-Net and a text encoder of a few thousand weights."""
    text = {
        name: shape for name, shape in SMALL_TEXT.shapes().items() if not name.startswith("embeddings.token")
    }
    return {UNET: SMALL_UNET.shapes(), TEXT_ENCODER: text}


def tree(
    shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype = torch.float32, seed: int = 0
) -> nn.Module:
    """Build a module with parameters of these names and shapes, filled with reproducible noise."""
    generator = torch.Generator().manual_seed(seed)
    root = nn.Module()
    for name, shape in shapes.items():
        *path, leaf = name.split(".")
        owner = root
        for part in path:
            if part not in dict(owner.named_children()):
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        weight = torch.randn(shape, generator=generator).to(dtype)
        owner.register_parameter(leaf, nn.Parameter(weight))
    return root


def small_components(dtype: torch.dtype = torch.float32) -> dict[str, nn.Module]:
    """Build the components of `small_shapes`."""
    return {component: tree(shapes, dtype) for component, shapes in small_shapes().items()}


def weight_of(components: Mapping[str, nn.Module], path: str) -> Tensor:
    """Return the weight of a module of whichever component has it."""
    for module in components.values():
        parameters = dict(module.named_parameters())
        if f"{path}.weight" in parameters:
            return parameters[f"{path}.weight"].detach()
    raise KeyError(path)


def shape_of(path: str) -> tuple[int, ...]:
    """Return the shape of a weight of the small model."""
    return next(shapes[f"{path}.weight"] for shapes in small_shapes().values() if f"{path}.weight" in shapes)


def kohya(path: str) -> str:
    """Spell a module of the small model as kohya does."""
    text = path.startswith("encoder.")
    return ("lora_te_text_model_" if text else "lora_unet_") + path.replace(".", "_")


def factors(
    shape: Sequence[int], rank: int = 2, seed: int = 1, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Random (up, down) factors for a weight of this shape, as trainers lay them out."""
    generator = torch.Generator().manual_seed(seed)
    kernel = tuple(shape[2:])
    down = torch.randn((rank, shape[1], *kernel), generator=generator).to(dtype)
    up = torch.randn((shape[0], rank, *(1 for _ in kernel)), generator=generator).to(dtype)
    return up, down


def kohya_file(
    *paths: str, rank: int = 2, alpha: float | None = 1.0, seed: int = 1, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Tensors of a kohya file that changes these modules of the small model."""
    tensors: dict[str, Tensor] = {}
    for number, path in enumerate(paths):
        up, down = factors(shape_of(path), rank, seed * 100 + number, dtype)
        tensors[f"{kohya(path)}.lora_up.weight"] = up
        tensors[f"{kohya(path)}.lora_down.weight"] = down
        if alpha is not None:
            tensors[f"{kohya(path)}.alpha"] = torch.tensor(alpha)
    return tensors


def every_algorithm(shape: Sequence[int], seed: int = 7) -> dict[str, dict[str, Tensor]]:
    """Tensors of each algorithm for a weight of this shape: label -> ending of the key -> tensor.

    The weight's rows must be a multiple of 4 and its columns of 2.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(*size: int) -> Tensor:
        return torch.randn(size, generator=generator) * 0.3

    out, inner = shape[:2]
    kernel = tuple(shape[2:])
    ones = tuple(1 for _ in kernel)
    columns = math.prod(shape[1:])
    alpha = {".alpha": torch.tensor(1.5)}
    up, down = factors(shape, seed=seed)
    lora = {".lora_up.weight": up, ".lora_down.weight": down, **alpha}
    loha = {f".hada_w{n}_a": noise(out, 2) for n in (1, 2)}
    loha |= {f".hada_w{n}_b": noise(2, columns) for n in (1, 2)}
    lokr = {".lokr_w1": noise(4, 2), ".lokr_w2_a": noise(out // 4, 2), ".lokr_w2_b": noise(2, columns // 2)}
    found = {
        "locon" if math.prod(kernel) > 1 else "lora": lora,
        "loha": loha | alpha,
        "lokr": lokr | alpha,
        "full": {".diff": noise(*shape)},
        "ia3": {".weight": noise(out), ".on_input": torch.tensor(0)},
        "glora": {
            ".a1.weight": noise(inner, 2, *ones),
            ".a2.weight": noise(2, inner, *ones),
            ".b1.weight": noise(out, 2, *ones),
            ".b2.weight": noise(2, inner, *kernel),
            **alpha,
        },
        "oft": {".oft_blocks": noise(out // 4, 4, 4)},
        "boft": {".oft_blocks": noise(1, out // 4, 4, 4), ".rescale": noise(out, 1, *ones) + 1},
        "oftv2": {".oft_R.weight": noise(columns // 2, 1)},
        "dora": lora | {".dora_scale": noise(out, 1, *ones).abs() + 1},
        "dora+loha": loha | {".dora_scale": noise(1, inner, *ones).abs() + 1},
    }
    extra = {".bias_indices": torch.tensor([[0, 1], [1, 0]]), ".bias_values": noise(2)}
    found["sparse"] = lora | extra | {".bias_size": torch.tensor([out, columns])}
    return found


def formula(weight: Tensor, members: Sequence[tuple[Tensor, Tensor, float]]) -> Tensor:
    """W + sum of factor * up @ down in float64, by the textbook."""
    total = weight.double()
    for up, down, factor in members:
        delta = up.double().flatten(1) @ down.double().flatten(1)
        total = total + factor * delta.view(weight.shape)
    return total


def adapter_of(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, name: str = "a"
) -> Adapter:
    """Parse tensors as if they came from a file."""
    return adapt(read(to_bytes(tensors, metadata), name))


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Write a safetensors file into memory."""
    return save(
        {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()},
        dict(metadata or {}),
    )


def to_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """Write a safetensors file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()},
        path,
        dict(metadata or {}),
    )
    return path


def lora_file(
    tensors: Mapping[str, Tensor], name: str = "a", metadata: Mapping[str, str] | None = None
) -> FoundLora:
    """Return what a library returns for such a file; it is parsed at each call of `adapter`."""
    adapter = adapter_of(tensors, metadata, name)
    return FoundLora(name, adapter.sha256, lambda: adapter)


def ref(
    strength: float = 1.0, text: float | None = None, *, name: str = "a", strict: bool = False
) -> LoraRef:
    """Ask for a LoRA at a strength, the same on the text encoder unless told otherwise."""
    return LoraRef(strength, strength if text is None else text, name=name, strict=strict)
