"""Real, trained files on modules of SD1.5's real names and shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from sdgrpc.errors import LoraIncompatible
from sdgrpc.lora.bases import architectures
from sdgrpc.lora.bases.detect import place_or_refuse
from sdgrpc.lora.bases.placement import place
from sdgrpc.lora.describing.inspect import inspect
from sdgrpc.lora.dialects.adapt import adapt
from sdgrpc.lora.files.reading import read
from sdgrpc.lora.fusing.cache import FusedSets
from sdgrpc.lora.store.library import LoraLibrary
from tests.support.loras import ref, require_shared, tree

LOW_RANK = {
    "catundchat_pytorch_lora_weights.safetensors": 128,
    "diffusers_sd-pokemon-model-lora_pytorch_lora_weights.safetensors": 128,
    "cloneofsimo_analog_svd_rank4.safetensors": 192,
    "cloneofsimo_lora_disney.safetensors": 192,
}
KRONECKER = {"lycoris_smart_falcon_4_lokr.safetensors": 350, "lycoris_smart_falcon_8_lokr.safetensors": 350}


@pytest.mark.parametrize(("name", "modules"), [*LOW_RANK.items(), *KRONECKER.items()])
def test_every_tensor_is_placed(name: str, modules: int) -> None:
    """Nothing is left over on modules of SD1.5's shape, and the file is for no other base."""
    path = require_shared("loras") / name
    adapter = adapt(read(path, name))
    placement = place_or_refuse(adapter, architectures.index("sd15"), "sd15")
    assert len(placement.placed) == modules
    assert placement.unmatched(adapter) == []
    found = inspect(path)
    assert (found.base, found.refusal, len(found.modules)) == ("sd15", "", modules)
    for other in ("sd2", "sdxl"):
        with pytest.raises(LoraIncompatible, match=r"is for SD1\.5"):
            place_or_refuse(adapter, architectures.index(other), other)


@pytest.mark.parametrize("name", LOW_RANK)
def test_low_rank_norms(name: str) -> None:
    """The norms are those of the full matrices, made from the raw tensors."""
    path = require_shared("loras") / name
    raw = safetensors.torch.load_file(path)
    ups = [key for key in sorted(raw) if key.endswith(("up.weight", ":up"))]
    expected = sorted(
        (raw[up].double() @ raw[up.replace(".up.", ".down.").replace(":up", ":down")].double()).norm().item()
        for up in ups
    )
    actual = sorted(module.delta_norm for module in inspect(path).modules)
    assert actual == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", KRONECKER)
def test_kronecker_norms(name: str) -> None:
    """The same for LoKr, with alpha, for modules of every kind."""
    path = require_shared("loras") / name
    raw = safetensors.torch.load_file(path)
    norms = {f"lora_unet_{m.path.replace('.', '_')}": m.delta_norm for m in inspect(path).modules}
    prefixes = [key.removesuffix(".alpha") for key in raw if key.endswith(("conv1.alpha", "to_q.alpha"))]
    assert len(prefixes) > 40
    for prefix in prefixes:
        part = {role: raw[f"{prefix}.lokr_{role}"].double() for role in ("w1_a", "w1_b", "w2_a", "w2_b")}
        delta = torch.kron(part["w1_a"] @ part["w1_b"], part["w2_a"] @ part["w2_b"])
        factor = raw[f"{prefix}.alpha"].item() / part["w2_b"].shape[0]
        assert norms[prefix] == pytest.approx(delta.norm().item() * factor, rel=1e-6)


def test_a_numbered_file_lands_where_its_shapes_say() -> None:
    """The numbers of cloneofsimo fit every module of SD1.5, the feed-forward between the attentions."""
    name = "cloneofsimo_lora_disney.safetensors"
    adapter = adapt(read(require_shared("loras") / name, name))
    places = {p.source.keys["up"]: p.target.path for p in place(adapter, architectures.index("sd15")).placed}
    assert places["unet:4:up"] == "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj"
    assert places["unet:5:up"] == "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
    assert places["unet:54:up"] == "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    assert places["unet:143:up"] == "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
    assert places["text_encoder:1:up"] == "encoder.layers.0.self_attn.v_proj"
    assert [(token.name, token.tensors[""].shape) for token in adapter.tokens] == [
        ("<s1>", (768,)),
        ("<s2>", (768,)),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(LOW_RANK)[:2])
def test_a_real_file_is_fused_into_its_weights(name: str, dtype: torch.dtype) -> None:
    """Every touched weight of the first block equals W + up @ down in float64, rounded to its dtype.

    In bfloat16 the factors may have been rounded too, where that adds at most 1.6 % to the error.
    """
    folder = require_shared("loras")
    raw = safetensors.torch.load_file(folder / name)
    shapes = {
        key: shape
        for key, shape in architectures.shapes("sd15")["unet"].items()
        if key.endswith(("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight"))
    }
    unet = tree(shapes, dtype)
    cache = FusedSets({"unet": unet}, base="sd15", capacity_bytes=1 << 30)
    file = LoraLibrary([folder]).find(ref(name=Path(name).stem))
    with cache.acquire([(file, ref(0.8))]) as lease:
        assert lease.reports[0].modules == {"unet": 128}
        assert lease.reports[0].unmatched_tensors == 0
        fused = lease.overlay.tensors["unet"]
        assert fused.keys() == shapes.keys()
        for module in file.adapter().modules[:16]:
            (target,) = architectures.index("sd15").find(module.spelling)
            key = f"{target.path}.weight"
            up, down = (raw[module.keys[role]].double() for role in ("up", "down"))
            exact = dict(unet.named_parameters())[key].double() + 0.8 * (up @ down)
            error = fused[key].double() - exact
            assert error.norm() <= 1.016 * (exact.to(dtype).double() - exact).norm() + 1e-6 * exact.norm()
            unit = torch.finfo(dtype).eps
            factors = 0.8 * (up.abs() @ down.abs()) if dtype == torch.bfloat16 else 0.0
            assert (error.abs() <= unit * (0.51 * exact.abs() + 1.01 * factors) + 1e-6).all()
