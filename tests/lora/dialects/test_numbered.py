"""cloneofsimo's numbers."""

from __future__ import annotations

import pytest

from sdgrpc.lora.algorithms.tensors import Size
from sdgrpc.lora.bases import architectures
from sdgrpc.lora.dialects.numbered import numbered_names, numbered_order

SD15 = architectures.shapes("sd15")
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"


def paths(component: str) -> list[str]:
    return [name.removesuffix(".weight") for name in SD15[component] if name.endswith(".weight")]


@pytest.mark.parametrize(
    ("order", "count", "fourth", "eighth"),
    [
        ("ff-between:", 144, f"{BLOCK}.ff.net.0.proj", f"{BLOCK}.attn2.to_out.0"),
        ("ff-last:", 144, f"{BLOCK}.attn2.to_q", f"{BLOCK}.ff.net.0.proj"),
        (
            "ff-none:",
            128,
            f"{BLOCK}.attn2.to_q",
            BLOCK.replace("attentions.0", "attentions.1") + ".attn1.to_q",
        ),
    ],
)
def test_the_orders_of_a_unet(order: str, count: int, fourth: str, eighth: str) -> None:
    """16 transformer blocks of 9 layers or 8; the middle block comes last."""
    found = {name: path for name, path in numbered_names("unet", paths("unet")) if name.startswith(order)}
    assert len(found) == len(set(found.values())) == count
    assert found[f"{order}unet:0"] == f"{BLOCK}.attn1.to_q"
    assert found[f"{order}unet:4"] == fourth
    assert found[f"{order}unet:8"] == eighth
    assert found[f"{order}unet:{count - 1}"].startswith("mid_block.")


def test_the_order_of_a_text_encoder() -> None:
    """Key, value, query, output per layer, and the layers by number, not by text."""
    found = dict(numbered_names("text_encoder", paths("text_encoder")))
    leaves = [found[f"ff-none:text_encoder:{n}"] for n in range(4)]
    assert [leaf.rpartition(".")[2] for leaf in leaves] == ["k_proj", "v_proj", "q_proj", "out_proj"]
    assert found["ff-last:text_encoder:8"] == "encoder.layers.2.self_attn.k_proj"
    assert found["ff-last:text_encoder:47"] == "encoder.layers.11.self_attn.out_proj"


ATTENTION, GEGLU = Size(320, 320), Size(2560, 320)


@pytest.mark.parametrize(
    ("sizes", "order"),
    [
        ({f"unet:{n}": GEGLU if n == 4 else ATTENTION for n in range(9)}, "ff-between:"),
        ({f"unet:{n}": GEGLU if n == 8 else ATTENTION for n in range(9)}, "ff-last:"),
        ({f"unet:{n}": ATTENTION for n in range(16)}, "ff-none:"),
        ({f"text_encoder:{n}": ATTENTION for n in range(4)}, "ff-none:"),
        ({"unet:0": ATTENTION, "lora_unet_x": ATTENTION}, ""),
        ({}, ""),
    ],
)
def test_shapes_tell_the_order(sizes: dict[str, Size], order: str) -> None:
    """The place of the wide layer says which; files of other dialects have none."""
    assert numbered_order(sizes) == order
