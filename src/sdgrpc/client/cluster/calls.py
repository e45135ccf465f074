"""ClusterService's calls, for ordinary code and for asyncio."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from sdgrpc.client.errors import server_error
from sdgrpc.v1 import cluster_pb2 as pb

if TYPE_CHECKING:
    from sdgrpc.v1.cluster_pb2_grpc import ClusterServiceAsyncStub, ClusterServiceStub


class ClusterCalls:
    """Changes how many replicas draw, where the operator allows it (`cluster_control`).

    Every call raises SdgrpcServerError, or one of its subclasses, if it fails.
    """

    _cluster: ClusterServiceStub

    def drain_replicas(self, name: str) -> tuple[str, ...]:
        """Let a replica go, or those on a node, once its jobs have ended; returns those that leave."""
        try:
            return tuple(self._cluster.DrainReplicas(pb.DrainReplicasRequest(name=name)).replicas)
        except grpc.RpcError as error:
            raise server_error(error) from error

    def scale_replicas(self, least: int, most: int = 0) -> int:
        """Keep `least` replicas, up to `most` as the queue asks for; returns how many there were."""
        try:
            return self._cluster.ScaleReplicas(pb.ScaleReplicasRequest(least=least, most=most)).replicas
        except grpc.RpcError as error:
            raise server_error(error) from error


class AsyncClusterCalls(ABC):
    """See `ClusterCalls`."""

    @property
    @abstractmethod
    def _cluster(self) -> ClusterServiceAsyncStub:
        """The stub, made at the first call."""

    async def drain_replicas(self, name: str) -> tuple[str, ...]:
        """See `ClusterCalls.drain_replicas`."""
        try:
            return tuple((await self._cluster.DrainReplicas(pb.DrainReplicasRequest(name=name))).replicas)
        except grpc.aio.AioRpcError as error:
            raise server_error(error) from error

    async def scale_replicas(self, least: int, most: int = 0) -> int:
        """See `ClusterCalls.scale_replicas`."""
        request = pb.ScaleReplicasRequest(least=least, most=most)
        try:
            return (await self._cluster.ScaleReplicas(request)).replicas
        except grpc.aio.AioRpcError as error:
            raise server_error(error) from error
