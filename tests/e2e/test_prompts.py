"""Prompt syntax and learned tokens over a real port, drawn by the embedded model."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import grpc
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.support.api import generate, violations_of
from tests.support.assets import LORAS
from tests.support.server import running_server

MODEL = LORAS.parent / "model"
SEPIA = [pb.Lora(name="sepia", strength=0.5)]


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pb_grpc.DiffusionServiceStub]:
    """A server whose sepia LoRA brings two tokens: `roundel` means `circle`, `<wide>` is of another width."""
    folder = tmp_path_factory.mktemp("prompts")
    tokens = {
        "bundle_emb.roundel.string_to_param.*": vectors_of("circle"),
        "bundle_emb.<wide>.emb_params": torch.ones(5),
    }
    save_file(load_file(LORAS / "sepia.safetensors") | tokens, folder / "sepia.safetensors")
    with (
        running_server(folder / "server.log", "--lora-dir", str(folder)) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        yield pb_grpc.DiffusionServiceStub(channel)


def vectors_of(word: str) -> torch.Tensor:
    """The embedded model's own embeddings of a word, `[n, width]`."""
    ids = CLIPTokenizer.from_pretrained(MODEL / "tokenizer")(word, add_special_tokens=False).input_ids
    tensors = load_file(MODEL / "text_encoder/model.safetensors")
    (weight,) = (tensor for key, tensor in tensors.items() if key.endswith("token_embedding.weight"))
    return weight[ids].clone()


def draw(stub: pb_grpc.DiffusionServiceStub, prompt: str, **changes: object) -> bytes:
    """The pixels of a picture of four steps."""
    request = generate(prompt=prompt, sampling=pb.Sampling(steps=4, seed=7), **changes)
    (data,) = (event.image.image.data for event in stub.Generate(request) if event.HasField("image"))
    with Image.open(BytesIO(data)) as picture:
        return picture.convert("RGB").tobytes()


def test_weights_and_escapes(stub: pb_grpc.DiffusionServiceStub) -> None:
    """A weight changes the picture, a weight of 1 and brackets that are text in any spelling do not."""
    plain = draw(stub, "a red circle")
    assert draw(stub, "a (red:1.4) circle") != plain
    assert draw(stub, "a [red] circle") != plain
    assert draw(stub, "a (red:1) circle") == plain
    assert draw(stub, "a ((red:0.5):2) circle") == plain
    escaped = draw(stub, r"a \(red\) circle")
    assert escaped == draw(stub, r"a \(red) circle")
    assert escaped not in (plain, draw(stub, "a (red) circle"))
    assert draw(stub, "a red circle BREAK") == plain
    assert draw(stub, "a red BREAK circle") != plain


def test_negative_prompts_have_weights_too(stub: pb_grpc.DiffusionServiceStub) -> None:
    """The same syntax."""
    plain = draw(stub, "a red circle", negative_prompt="blue square")
    assert draw(stub, "a red circle", negative_prompt="(blue:1.5) square") != plain
    assert draw(stub, "a red circle", negative_prompt="(blue:1.0) square") == plain


def test_the_metadata_hold_the_prompt_as_it_was_written(stub: pb_grpc.DiffusionServiceStub) -> None:
    """Weights, escapes and all, so that it can be drawn again from it."""
    prompt, negative = r"a (red:1.4) \[circle\]", "[blue]"
    request = generate(prompt=prompt, negative_prompt=negative)
    (data,) = (event.image.image.data for event in stub.Generate(request) if event.HasField("image"))
    with Image.open(BytesIO(data)) as picture:
        first, second, *_ = picture.info["parameters"].splitlines()
    assert (first, second) == (prompt, f"Negative prompt: {negative}")


def test_a_weight_beyond_reason_names_the_field(stub: pb_grpc.DiffusionServiceStub) -> None:
    """A year in brackets was meant as text: the message says how to write it."""
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Generate(generate(prompt="a castle (built: 1648)")))
    violations = violations_of(caught.value)
    assert list(violations) == ["prompt"]
    assert violations["prompt"].startswith(r"weighs words with 1648; the most is 10. Write \( and \)")


def test_a_bundled_token_draws_what_its_vectors_mean(stub: pb_grpc.DiffusionServiceStub) -> None:
    """With the vectors of `circle` the picture is a circle's, to the bit; without the LoRA it is not."""
    circle = draw(stub, "a red circle", loras=SEPIA)
    assert draw(stub, "a red roundel", loras=SEPIA) == circle
    assert draw(stub, "a red Roundel BREAK", loras=SEPIA) == circle
    assert draw(stub, "a red roundel") != draw(stub, "a red circle")


def test_the_report_says_which_tokens_can_be_used(stub: pb_grpc.DiffusionServiceStub) -> None:
    """And why not; whoever is strict is refused."""
    events = list(stub.Generate(generate(loras=SEPIA)))
    (report,) = events[1].prepared.loras
    width = vectors_of("red").shape[1]
    assert list(report.warnings) == [
        "brings the token 'roundel' for the prompt (1 vector)",
        f"the token '<wide>' cannot be used: its shape is [5]; text_encoder takes vectors of {width}",
    ]
    with pytest.raises(grpc.RpcError, match=r"bundle_emb\.<wide>\.emb_params"):
        list(stub.Generate(generate(loras=[pb.Lora(name="sepia", strict=True)])))
