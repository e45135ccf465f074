"""A real gRPC server on a loopback port whose answers a test scripts: for tests of what calls sdgrpc.

A script answers one call: it gets the request and yields the events. `draw_script` draws without a model,
`fail_script` fails as the contract says, `hang_script` waits until the caller goes away.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from PIL import Image

from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1.diffusion_pb2_grpc import DiffusionServiceServicer, add_DiffusionServiceServicer_to_server

Request = pb.GenerateRequest | pb.TransformRequest | pb.InpaintRequest
Asked = Request | pb.UpscaleRequest
Script = Callable[[Request, grpc.ServicerContext], Iterator[pb.JobEvent]]


@dataclass
class ScriptedServer(DiffusionServiceServicer):
    """Answers every call with `script` and keeps the `requests`.

    Attributes:
        cancelled: set once a caller went away before the end.
        health: the health service beside it, which says nothing until `serve` is called.

    """

    script: Script
    requests: list[Asked] = field(default_factory=list)
    cancelled: Event = field(default_factory=Event)
    health: health.HealthServicer = field(default_factory=health.HealthServicer)
    port: int = 0

    def _answer(self, request: Request, context: grpc.ServicerContext) -> Iterator[pb.JobEvent]:
        self.requests.append(request)
        finished = Event()
        context.add_callback(lambda: None if finished.is_set() else self.cancelled.set())
        try:
            yield from self.script(request, context)
            finished.set()
        except Exception:
            finished.set()  # the script failed the call
            raise

    Generate = Transform = Inpaint = _answer  # one answer for three messages

    def Upscale(  # noqa: N802 - the contract's name
        self, request: pb.UpscaleRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.UpscaleEvent]:
        """Answer with a picture of one tile, of any request."""
        del context
        name, width, height = request.upscaler or "first", request.width or 8, request.height or 8
        accepted = pb.UpscaleAccepted(upscaler=name, width=width, height=height, tile_count=1)
        image = pb.Image(data=png(), media_type=request.media_type or "image/png", width=width, height=height)
        self.requests.append(request)
        yield pb.UpscaleEvent(request_id="upscale", accepted=accepted)
        progress = pb.UpscaleProgress(tile=1, tile_count=1)
        yield pb.UpscaleEvent(request_id="upscale", sequence=1, progress=progress)
        yield pb.UpscaleEvent(request_id="upscale", sequence=2, image=image)

    @property
    def target(self) -> str:
        """Where a client finds it."""
        return f"127.0.0.1:{self.port}"

    def serve(self, serving: bool = True) -> None:
        """Say so in the health service."""
        status = health_pb2.HealthCheckResponse
        self.health.set("sdgrpc.v1.DiffusionService", status.SERVING if serving else status.NOT_SERVING)


@contextmanager
def scripted_server(
    script: Script, credentials: grpc.ServerCredentials | None = None, *, workers: int = 4
) -> Iterator[ScriptedServer]:
    """Run a server for the block, with health beside it; it takes a free loopback port.

    Args:
        script: what answers each call.
        credentials: turn TLS on.
        workers: calls that are answered at a time.

    """
    servicer = ScriptedServer(script)
    server = grpc.server(ThreadPoolExecutor(max_workers=workers))
    add_DiffusionServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(servicer.health, server)
    servicer.port = (
        server.add_secure_port("127.0.0.1:0", credentials)
        if credentials
        else server.add_insecure_port("127.0.0.1:0")
    )
    server.start()
    try:
        yield servicer
    finally:
        server.stop(None).wait()


def png(side: int = 8, colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    """A small PNG file of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


def picture(side: int = 8) -> pb.Image:
    """A small picture as a server sends it."""
    return pb.Image(data=png(side), media_type="image/png", width=side, height=side)


