"""A catalog of three files whose answers are scripted, on a loopback port."""
# ruff: noqa: N802, ARG002, D102 - grpc names the methods and gives them their arguments; the contract says what they do

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from sdgrpc.v1 import catalog_pb2 as pb
from sdgrpc.v1 import cluster_pb2, diffusion_pb2
from sdgrpc.v1.catalog_pb2_grpc import CatalogServiceServicer, add_CatalogServiceServicer_to_server
from sdgrpc.v1.cluster_pb2_grpc import ClusterServiceServicer, add_ClusterServiceServicer_to_server

HASH = "0123456789abcdef" * 4
NAMES = ["ink", "postcard", "sepia"]


REPLICAS = (
    pb.ReplicaStatus(
        name="replica-0",
        state=pb.REPLICA_STATE_READY,
        node="10.0.0.7",
        process_id=4711,
        running=2,
        queued=1,
        lora_sets=3,
    ),
    pb.ReplicaStatus(name="replica-1", state=pb.REPLICA_STATE_STARTING),
)
UPSCALER = pb.Upscaler(name="large", scale=4, architecture="ESRGAN")


class Catalog(CatalogServiceServicer):
    """Three files, one of which is known already; keeps what it is asked."""

    target = ""

    def __init__(self) -> None:
        self.asked: list[Message] = []
        self.stopped = threading.Event()

    def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        form = pb.LatentFormat(channels=1, scale_factor=8, rgb_factors=[1, 0, -1], rgb_bias=[0, 0, 0])
        sampling = diffusion_pb2.Sampling(steps=20, guidance_scale=2.0)
        model = pb.Model(name="embedded", width=128, sampling=sampling, latent_format=form, resident=True)
        model.sha256, model.autov2 = HASH, HASH[:10]
        strengths = pb.LoraStrengthRange(minimum=-0.7, maximum=2)
        return pb.ListModelsResponse(models=[model], lora_strength_range=strengths, upscalers=[UPSCALER])

    def ListLoras(self, request: pb.ListLorasRequest, context: grpc.ServicerContext) -> pb.ListLorasResponse:
        self.asked.append(request)
        start = int(request.page_token or 0)
        files = [self.file(name) for name in NAMES[start : start + 2]]
        return pb.ListLorasResponse(loras=files, next_page_token="2" if start == 0 else "")

    def ListEmbeddings(
        self, request: pb.ListEmbeddingsRequest, context: grpc.ServicerContext
    ) -> pb.ListEmbeddingsResponse:
        self.asked.append(request)
        word = pb.Embedding(name="face", sha256=HASH, base="sd15", vector_count=2, fits=True)
        word.modified.FromSeconds(86400)
        return pb.ListEmbeddingsResponse(embeddings=[word])

    def GetLora(self, request: pb.GetLoraRequest, context: grpc.ServicerContext) -> pb.GetLoraResponse:
        self.asked.append(request)
        if request.name == "missing":
            context.abort(grpc.StatusCode.NOT_FOUND, "no LoRA 'missing' here")
        modules = [pb.LoraModule(path="a", rank=4, alpha=0.0), pb.LoraModule(path="b", delta_norm=2.0)]
        answer = pb.GetLoraResponse(lora=self.file("ink"), modules=modules, metadata={"k": "v"})
        answer.thumbnail.MergeFrom(
            diffusion_pb2.Image(data=b"jpeg", media_type="image/jpeg", width=2, height=1)
        )
        answer.beside_warnings.append("ink.json is ignored: it is no JSON")
        return answer

    def UploadLora(
        self, requests: Iterator[pb.UploadLoraRequest], context: grpc.ServicerContext
    ) -> pb.UploadLoraResponse:
        header = next(requests).header
        self.asked.append(header)
        if header.name == "ink":
            return pb.UploadLoraResponse(lora=self.file("ink"), existed=True)
        content = b"".join(request.chunk for request in requests)
        if hashlib.sha256(content).hexdigest() != header.sha256 or len(content) != header.size_bytes:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the content is not what the header announced")
        return pb.UploadLoraResponse(lora=self.file(header.name))

    def PrepareLoras(
        self, request: pb.PrepareLorasRequest, context: grpc.ServicerContext
    ) -> pb.PrepareLorasResponse:
        self.asked.append(request)
        duration = Duration(nanos=250_000_000)
        return pb.PrepareLorasResponse(
            prepared=diffusion_pb2.Prepared(lora_set_id="set", fuse_duration=duration)
        )

    def PlanJob(self, request: pb.PlanJobRequest, context: grpc.ServicerContext) -> pb.PlanJobResponse:
        self.asked.append(request)
        sampling = diffusion_pb2.Sampling(
            steps=20, guidance_scale=2.0, scheduler=diffusion_pb2.SCHEDULER_EULER, seed=7, image_count=1
        )
        sampling.sigma_spacing = diffusion_pb2.SIGMA_SPACING_DEFAULT
        accepted = diffusion_pb2.Accepted(
            model="embedded", width=128, height=128, step_count=20, sampling=sampling, warnings=["image: odd"]
        )
        lora = pb.PlannedLora(
            name="ink", sha256=HASH, strength=0.8, text_encoder_strength=0.5, warnings=["made for 4 steps"]
        )
        return pb.PlanJobResponse(
            accepted=accepted,
            unet_steps=11,
            guided_steps=8,
            loras=[lora],
            lora_set_id=HASH,
            model_resident=True,
            estimated_wait=Duration(seconds=1, nanos=500_000_000),
            estimated_steps=Duration(seconds=2),
            memory_bytes=3 << 20,
        )

    def WatchStatus(
        self, request: pb.WatchStatusRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchStatusResponse]:
        self.asked.append(request)
        context.add_callback(self.stopped.set)
        sets = [pb.ResidentLoraSet(lora_set_id="set", loras=[pb.ResidentLora(sha256="ab", strength=0.5)])]
        for running in range(100):
            models = [pb.ResidentModel(name="embedded", size_bytes=7)]
            yield pb.WatchStatusResponse(
                ready=True, running=running, models=models, lora_sets=sets, replicas=REPLICAS
            )
        self.stopped.wait(30)

    def file(self, name: str) -> pb.LoraFile:
        """Describe a file of that name."""
        refusal = "is for SDXL; the loaded model is SD1.5"
        return pb.LoraFile(
            name=name,
            rank_max=8,
            modified=Timestamp(seconds=86400),
            trigger_words=["w"],
            refusal=refusal,
            autov3=HASH[:12],
            preferred_strength=0.7,
            has_thumbnail=True,
            air="urn:air:sd1:lora:civitai:1@2",
            base_model="SD 1.5",
        )


class Cluster(ClusterServiceServicer):
    """Two replicas, of which one leaves; what it is asked is the catalog's."""

    def __init__(self, asked: list[Message]) -> None:
        self._asked = asked

    def DrainReplicas(
        self, request: cluster_pb2.DrainReplicasRequest, context: grpc.ServicerContext
    ) -> cluster_pb2.DrainReplicasResponse:
        self._asked.append(request)
        return cluster_pb2.DrainReplicasResponse(replicas=["replica-0"])

    def ScaleReplicas(
        self, request: cluster_pb2.ScaleReplicasRequest, context: grpc.ServicerContext
    ) -> cluster_pb2.ScaleReplicasResponse:
        self._asked.append(request)
        return cluster_pb2.ScaleReplicasResponse(replicas=2)


@contextmanager
def scripted_catalog() -> Iterator[Catalog]:
    """Run one for the block."""
    servicer = Catalog()
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    add_CatalogServiceServicer_to_server(servicer, server)
    add_ClusterServiceServicer_to_server(Cluster(servicer.asked), server)
    servicer.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield servicer
    finally:
        server.stop(None).wait()
