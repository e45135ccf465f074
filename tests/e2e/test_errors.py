"""Failures of a real server, with their details."""

from __future__ import annotations

import grpc
import pytest

from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support.api import details_of, generate, inpaint, png, transform, violations_of
from tests.support.assets import lora_names
from tests.support.server import ServerProcess


def failure_of(call) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    return caught.value


def test_every_violation_arrives_at_once(stub) -> None:
    """One BadRequest for the whole request, the sentence of the issue among them."""
    request = inpaint(
        prompt="x" * 4001,
        loras=[pb.Lora(name=lora_names()[0]), pb.Lora(name=lora_names()[0], strength=1.5)],
        sampling=pb.Sampling(steps=151, guidance_scale=float("nan"), scheduler=99),
        width=100,
        image=pb.Image(data=png(60000, 1)),
        mask=pb.Image(data=png()[:70]),
        model="nope",
    )
    error = failure_of(stub.Inpaint(request))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations_of(error) == {
        "prompt": "has 4001 characters; the most is 4000",
        "loras[1].strength": "1.5 is above 1.0; the server's operator can change that with lora_strength_max",
        "sampling.steps": "151 is above 150",
        "sampling.guidance_scale": "nan is not a finite number",
        "sampling.scheduler": "99 is not a Scheduler; they go from 0 to 16",
        "width": "100 is not a multiple of 8; 96 and 104 are",
        "image.data": "is 60000x1 pixels; no side may have more than 16384",
        "mask.data": "is truncated or damaged",
        "model": "no model 'nope' here; there are: embedded",
    }


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (generate(width=8192, height=8192), "width"),
        (generate(sampling=pb.Sampling(clip_skip=3)), "sampling.clip_skip"),
        (generate(loras=[pb.Lora(safetensors=b"x")]), "loras[0].safetensors"),
    ],
)
def test_what_this_server_does_not_do_is_named(stub, request_, field: str) -> None:
    """Never ignored in silence."""
    error = failure_of(stub.Generate(request_))
    assert field in violations_of(error)


def test_the_mask_has_the_images_size(stub) -> None:
    """Both sizes are named."""
    error = failure_of(stub.Inpaint(inpaint(mask=pb.Image(data=png(128, 64, colour=0, mode="L")))))
    assert violations_of(error) == {"mask": "is 128x64 pixels; the image is 64x64, and they must be equal"}


def test_an_unknown_model(stub) -> None:
    """NOT_FOUND with what was not found."""
    error = failure_of(stub.Generate(generate(model="nope")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    details = details_of(error)
    assert details["ErrorInfo"].reason == "MODEL_NOT_FOUND"
    assert details["ResourceInfo"].resource_type == "sdgrpc.v1.Model"
    assert details["ResourceInfo"].resource_name == "nope"


@pytest.mark.parametrize(
    "lora",
    [
        pb.Lora(name="nope"),
        pb.Lora(name="../model/unet/diffusion_pytorch_model"),
        pb.Lora(name="/etc/passwd"),
        pb.Lora(name="..\\model"),
        pb.Lora(name="."),
        pb.Lora(sha256="0" * 64),
    ],
    ids=str,
)
def test_an_unknown_lora(stub, lora: pb.Lora) -> None:
    """Names are looked up, never joined: no path leads outside the folders."""
    error = failure_of(stub.Generate(generate(loras=[lora])))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    details = details_of(error)
    assert details["ErrorInfo"].reason == "LORA_NOT_FOUND"
    assert details["ResourceInfo"].resource_type == "sdgrpc.v1.Lora"
    assert details["ResourceInfo"].resource_name in (lora.name, lora.sha256)


def test_prompts_never_reach_the_log(stub, server: ServerProcess) -> None:
    """Neither drawn nor refused, neither short nor long."""
    list(
        stub.Generate(
            generate(prompt="s3cret one", negative_prompt="s3cret two", request_id="kept in the log")
        )
    )
    failure_of(stub.Generate(generate(prompt="s3cret three " * 1000)))
    failure_of(stub.Transform(transform(prompt="s3cret four", image=pb.Image(data=b"s3cret five"))))
    log = server.log_text()
    assert "kept in the log" in log
    assert "outcome=INVALID_REQUEST" in log
    assert "s3cret" not in log


def test_the_server_lives_on(stub) -> None:
    """After all of that it draws."""
    assert list(stub.Generate(generate()))[-1].HasField("finished")