def draw_script(steps: int = 3) -> Script:
    """A script that answers as a server does that draws: defaults resolved, previews where asked for."""

    def script(request: Request, _: grpc.ServicerContext) -> Iterator[pb.JobEvent]:
        grid = next((lora.strength_grid for lora in request.loras if lora.strength_grid), ())
        count = len(grid) or request.sampling.image_count or 1
        events = [
            pb.JobEvent(accepted=_accepted(request, steps, count)),
            pb.JobEvent(prepared=_prepared(request)),
            *(pb.JobEvent(progress=_progress(request, step, steps)) for step in range(1, steps + 1)),
            *(pb.JobEvent(image=_image(request, index)) for index in range(count)),
            pb.JobEvent(
                finished=pb.Finished(
                    denoised=Duration(seconds=1, nanos=500_000_000), largest_batch=2, unet_calls=steps
                )
            ),
        ]
        for sequence, event in enumerate(events):
            event.request_id, event.sequence = request.request_id or "made-up", sequence
            yield event

    return script


def fail_script(code: int, message: str, details: Sequence[Message]) -> Script:
    """A script that fails with a google.rpc.Status."""
    packed = [any_pb2.Any() for _ in details]
    for target, detail in zip(packed, details, strict=True):
        target.Pack(detail)
    status = status_pb2.Status(code=code, message=message, details=packed)

    def script(_: Request, context: grpc.ServicerContext) -> Iterator[pb.JobEvent]:
        context.abort_with_status(rpc_status.to_status(status))
        yield pb.JobEvent()

    return script


def invalid_script() -> Script:
    """A script that finds two fields wrong."""
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="sampling.steps", description="999 is above 150")
    bad.field_violations.add(field="loras[1].strength", description="1.5 is above 1.0")
    info = error_details_pb2.ErrorInfo(reason="INVALID_REQUEST", domain="sdgrpc")
    return fail_script(code_pb2.INVALID_ARGUMENT, "2 fields are wrong", [info, bad])


def hang_script(started: Event) -> Script:
    """A script that accepts, then waits until the call is gone."""

    def script(request: Request, context: grpc.ServicerContext) -> Iterator[pb.JobEvent]:
        gone = Event()
        context.add_callback(gone.set)
        yield pb.JobEvent(accepted=_accepted(request, 3, 1))
        started.set()
        gone.wait(timeout=30)

    return script


def _accepted(request: Request, steps: int, count: int) -> pb.Accepted:
    sampling = pb.Sampling()
    sampling.CopyFrom(request.sampling)
    sampling.steps = sampling.steps or steps
    sampling.image_count = count
    sampling.scheduler = sampling.scheduler or pb.SCHEDULER_EULER
    sampling.sigma_spacing = sampling.sigma_spacing or pb.SIGMA_SPACING_DEFAULT
    if not sampling.HasField("seed"):
        sampling.seed = 1234
    return pb.Accepted(
        queue_position=2, sampling=sampling, width=128, height=64, model="embedded", step_count=steps
    )


def _prepared(request: Request) -> pb.Prepared:
    reports = [
        pb.LoraReport(
            name=lora.name,
            sha256="ab" * 32,
            algorithms=["locon"],
            modules={"unet": 42},
            unmatched_tensors=1,
            unmatched_examples=["x.y"],
            relative_norm=0.25,
            strength=lora.strength,
            warnings=["alpha is 0"],
        )
        for lora in request.loras
    ]
    return pb.Prepared(
        loras=reports,
        lora_set_id="set" if reports else "",
        lora_set_cached=True,
        fuse_duration=Duration(nanos=250_000_000),
    )


def _progress(request: Request, step: int, steps: int) -> pb.Progress:
    kind = request.output.preview.kind
    previews = []
    if step < steps and kind == pb.PREVIEW_KIND_LATENT:
        latent = pb.Latent(channels=4, height=2, width=2, data=b"\0" * 32)
        previews = [pb.Preview(image_index=0, latent=latent)]
    elif step < steps and kind:
        previews = [pb.Preview(image_index=0, picture=picture())]
    return pb.Progress(
        step=step,
        step_count=steps,
        timestep=999 - step,
        elapsed=Duration(seconds=step),
        remaining=Duration(seconds=steps - step),
        previews=previews,
    )


def _image(request: Request, index: int) -> pb.GeneratedImage:
    seed = request.sampling.seed if request.sampling.HasField("seed") else 1234
    return pb.GeneratedImage(index=index, seed=seed + index, image=picture())
