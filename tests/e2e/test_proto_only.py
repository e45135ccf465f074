"""A client generated from the proto alone, as a stranger would write it, runs all three RPCs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROTO = Path(__file__).parents[2] / "protos/sdgrpc/v1/diffusion.proto"

# Nothing of sdgrpc is imported here: only grpc and what protoc made of the contract.
CLIENT = """
import json, sys
import grpc
import diffusion_pb2 as pb
import diffusion_pb2_grpc as rpc

def run(call):
    events = list(call)
    images = [event.image.image.data for event in events if event.WhichOneof("event") == "image"]
    return [event.WhichOneof("event") for event in events], images[0]

with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = rpc.DiffusionServiceStub(channel)
    common = dict(prompt="a red circle on a white background", sampling=pb.Sampling(steps=2, seed=1))
    generated, picture = run(stub.Generate(pb.GenerateRequest(**common)))
    source = pb.Image(data=picture)
    transformed, _ = run(stub.Transform(pb.TransformRequest(image=source, strength=1.0, **common)))
    mask = pb.Image(data=open(sys.argv[2], "rb").read())
    inpainted, redrawn = run(stub.Inpaint(pb.InpaintRequest(image=source, mask=mask, **common)))
open("redrawn.png", "wb").write(redrawn)
open("picture.png", "wb").write(picture)
assert "sdgrpc" not in sys.modules
print(json.dumps([generated, transformed, inpainted]))
"""


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """A folder with the stubs that grpc_tools makes of the proto, and the client above."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO.parent}", PROTO.name]
    outputs = [f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}"]
    subprocess.run([*command, *outputs], check=True)
    (tmp_path / "client.py").write_text(CLIENT, "utf-8")
    return tmp_path


def test_all_three_rpcs(server, client: Path) -> None:
    """Generate, Transform and Inpaint answer with the grammar of events; a black mask keeps the picture."""
    from PIL import Image, ImageChops

    Image.new("L", (128, 128), 0).save(client / "mask.png")
    command = [sys.executable, "client.py", server.target, "mask.png"]
    done = subprocess.run(command, cwd=client, check=True, capture_output=True, text=True)
    expected = ["accepted", "prepared", "progress", "progress", "image", "finished"]
    assert json.loads(done.stdout) == [expected] * 3
    pictures = [Image.open(client / name).convert("RGB") for name in ("picture.png", "redrawn.png")]
    assert ImageChops.difference(*pictures).getbbox() is None
