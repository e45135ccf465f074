"""What an engine says of itself: its jobs, its pace, its memory."""

from __future__ import annotations

from sdgrpc.diffusion.prompts.cache import PromptCacheStats
from sdgrpc.domain import EngineStatus
from sdgrpc.engine.loop import EngineLoop
from sdgrpc.engine.models.served_models import ServedModels
from sdgrpc.engine.observing.sets import max_sets


def engine_status(
    loop: EngineLoop,
    models: ServedModels,
    prompts: PromptCacheStats,
    *,
    set_budget_bytes: int,
    ready: bool,
    silence: float,
) -> EngineStatus:
    """Gather an engine's numbers of this moment.

    Args:
        loop: has the jobs and what was measured of them.
        models: have the fused sets.
        prompts: what encoded prompts take.
        set_budget_bytes: what the fused sets of one model may take.
        ready: whether the engine draws.
        silence: seconds since its threads were last heard of.

    """
    queue = loop.queue
    running, queued, finished = queue.counts()
    rows_per_call, steps_per_second = loop.meter.rates()
    sets, resident = models.set_stats(), models.resident_sets()
    held = {one.set_id for one in resident}
    return EngineStatus(
        ready=ready,
        running=running,
        queued=queued,
        rows_per_call=rows_per_call,
        steps_per_second=steps_per_second,
        lora_sets=sets.sets,
        lora_set_bytes=sets.bytes,
        fuse_count=sets.fuse_count,
        jobs_finished=finished,
        prompts=prompts.prompts,
        prompt_bytes=prompts.bytes,
        queue_size=queue.options.queue_size,
        estimated_wait_seconds=queue.estimated_wait(),
        lora_set_budget_bytes=set_budget_bytes,
        resident_sets=resident,
        lora_set_hits=sets.hits,
        lora_set_misses=sets.misses,
        lora_set_evictions=sets.evictions,
        wanted_sets=tuple(one for one in queue.sets_wanted() if one not in held),
        max_sets=max_sets(resident, set_budget_bytes, unknown=queue.options.max_running_jobs),
        heartbeat_seconds=silence,
    )
