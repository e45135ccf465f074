"""The table of tests/contract as requests."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from sdgrpc.v1 import catalog_pb2, cluster_pb2
from sdgrpc.v1 import diffusion_pb2 as pb
from server import CONTRACT, skip

Case = dict[str, Any]
REQUESTS: dict[str, type[Message]] = {
    "Generate": pb.GenerateRequest,
    "Transform": pb.TransformRequest,
    "Inpaint": pb.InpaintRequest,
    "Upscale": pb.UpscaleRequest,
    "ListEmbeddings": catalog_pb2.ListEmbeddingsRequest,
    "DrainReplicas": cluster_pb2.DrainReplicasRequest,
    "ScaleReplicas": cluster_pb2.ScaleReplicasRequest,
}
CASE_KEYS = {"name", "kind", "method", "request", "files", "timeout_seconds", "expect", "with_replicas"}
EXPECT_KEYS = {
    *("outcome", "request_id", "model", "step_count", "width", "height", "seeds", "media_type", "loras"),
    *("second_pass", "lora_strengths", "upscaler", "tile_count", "embeddings"),
    *("unet_steps", "guided_steps", "replicas"),
    *("previews", "warnings", "reason", "metadata", "violations", "resource", "retry"),
}


@cache
def read_table() -> dict[str, Any]:
    """The table; the tests are skipped where this folder was copied out of the repository."""
    path = CONTRACT / "cases.json"
    if not path.is_file():
        skip(f"{path} is not there")
    table = json.loads(path.read_text("utf-8"))
    for case in table["cases"]:
        assert set(case) <= CASE_KEYS, case["name"]
        for expect in (case["expect"], case.get("with_replicas", {})):
            assert set(expect) <= EXPECT_KEYS, case["name"]
    assert table["cases"]
    return table


def request_of(case: Case) -> Any:
    """The case's message, with the content of its files."""
    request = json_format.ParseDict(case["request"], REQUESTS[case["method"]]())
    for field, path in case.get("files", {}).items():
        getattr(request, field).data = (CONTRACT / path).read_bytes()
    return request
