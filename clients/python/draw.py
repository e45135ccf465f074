"""Draw with two LoRAs, show progress, save previews and the picture: `python draw.py HOST:PORT FOLDER`.

A server that asks for a token is given that of the environment variable SDGRPC_TOKEN.
"""

import os
import sys
from pathlib import Path

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo, RetryInfo
from grpc_status import rpc_status

from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1.diffusion_pb2_grpc import DiffusionServiceStub

OPTIONS = [
    # Images travel whole in one message; gRPC's own limit is 4 MiB.
    ("grpc.max_receive_message_length", 128 << 20),
    ("grpc.max_send_message_length", 128 << 20),
    # Pings find a server that vanished while a job waits; it takes one every ten seconds.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
REQUEST = pb.GenerateRequest(
    prompt="a red star on a blue background",
    loras=[pb.Lora(name="postcard", strength=0.75), pb.Lora(name="sepia", strength=0.5)],
    sampling=pb.Sampling(steps=20, seed=7),
    output=pb.Output(preview=pb.PreviewOptions(kind=pb.PREVIEW_KIND_PICTURE, every_n_steps=5, max_side=128)),
)


def authorization() -> list[tuple[str, str]]:
    """The header that shows the token of SDGRPC_TOKEN; none where there is no token."""
    token = os.environ.get("SDGRPC_TOKEN")
    return [("authorization", f"Bearer {token}")] if token else []


def draw(server: str, folder: Path) -> None:
    """Leaving the loop early, by Ctrl-C too, closes the channel, and that cancels the job."""
    folder.mkdir(parents=True, exist_ok=True)
    with grpc.insecure_channel(server, OPTIONS) as channel:
        for event in DiffusionServiceStub(channel).Generate(REQUEST, metadata=authorization()):
            show(event, folder)


def show(event: pb.JobEvent, folder: Path) -> None:
    """Say in a line what happened, and save the pictures in it."""
    match event.WhichOneof("event"):
        case "accepted":
            print(f"accepted: {event.accepted.step_count} steps")
        case "prepared":
            for lora in event.prepared.loras:
                print(
                    f"LoRA {lora.name} at {lora.strength:g} changes its weights by {lora.relative_norm:.1%}"
                )
        case "progress":
            progress = event.progress
            print(f"step {progress.step} of {progress.step_count}, {progress.remaining.ToTimedelta()} left")
            for preview in progress.previews:
                name = f"preview-{preview.image_index}-{progress.step:02}.png"
                (folder / name).write_bytes(preview.picture.data)
        case "image":
            (folder / f"picture-{event.image.seed}.png").write_bytes(event.image.image.data)


def explain(error: grpc.RpcError) -> str:
    """The failure and its details, a line each: the reason, wrong fields, what is missing, when to retry."""
    lines = [f"{error.code().name}: {error.details()}"]
    status = rpc_status.from_call(error)
    for packed in status.details if status else ():
        for kind in (ErrorInfo, BadRequest, ResourceInfo, RetryInfo):
            detail = kind()
            if packed.Unpack(detail):
                lines.append(f"{kind.DESCRIPTOR.name}: {detail}".strip())
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        draw(sys.argv[1], Path(sys.argv[2]))
    except grpc.RpcError as error:
        sys.exit(explain(error))
