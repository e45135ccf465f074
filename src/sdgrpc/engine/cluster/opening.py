"""From settings to a cluster that is ready."""

from __future__ import annotations

import asyncio

from sdgrpc.engine.cluster.engine import RayEngine
from sdgrpc.engine.cluster.fleet import Fleet
from sdgrpc.engine.cluster.jobs import Inside
from sdgrpc.engine.cluster.keeper import Keeper
from sdgrpc.engine.cluster.routing.router import Router
from sdgrpc.engine.cluster.scaling import Scaler, Scaling
from sdgrpc.engine.cluster.set_names import SetNames
from sdgrpc.engine.observing.observer import Observer
from sdgrpc.settings import Settings


def open_cluster(settings: Settings, address: str, observer: Observer) -> RayEngine:
    """Start or join Ray, and wait until every replica has its models. Blocks; call it in a thread.

    Raises:
        SettingsError: there is no Ray to join, or the extra is missing.
        ModelError: a model cannot be opened; the message says why.
        EngineFailed: a replica died while it started; its log says why.

    """
    fleet = Fleet(settings, address)
    shared_jobs = fleet.shared_jobs()
    router, sets = Router(settings.affinity_factor), SetNames()
    keeper = Keeper(fleet, router, sets, settings.hang_timeout)
    try:
        if shared_jobs is not None:
            shared_jobs.open_ahead()
        keeper.begin(settings.replica_range[0])
        served = asyncio.run(keeper.opened())
    except BaseException:
        fleet.close()
        raise
    scaling = Scaling(keeper, Scaler(*settings.replica_range))
    inside = Inside(settings.max_queued_jobs_per_token)
    return RayEngine(fleet, router, keeper, scaling, sets, served, observer, inside, shared_jobs)
