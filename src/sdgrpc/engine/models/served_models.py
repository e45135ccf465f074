"""The models that an engine serves: what each is, which are in memory, and how the others get there."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sdgrpc.diffusion.model import Model
from sdgrpc.domain import ModelInfo, ModelState, ResidentSet
from sdgrpc.engine.hashing.models import WeightFiles
from sdgrpc.engine.models.device_options import DeviceOptions
from sdgrpc.engine.models.lease import ModelLease
from sdgrpc.engine.models.residency import ModelPool
from sdgrpc.engine.models.served_model import ServedModel
from sdgrpc.engine.queueing.turns import Turns
from sdgrpc.engine.supervision.call_times import CallShape
from sdgrpc.engine.supervision.supervisor import Supervisor
from sdgrpc.errors import ModelError, ModelNotFound
from sdgrpc.lora.bases.module_names import NameIndex, Shape
from sdgrpc.lora.bases.target import Target
from sdgrpc.lora.fusing.cache import SetStats

logger = logging.getLogger(__name__)

LOAD_PATIENCE = 10.0  # nothing tells how long a file of many GB takes from a disk that is far away


@dataclass(frozen=True, eq=False)
class Loadable:
    """A model that is read when it is needed: `load` may be called again and gives the same weights.

    `shapes` has each parameter's by its name, per component that LoRAs may change; `dtype` is the UNet's;
    `files` is where its weights are.
    """

    info: ModelInfo
    dtype: str
    shapes: Mapping[str, Mapping[str, Shape]]
    load: Callable[[], Model]
    files: WeightFiles | None = None


def weight_files(models: Sequence[Model | Loadable]) -> dict[str, WeightFiles]:
    """Where the weights of each model are, of those that are in files."""
    loadable = [model for model in models if isinstance(model, Loadable)]
    return {model.info.name: model.files for model in loadable if model.files}


class ServedModels:
    """Models by name, the first the default. Thread safe.

    Args:
        models: those that are loaded already stay in memory for good.
        capacity: how many of the others may be there at a time.
        lora_cache_bytes: what the fused sets of each may take while it is there.
        device_options: how each uses its device.
        turns: who begins next.
        supervisor: watches over loading.

    """

    def __init__(
        self,
        models: Sequence[Model | Loadable],
        *,
        capacity: int,
        lora_cache_bytes: int,
        device_options: DeviceOptions | None = None,
        turns: Turns | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._wrap = partial(
            ServedModel.of, lora_cache_bytes=lora_cache_bytes, options=device_options or DeviceOptions()
        )
        self._supervisor = supervisor or Supervisor()
        self._loadable = {model.info.name: model for model in models if isinstance(model, Loadable)}
        held = {model.info.name: self._wrap(model) for model in models if isinstance(model, Model)}
        self._states = {name: _state(served.model, served.weight_bytes) for name, served in held.items()}
        self._judges = {
            name: Target(served.sets.names, served.model.info.base) for name, served in held.items()
        }
        for name, model in self._loadable.items():
            self._states[name] = ModelState(model.info, model.dtype, resident=False, size_bytes=0)
            self._judges[name] = Target(NameIndex(model.shapes), model.info.base)
        self.infos: Sequence[ModelInfo] = tuple(model.info for model in models)
        self._first = [*held, *list(self._loadable)[:capacity]]
        self._refused: dict[str, str] = {}  # models that failed at the start, and why
        self._past_sets = SetStats()  # of models that were put out
        self.pool = ModelPool(held, load=self._load, unload=self._unload, capacity=capacity, turns=turns)

    @property
    def first(self) -> Sequence[ModelInfo]:
        """Those that are in memory from the start."""
        return [info for info in self.infos if info.name in self._first]

    @property
    def default(self) -> str:
        """The name of the model that requests mean which name none."""
        return self.infos[0].name

    def check(self, name: str) -> None:
        """Raise ModelNotFound unless the model is served."""
        if name not in self._judges:
            raise ModelNotFound.among(name, [info.name for info in self.infos])

    def refuse(self, name: str, why: str) -> None:
        """Draw with a model no more, if it is in memory; one that could not be loaded may be another time."""
        if name in self.pool.resident():
            self._refused[name] = why

    def check_usable(self, name: str) -> None:
        """Raise ModelNotFound unless the model is served, ModelError if it failed at the start."""
        self.check(name)
        if name in self._refused:
            raise ModelError(self._refused[name])

    def target(self, name: str) -> Target:
        """What LoRA files are judged against, loaded or not; raises ModelNotFound."""
        self.check(name)
        return self._judges[name]

    def lease(self, waiting_id: int, name: str, caller: str) -> ModelLease[ServedModel]:
        """See `ModelPool.lease`; raises as `check_usable`."""
        self.check_usable(name)
        return self.pool.lease(waiting_id, name, caller)

    def states(self) -> Sequence[ModelState]:
        """Describe each model in their order."""
        resident = self.pool.resident()
        states = [self._states[info.name] for info in self.infos]
        return [
            ModelState(state.info, state.dtype, state.info.name in resident, state.size_bytes)
            for state in states
        ]

    def set_stats(self) -> SetStats:
        """Add up the fused sets of the models in memory; what is counted is so since the start."""
        resident = self.pool.resident().values()
        return sum((served.sets.stats() for served in resident), start=self._past_sets)

    def resident_sets(self) -> tuple[ResidentSet, ...]:
        """The fused sets in memory, model by model in the order of their last use."""
        resident = self.pool.resident()
        return tuple(one for name, served in resident.items() for one in served.sets.resident(name))

    def release(self) -> None:
        """Give every model its pristine weights back and forget it, once nobody uses one."""
        for served in self.pool.clear():
            served.restore()

    def _load(self, name: str) -> ServedModel:
        started = time.monotonic()
        with self._supervisor.call(CallShape("load", name, patience=LOAD_PATIENCE)):
            model = self._loadable[name].load()
        served = self._wrap(model)
        self._states[name] = _state(served.model, served.weight_bytes)
        logger.info("model %s was loaded in %.2f s", name, time.monotonic() - started)
        return served

    def _unload(self, served: ServedModel) -> None:
        self._past_sets += served.sets.stats().past()
        self._supervisor.run(CallShape("unload", served.model.info.name), served.unload)
        del served
        gc.collect()  # networks may hold themselves; the next model needs the room now


def _state(model: Model, size_bytes: int) -> ModelState:
    return ModelState(
        model.info, str(model.dtype).removeprefix("torch."), resident=True, size_bytes=size_bytes
    )
