"""LoRAs that prompts name, over a real port: the same file, report and cached set as by `loras`."""

from __future__ import annotations

from io import BytesIO

import grpc
import pytest
from PIL import Image

from sdgrpc.v1 import catalog_pb2
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from sdgrpc.v1.catalog_pb2_grpc import CatalogServiceStub
from tests.support.api import generate, violations_of

SAMPLING = pb.Sampling(steps=2, seed=7)


def draw(stub: pb_grpc.DiffusionServiceStub, **changes: object) -> tuple[pb.Prepared, bytes]:
    """What was prepared, and the picture's file."""
    events = list(stub.Generate(generate(sampling=SAMPLING, width=64, height=64, **changes)))
    (prepared,) = (event.prepared for event in events if event.HasField("prepared"))
    (data,) = (event.image.image.data for event in events if event.HasField("image"))
    return prepared, data


@pytest.mark.parametrize(
    ("tagged", "lora"),
    [
        ("<lora:postcard:0.8> a star", pb.Lora(name="postcard", strength=0.8)),
        ("a star<lora:postcard>", pb.Lora(name="postcard")),
        (
            "a star <lora:postcard:0.6:0.3>",
            pb.Lora(name="postcard", strength=0.6, text_encoder_strength=0.3),
        ),
        (
            "a star <lora:postcard.safetensors:te=0:unet=0.6>",
            pb.Lora(name="postcard", strength=0.6, text_encoder_strength=0),
        ),
        (
            "a star <lora:postcard:0.8:lbw=1,0,0,1,0.5>",
            pb.Lora(name="postcard", strength=0.8, block_weights=pb.BlockWeights(values=[1, 0, 0, 1, 0.5])),
        ),
    ],
)
def test_a_tag_draws_what_the_field_draws(
    stub: pb_grpc.DiffusionServiceStub, tagged: str, lora: pb.Lora
) -> None:
    """To the byte, parameters included; the second finds the first one's set."""
    by_field, expected = draw(stub, prompt="a star", loras=[lora])
    by_tag, data = draw(stub, prompt=tagged)
    assert data == expected
    assert by_tag.loras == by_field.loras
    assert by_tag.lora_set_id == by_field.lora_set_id
    assert by_tag.lora_set_cached
    assert draw(stub, prompt="a star")[1] != data


def test_a_tag_that_cannot_be_applied(stub: pb_grpc.DiffusionServiceStub) -> None:
    """An unknown name ends as in `loras`; a strength out of range names the prompt and the setting."""
    with pytest.raises(grpc.RpcError) as caught:
        draw(stub, prompt="a star <lora:postcrd:0.8>")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "did you mean 'postcard'" in caught.value.details()
    with pytest.raises(grpc.RpcError) as caught:
        draw(stub, prompt="a star <lora:postcard:1.5>")
    violations = violations_of(caught.value)
    assert list(violations) == ["prompt"]
    assert "lora_strength_max" in violations["prompt"]


def test_escaped_marks_are_words(stub: pb_grpc.DiffusionServiceStub) -> None:
    r"""With a backslash a tag, a bar and AND are drawn as text, and are not `AND` the operator."""
    prepared, with_text = draw(stub, prompt=r"a star \<lora:postcard:0.8> \[a\|b\] \AND c")
    assert not prepared.loras
    assert with_text != draw(stub, prompt="a star")[1]


def test_hashes_as_the_web_ui_writes_them(stub: pb_grpc.DiffusionServiceStub, channel: grpc.Channel) -> None:
    """In parameters and in the catalog: AutoV2 of the model, AutoV3 of the LoRA, and the SHA-256."""
    catalog = CatalogServiceStub(channel)
    _, data = draw(stub, prompt="a star <lora:postcard:0.8>")
    with Image.open(BytesIO(data)) as image:
        text = image.info["parameters"]
    answer = catalog.ListModels(catalog_pb2.ListModelsRequest())
    (model,) = answer.models
    assert model.autov2 == model.sha256[:10]
    assert f"Model hash: {model.autov2}, Model: embedded, " in text
    assert f"Model SHA-256: {model.sha256}" in text
    assert 'Lora hashes: "postcard: 4d72d55ecbd1", ' in text
    lora = catalog.GetLora(catalog_pb2.GetLoraRequest(name="postcard")).lora
    assert lora.autov3 == "4d72d55ecbd1"
    assert f'Lora SHA-256: "postcard: {lora.sha256}"' in text
    listed = catalog.ListLoras(catalog_pb2.ListLorasRequest()).loras
    assert [one.autov3 for one in listed if one.name == "postcard"] == [lora.autov3]
    assert (answer.lora_strength_range.minimum, answer.lora_strength_range.maximum) == (0.0, 1.0)
