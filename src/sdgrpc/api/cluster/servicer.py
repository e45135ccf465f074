"""ClusterService: how many replicas draw behind this door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message
from grpc import aio

from sdgrpc.api.catalog_rules import judge
from sdgrpc.api.field_rules import MAX_NAME, Table
from sdgrpc.api.gate import Gate
from sdgrpc.api.rules import name, number, zero_or
from sdgrpc.engine.base import Replicas
from sdgrpc.errors import FieldViolation, InvalidRequest, NoCluster
from sdgrpc.v1 import cluster_pb2 as pb
from sdgrpc.v1 import cluster_pb2_grpc as pb_grpc

MOST_REPLICAS = 1000

Context = aio.ServicerContext[Any, Any]

CLUSTER_TABLES: Mapping[type[Message], Table] = {
    pb.DrainReplicasRequest: {"name": name(MAX_NAME, needed=True)},
    pb.ScaleReplicasRequest: {
        "least": number(1, MOST_REPLICAS),
        "most": zero_or(number(1, MOST_REPLICAS)),
    },
}


class ClusterServicer(pb_grpc.ClusterServiceServicer):
    """Drains and scales the replicas of the engine behind `gate`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    @property
    def _replicas(self) -> Replicas:
        if (replicas := self._gate.engine().replicas) is None:
            raise NoCluster("this server draws by itself; it needs --cluster")
        return replicas

    async def DrainReplicas(  # noqa: N802 - the contract's names
        self, request: pb.DrainReplicasRequest, context: Context
    ) -> pb.DrainReplicasResponse:
        """See the contract."""
        del context
        judge(request, CLUSTER_TABLES)
        return pb.DrainReplicasResponse(replicas=self._replicas.drain(request.name))

    async def ScaleReplicas(  # noqa: N802
        self, request: pb.ScaleReplicasRequest, context: Context
    ) -> pb.ScaleReplicasResponse:
        """See the contract."""
        del context
        judge(request, CLUSTER_TABLES)
        most = request.most or request.least
        if most < request.least:
            raise InvalidRequest([FieldViolation("most", f"is {most}, below `least`, {request.least}")])
        return pb.ScaleReplicasResponse(replicas=self._replicas.scale(request.least, most))
