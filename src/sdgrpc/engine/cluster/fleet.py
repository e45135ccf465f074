"""The replicas' processes: Ray actors, started, asked and ended."""

from __future__ import annotations

import logging
import os
import subprocess
from typing import Any

from sdgrpc.engine.cluster import head
from sdgrpc.engine.cluster.kept.joined import RayJobs
from sdgrpc.engine.cluster.replica import Replica, Report, Served
from sdgrpc.errors import SettingsError
from sdgrpc.settings import Settings

logger = logging.getLogger(__name__)

NEEDS_RAY = 'a cluster needs what the server is not installed with: pip install "sdgrpc[cluster]"'
LOCAL = "local"
RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it hides the GPU from actors that ask for none
    "RAY_COLOR_PREFIX": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_worker_niceness": "0",  # else whatever else the machine does starves the replicas
}
"""What Ray reads from the environment when it is imported."""
AHEAD = 2
"""Messages of a job that may be on their way; those behind wait in the replica, and travel together."""
MANY = 1000
"""Calls that a replica answers at a time: its engine has its own queue."""


class ReplicaDied(Exception):
    """The replica's process ended while it was asked."""


class Fleet:
    """Ray, started on this machine or joined, and the actors made on it. Used by one event loop.

    Args:
        settings: each replica's engine is opened from them.
        address: `local` starts a Ray of this process, on loopback; HOST:PORT joins one.

    Raises:
        SettingsError: the extra is missing, or there is no Ray at the address.

    """

    def __init__(self, settings: Settings, address: str) -> None:
        self.is_local = address == LOCAL
        for variable, value in (RAY | (head.own_environment() if self.is_local else {})).items():
            os.environ.setdefault(variable, value)
        try:
            import ray
        except ModuleNotFoundError:
            raise SettingsError(NEEDS_RAY) from None
        self._ray: Any = ray
        self._settings = settings
        self._head: subprocess.Popen[str] | None = None
        try:
            if self.is_local:
                self._head, address = head.start()
            self._ray.init(address=address, log_to_driver=True, logging_level="error", namespace="sdgrpc")
        except (ConnectionError, ValueError, RuntimeError) as error:
            self._end_head()
            raise SettingsError(f"cluster: no Ray at {address}: {error}") from None
        self._actors: dict[str, Any] = {}
        self._is_closed = False
        self._threads = self._share_of(settings.replica_range[1])

    def _share_of(self, count: int) -> int:
        """Return how many CPUs each replica may use: as many as are there, divided."""
        if self._settings.replica_cpus is not None:
            return self._settings.replica_cpus
        cpus = os.cpu_count() if self.is_local else self._ray.cluster_resources().get("CPU", 1)
        return max(int(cpus or 1) // count, 1)

    def _options(self, name: str) -> dict[str, Any]:
        """Place a replica: on this machine beside the others, on a cluster where CPUs or a GPU are free."""
        device = self._settings.device
        wants_gpu = device.startswith("cuda") or (
            device == "auto" and self._ray.cluster_resources().get("GPU")
        )
        threads = str(self._threads)
        return {
            "name": f"{os.getpid()}-{name}",
            "num_cpus": 0 if self.is_local or wants_gpu else self._threads,
            "num_gpus": 1 if wants_gpu else 0,
            "scheduling_strategy": "SPREAD",
            "max_restarts": 0,  # whoever notices a death makes another: Ray's own restart takes a second more
            "max_task_retries": 0,
            "max_concurrency": MANY,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}},
        }

    def shared_jobs(self) -> RayJobs | None:
        """Return what keeps jobs for all front doors of a Ray that was joined.

        One that was started here has no other front door, and ends with this one.
        """
        return None if self.is_local else RayJobs(self._ray, self._settings)

    def start(self, name: str) -> None:
        """Start a replica, in place of one of that name."""
        self.stop(name)
        actor = self._ray.remote(Replica).options(**self._options(name))
        self._actors[name] = actor.remote(self._settings, name)

    def stop(self, name: str) -> None:
        """End a replica's process, whatever it does; nothing happens where there is none."""
        if (actor := self._actors.pop(name, None)) is not None:
            self._ray.kill(actor)

    def _actor(self, name: str) -> Any:  # noqa: ANN401 - Ray's handles have no types
        if name not in self._actors:
            raise ReplicaDied(name)
        return self._actors[name]

    async def ask(self, name: str, method: str, *args: object) -> Any:  # noqa: ANN401
        """Call a method of a replica; raises ReplicaDied."""
        actor = self._actor(name)
        try:
            return await getattr(actor, method).remote(*args)
        except self._ray.exceptions.RayActorError:
            raise ReplicaDied(name) from None

    def tell(self, name: str, method: str, *args: object) -> None:
        """Call a method of a replica without waiting; nothing happens where it is gone."""
        if name in self._actors:
            getattr(self._actors[name], method).remote(*args)

    async def served(self, name: str) -> Served:
        """Return what a replica serves once it is ready; raises ReplicaDied, or what kept it from opening."""
        return await self.ask(name, "served")  # type: ignore[no-any-return]

    async def report(self, name: str) -> Report:
        """Return a replica's word of itself; raises ReplicaDied."""
        return await self.ask(name, "report")  # type: ignore[no-any-return]

    async def copy(self, method: str, source: str, taking: str, target: str, *args: object) -> bool:
        """Have one replica's answer given to another, from machine to machine; raises ReplicaDied."""
        content = getattr(self._actor(source), method).remote(*args)
        return bool(await self.ask(target, taking, content))

    def stream(self, name: str, method: str, *args: object) -> Any:  # noqa: ANN401
        """Begin a job; returns the references to its messages. Raises ReplicaDied.

        The bound of messages is not public in Ray: hence its pinned version, and the test of a slow reader.
        """
        options = {"num_returns": "streaming", "_generator_backpressure_num_objects": AHEAD}
        return getattr(self._actor(name), method).options(**options).remote(*args)

    async def next_of(self, stream: Any, name: str) -> Any:  # noqa: ANN401
        """Return a job's next message, None at its end; raises ReplicaDied."""
        try:
            return await (await stream.__anext__())
        except StopAsyncIteration:
            return None
        except self._ray.exceptions.RayActorError:
            raise ReplicaDied(name) from None

    def drop(self, stream: Any, name: str, job: str) -> None:  # noqa: ANN401
        """Cancel a job in both ways: its stream, and the engine's work."""
        self._ray.cancel(stream)
        self.tell(name, "cancel", job)

    def close(self) -> None:
        """End the replicas, and Ray where it was started here. May be called twice."""
        if self._is_closed:
            return
        self._is_closed = True
        for name in list(self._actors):
            self.stop(name)
        self._ray.shutdown()
        self._end_head()

    def _end_head(self) -> None:
        if self._head is not None and self._head.stdin is not None:
            self._head.stdin.close()
            self._head.wait()
