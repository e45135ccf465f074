"""The ways to name a LoRA."""

from __future__ import annotations

from typing import Any

import pytest

from sdgrpc.client import Lora
from sdgrpc.client.drawing.blocks import told
from sdgrpc.client.loras import lora_messages
from sdgrpc.v1 import diffusion_pb2 as pb


@pytest.mark.parametrize(
    ("text", "name", "strengths"),
    [
        ("postcard", "postcard", ()),
        ("postcard:0.8", "postcard", (0.8,)),
        ("postcard:0.8:0.4", "postcard", (0.8, 0.4)),
        ("styles/postcard:-1", "styles/postcard", (-1.0,)),
        ("odd:name:1", "odd:name", (1.0,)),
        ("odd:name:.5:0", "odd:name", (0.5, 0.0)),
        ("odd:1:2:3", "odd:1", (2.0, 3.0)),
        ("a:1e-1", "a", (0.1,)),
        ("a:b/c", "a:b/c", ()),
        ("civitai:1@2", "civitai:1@2", ()),
        ("urn:air:sd1:lora:civitai:1@2:0.8", "urn:air:sd1:lora:civitai:1@2", (0.8,)),
    ],
)
def test_lora_text_ends_in_at_most_two_numbers(text: str, name: str, strengths: tuple[float, ...]) -> None:
    """The strength and that in the text encoder; other colons belong to the name."""
    assert Lora.parse(text) == Lora(name, *strengths)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("a:0.8:start=0.2", Lora("a", 0.8, start=0.2)),
        ("a:b:1:start=.25:end=0.75", Lora("a:b", 1.0, start=0.25, end=0.75)),
        ("a:1:0.5:end=1e-1:lbw=OUTD", Lora("a", 1.0, 0.5, end=0.1, block_weights="OUTD")),
    ],
)
def test_the_steps_that_have_it_stand_at_the_end(text: str, same: Lora) -> None:
    """As shares, beside strengths by block, in any order; what is not given is not sent."""
    assert Lora.parse(text) == same
    (message,) = lora_messages([text])
    assert (message.HasField("start"), message.HasField("end")) == (
        same.start is not None,
        same.end is not None,
    )


def test_a_strength_for_each_picture() -> None:
    """In place of one for all."""
    assert Lora.parse("a:grid=0,0.5,1:end=0.8") == Lora("a", strength_grid=(0.0, 0.5, 1.0), end=0.8)
    (message,) = lora_messages(["a:grid=0,0.5,1"])
    assert (list(message.strength_grid), message.HasField("strength")) == ([0, 0.5, 1], False)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a:grid=0,x", "write strengths, as grid=0,0.5,1"),
        ("a:start=half", "write a share of the steps, as start=0.5"),
        ("a:end=1:end=0.5", "end is there twice"),
    ],
)
def test_steps_that_cannot_be_read(text: str, fault: str) -> None:
    """The option is named."""
    with pytest.raises(ValueError, match=fault):
        Lora.parse(text)


@pytest.mark.parametrize(
    ("text", "name", "strengths", "blocks"),
    [
        ("a:0.8:lbw=OUTD", "a", (0.8,), pb.BlockWeights(preset="OUTD")),
        ("a:b:1:0.4:lbw=1,0,0.5", "a:b", (1.0, 0.4), pb.BlockWeights(values=[1, 0, 0.5])),
        ("a:lbw=unet.mid*0,unet.up*0.5", "a", (), pb.BlockWeights(blocks={"unet.mid": 0, "unet.up": 0.5})),
    ],
)
def test_strengths_by_block_stand_at_the_end(
    text: str, name: str, strengths: tuple[float, ...], blocks: pb.BlockWeights
) -> None:
    """In each of their forms, and are sent in it."""
    (message,) = lora_messages([text])
    strength, text_encoder = (*strengths, None, None)[:2]
    same = Lora(name, strength, text_encoder, block_weights=str(told(blocks)))
    assert lora_messages([same]) == [message]
    assert (message.name, message.block_weights) == (name, blocks)


def test_a_dictionary_of_diffusers_is_read() -> None:
    """Levels become names; a list is of a block's layers, and of one number is the block's."""
    weights = {"unet": {"down": 0.5, "mid": [0.25], "up": {"block_0": [1, 0, 0.5], "block_1": [0.75]}}}
    (message,) = lora_messages([Lora("a", block_weights={**weights, "text_encoder": 0})])
    assert dict(message.block_weights.blocks) == {
        "unet.down": 0.5,
        "unet.mid": 0.25,
        "unet.up.block_0.0": 1.0,
        "unet.up.block_0.1": 0.0,
        "unet.up.block_0.2": 0.5,
        "unet.up.block_1": 0.75,
        "text_encoder": 0.0,
    }
    assert lora_messages([Lora("a", block_weights=[1, 0.5])])[0].block_weights.values == [1, 0.5]


@pytest.mark.parametrize(
    "weights", ["", "x", [1, "2"], [True], {"unet": {"down": [1, 2]}}, {"unet": None}, {"unet": "1"}]
)
def test_what_is_no_weight_is_refused(weights: Any) -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError, match=r"block|preset"):
        Lora("a", block_weights=weights)
    with pytest.raises(ValueError, match="lbw is empty"):
        Lora.parse("a:0.8:lbw=")


@pytest.mark.parametrize("text", ["", ":0.5", ":0.5:1"])
def test_lora_text_without_a_name_is_refused(text: str) -> None:
    """Half a LoRA is an error that shows how it should look."""
    with pytest.raises(ValueError, match=r"is not NAME, NAME:STRENGTH or NAME:STRENGTH:TEXT"):
        Lora.parse(text)


@pytest.mark.parametrize(
    ("text", "strength"),
    [
        ("postcard:O.8", "O.8"),
        ("postcard:0,8", "0,8"),
        ("a:0.8:x", "x"),
        ("a:nan", "nan"),
        ("a:", ""),
        (":", ""),
    ],
)
def test_a_strength_that_is_no_number_is_said(text: str, strength: str) -> None:
    """A slip in the number is not taken for a part of the name."""
    with pytest.raises(ValueError, match=f"the strength '{strength}' is no number; write"):
        Lora.parse(text)
