"""What a job holds on the device, from its set to its latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures.inpainting import Region
from sdgrpc.diffusion.sampling.denoise import Denoising, ModelInput
from sdgrpc.domain import LoraRef, Task
from sdgrpc.domain.phases import Phase, phases
from sdgrpc.engine.job import CallSize, Job
from sdgrpc.engine.models.served_model import ServedModel
from sdgrpc.engine.sets.job_sets import JobSets
from sdgrpc.errors import ModelError
from sdgrpc.lora.fusing.cache import Lease
from sdgrpc.lora.fusing.lora_set import LoraSet
from sdgrpc.lora.store.library import FoundLora
from sdgrpc.machine.streams import Mark


@dataclass(slots=True)
class LocalWork:
    """What a job holds on the device: its model, the files it named, its sets once fused, its denoising.

    The files are found by `finding` where the job began without. `open` gives the model once the job was
    chosen to begin, or raises why it could not be loaded. `steps` is sent a prediction for each thing that it
    wants the UNet to evaluate (`wanted`; None while it waits for a set), until the `latents` are there.
    `region` is what an inpainting job redraws, `embeddings` the textual inversions that its prompts use, with
    their files' SHA-256. `next_pass` makes of the latents the denoising that follows, where one does.
    Once it is `settled` it needs its files no more; `was_read_ahead` tells which were read while it waited.
    Implements `engine.job.JobWork`.
    """

    open: Callable[[], ServedModel]
    files: Sequence[FoundLora] = ()
    finding: Future[Sequence[FoundLora]] | None = field(default=None)
    sets: JobSets | None = field(default=None)
    opened: ServedModel | None = field(default=None)
    region: Region | None = field(default=None)
    embeddings: Sequence[tuple[str, str]] = ()
    steps: Denoising | None = field(default=None)
    wanted: ModelInput | None = field(default=None)
    latents: torch.Tensor | None = field(default=None)
    next_pass: Callable[..., Denoising] | None = field(default=None)
    settled: bool = False
    when_settled: Callable[[], None] = lambda: None
    was_read_ahead: Callable[[FoundLora], bool] = lambda _file: False
    _mark: Mark | None = field(default=None)

    @property
    def served(self) -> ServedModel:
        """The model, kept from its first use on."""
        if self.opened is None:
            self.opened = self.open()
        return self.opened

    @property
    def still_finds(self) -> bool:
        """Whether its files are not found yet; takes note of them where they are. Raises why they are not."""
        finding = self.finding  # two threads may ask
        if finding is not None and finding.done():
            self.files, self.finding = finding.result(), None
        return self.finding is not None

    @property
    def lease(self) -> Lease:
        """The set that `wanted` is to be evaluated with."""
        assert self.sets is not None, "steps come after prepare"  # noqa: S101
        return self.sets.current.lease

    def members(self, phase: Phase, task: Task) -> list[tuple[FoundLora, LoraRef]]:
        """The files of a phase, each with how the task asks for it."""
        return [(self.files[at], task.loras[at]) for at in phase.loras]

    def begin(self, steps: Denoising) -> bool:
        """Take the first request of a denoising; True if it has none."""
        self.steps = steps
        return self._take(lambda: next(steps))

    def follow(self, check: Callable[[], None]) -> bool:
        """Begin with the pass that follows; True if it has no steps. `check` may end the work for it."""
        made, latents = self.next_pass, self.latents
        assert made is not None and latents is not None, "a pass follows one that is done"  # noqa: S101, PT018
        self.next_pass = self.latents = None
        return self.begin(made(latents, check=check))

    def advance(self, prediction: torch.Tensor | None) -> bool:
        """Send a prediction, or None to one that waits, and take the next request; True once all is done."""
        steps = self.steps
        assert steps is not None, "advance comes after begin"  # noqa: S101
        return self._take(lambda: steps.send(prediction) if prediction is not None else next(steps))

    def _take(self, step: Callable[[], ModelInput | None]) -> bool:
        try:
            self.wanted = step()
        except StopIteration as stop:
            self.wanted, self.latents = None, stop.value
            return True
        return False

    def settle(self) -> None:
        """Note that no set is to be made of its files any more."""
        self.settled = True
        self.when_settled()

    def mark(self) -> None:
        """Note that what is queued now on the current stream reads what this job holds."""
        if self._mark is None:
            self._mark = Mark(self.served.model.device)
        self._mark.set()

    def wait_for_mark(self) -> None:
        """Wait until the marked work is done."""
        if self._mark is not None:
            self._mark.wait()

    def queue_after_mark(self) -> None:
        """Let the current stream go on once the marked work is done."""
        if self._mark is not None:
            self._mark.queue_after()

    def close(self) -> None:
        """See `JobWork.close`; what is still queued for the job is done first."""
        self.wait_for_mark()
        if self.steps is not None:
            self.steps.close()
        if self.sets is not None:
            self.sets.close()
        self.steps = self.sets = self.wanted = self.latents = self.region = self.opened = None
        self.next_pass = None
        self.settle()


def first_set(task: Task, files: Sequence[FoundLora]) -> LoraSet:
    """Return the set of the first steps of a task that have one; empty where none do."""
    loras = next((phase.loras for phase in phases(task) if phase.loras), ())
    return LoraSet.of([(files[at], task.loras[at]) for at in loras])


def work_of(job: Job) -> LocalWork:
    """Return what this runner holds for a job that has not ended."""
    assert isinstance(job.work, LocalWork), "the job has ended"  # noqa: S101
    return job.work


def check_finite(model: Model, latents: torch.Tensor | None) -> torch.Tensor:
    """Return the latents that a pass ended with; raises ModelError if they are not finite."""
    assert latents is not None, "it comes after the last step"  # noqa: S101
    if not torch.isfinite(latents).all():
        raise ModelError(
            f"the model {model.info.name!r}: the latents are not finite, it overflowed; serve it with "
            "--dtype float32, or lower the LoRA strengths"
        )
    return latents


def describe(job: Job) -> None:
    """Say what of a job's next evaluation its scheduling needs: rows, and who can share the call."""
    work = work_of(job)
    wanted, sets = work.wanted, work.sets
    job.shares_cores = work.served.model.device.type == "cpu"
    job.has_next_set = sets is not None and sets.next_phase is not None and not work.still_finds
    job.waits_for_set = wanted is None and work.latents is None
    if wanted is None:
        return
    job.rows = wanted.rows
    job.size = CallSize(job.task.model, (*wanted.sample.shape[1:], wanted.conditioning.token_count))
    job.group = (job.size, work.lease.set_id, wanted.guided, wanted.sides, wanted.tiling)
