"""A gRPC server with health, reflection, TLS and sane limits around a servicer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import grpc
from grpc import aio
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from sdgrpc.api.access.certificates import server_credentials
from sdgrpc.api.access.checking import AccessInterceptor
from sdgrpc.api.access.connections import server_options
from sdgrpc.api.access.reloaded import Reloaded
from sdgrpc.api.access.sockets import SocketPlace
from sdgrpc.api.access.tokens import parse_tokens
from sdgrpc.api.calls.call import CallObserver
from sdgrpc.api.calls.log import CallLog
from sdgrpc.api.calls.observed import ObservingInterceptor
from sdgrpc.api.catalog import CatalogServicer
from sdgrpc.api.cluster.servicer import ClusterServicer
from sdgrpc.api.gate import Gate
from sdgrpc.api.interceptor import FailureInterceptor
from sdgrpc.api.jobs.servicer import JobServicer
from sdgrpc.api.reflection.symbols import symbol_pool
from sdgrpc.api.servicer import DiffusionServicer
from sdgrpc.api.waiting import first_of
from sdgrpc.errors import Draining, SettingsError, TooManyCalls
from sdgrpc.settings import Settings
from sdgrpc.v1 import catalog_pb2, catalog_pb2_grpc, cluster_pb2, cluster_pb2_grpc, jobs_pb2, jobs_pb2_grpc
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc

logger = logging.getLogger(__name__)

REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"

DIFFUSION = pb.DESCRIPTOR.services_by_name["DiffusionService"].full_name
CATALOG = catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name
JOBS = jobs_pb2.DESCRIPTOR.services_by_name["JobService"].full_name
SERVICES = (DIFFUSION, CATALOG, JOBS, health.SERVICE_NAME, reflection.SERVICE_NAME)
CLUSTER = cluster_pb2.DESCRIPTOR.services_by_name["ClusterService"].full_name
CHANNELZ = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name


class Listener:
    """Owns the port. Health answers NOT_SERVING from the start until `serving`, and again after `leaving`."""

    def __init__(
        self,
        settings: Settings,
        servicer: DiffusionServicer,
        catalog: CatalogServicer,
        jobs: JobServicer,
        gate: Gate,
        inner: Sequence[aio.ServerInterceptor] = (),
        observers: Sequence[CallObserver] = (),
    ) -> None:
        self._settings = settings
        self._health = Health(settings.max_connections)
        self._place: SocketPlace | None = None
        passed = [ObservingInterceptor([*observers, CallLog()]), *interceptors(settings), *inner]
        self._server = aio.server(interceptors=passed, options=server_options(settings))
        pb_grpc.add_DiffusionServiceServicer_to_server(servicer, self._server)
        catalog_pb2_grpc.add_CatalogServiceServicer_to_server(catalog, self._server)
        jobs_pb2_grpc.add_JobServiceServicer_to_server(jobs, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        named: Sequence[str] = SERVICES
        if settings.cluster_control:
            cluster_pb2_grpc.add_ClusterServiceServicer_to_server(ClusterServicer(gate), self._server)
            named = (*named, CLUSTER)
        if settings.channelz:
            channelz.add_channelz_servicer(self._server)
            named = (*named, CHANNELZ)
        if settings.reflection:
            reflection.enable_server_reflection(named, self._server, pool=symbol_pool())
            self._server.add_generic_rpc_handlers([reflection_v1(named)])
        self.port = 0

    @property
    def address(self) -> str:
        """HOST:PORT with the port that was taken, or unix:PATH."""
        is_socket = self._settings.socket_path is not None
        return self._settings.listen if is_socket else f"{self._settings.host}:{self.port}"

    async def start(self) -> None:
        """Take the port and answer.

        Raises:
            SettingsError: the port or socket is taken or not ours, or the certificate and key do not fit.

        """
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        credentials = server_credentials(self._settings)
        listen = self._settings.listen
        if (path := self._settings.socket_path) is not None:
            self._place = SocketPlace(path)
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(listen)
            else:
                self.port = self._server.add_secure_port(listen, credentials)
        except RuntimeError as error:
            hint = " or the TLS files do not fit" if credentials else ""
            raise SettingsError(f"cannot listen on {listen}: the port may be taken{hint} ({error})") from None
        await self._server.start()

    async def serving(self) -> None:
        """Tell health that jobs are welcome."""
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def leaving(self) -> None:
        """Tell health, for good, that they are not; calls are still answered."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        """Give up the port; calls that still run are cut after `grace` seconds."""
        self._health.end_watches()
        await self._server.stop(grace)
        if self._place is not None:
            self._place.release()

    async def _set_health(self, status: int) -> None:
        for service in ("", DIFFUSION, CATALOG, JOBS):
            await self._health.set(service, status)


def interceptors(settings: Settings) -> list[aio.ServerInterceptor]:
    """What every call passes that is not only watched, outermost first."""
    if (path := settings.token_file) is None:
        return [FailureInterceptor()]
    tokens = Reloaded([path], lambda contents: parse_tokens(path, *contents))
    logger.info("%d tokens in %s", len(tokens.get()), path)
    return [FailureInterceptor(), AccessInterceptor(tokens)]


class Health(health.aio.HealthServicer):
    """Health whose watches end with the server, instead of being cut with a traceback on standard error.

    There are at most `max_watches`: one for each connection, say, though anybody may open them.
    """

    def __init__(self, max_watches: int) -> None:
        super().__init__()
        self._max_watches, self._watches = max_watches, 0
        self._ended = asyncio.Event()

    def end_watches(self) -> None:
        """End every watch, now and later, with UNAVAILABLE."""
        self._ended.set()

    async def Watch(  # noqa: N802 - the protocol's name
        self, request: health_pb2.HealthCheckRequest, context: aio.ServicerContext[Any, Any]
    ) -> None:
        """See grpc.health.v1."""
        if self._watches >= self._max_watches:
            raise TooManyCalls(f"{self._watches} calls watch the health already", retry_after=5.0)
        self._watches += 1
        try:
            if not await first_of(super().Watch(request, context), self._ended.wait()):
                raise Draining("the server stopped")
        finally:
            self._watches -= 1


def reflection_v1(services: Sequence[str]) -> grpc.GenericRpcHandler:
    """Reflection under its newer name, which tools ask for first; the messages are the same on the wire."""
    handler = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(services, pool=symbol_pool()).ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(REFLECTION_V1, {"ServerReflectionInfo": handler})
