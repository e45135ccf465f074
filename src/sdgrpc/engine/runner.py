"""What the loop's threads do on the device: fuse and encode, predict, decode and write the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from sdgrpc import images
from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures.autoencoder import decode
from sdgrpc.diffusion.pictures.inpainting import Region, finish, region
from sdgrpc.diffusion.pictures.previews import fitted, latent_array, preview_pictures
from sdgrpc.diffusion.prompts.cache import PromptCache
from sdgrpc.diffusion.prompts.conditioning import Conditioning, encode
from sdgrpc.diffusion.prompts.reading import PromptContext
from sdgrpc.diffusion.sampling.denoise import Denoising, ModelInput, OnStep, StepResult
from sdgrpc.diffusion.sampling.predict import predict
from sdgrpc.diffusion.sampling.start import prepare
from sdgrpc.domain import (
    ImageReady,
    LoraReport,
    Prepared,
    Preview,
    PreviewKind,
    PreviewOptions,
    Task,
    TaskKind,
)
from sdgrpc.engine.hashing.models import ModelHashes
from sdgrpc.engine.job import CallSize, Job
from sdgrpc.engine.observing.observer import Stage
from sdgrpc.engine.observing.reading import Reading
from sdgrpc.errors import ModelError, OutOfMemory
from sdgrpc.lora.fusing.cache import FusedSets, Lease, OverlaySwitch
from sdgrpc.lora.store.library import FoundLora
from sdgrpc.machine.out_of_memory import as_out_of_memory
from sdgrpc.parameters.writing import parameters_text


@dataclass(slots=True)
class ServedModel:
    """A model with its fused sets and, per component, the switch that puts a set's weights in place."""

    model: Model
    sets: FusedSets
    switches: Mapping[str, OverlaySwitch]

    @classmethod
    def of(cls, model: Model, *, lora_cache_bytes: int) -> ServedModel:
        """Wrap a loaded model."""
        components = model.lora_components()
        sets = FusedSets(components, base=model.info.base, capacity_bytes=lora_cache_bytes)
        return cls(model, sets, {name: OverlaySwitch(module) for name, module in components.items()})

    def use(self, component: str, lease: Lease) -> None:
        """Point `component` at the weights of the lease's set."""
        self.switches[component].use(lease.overlay.tensors.get(component, {}))

    def restore(self) -> None:
        """Give the model its pristine weights back, once no thread uses it."""
        for switch in self.switches.values():
            switch.use({})

    def unload(self) -> None:
        """Free the weights, but for the VAE's, which go with the last preview that needs them."""
        self.restore()
        for network in self.model.lora_components().values():
            network.to("meta")
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def weight_bytes(self) -> int:
        """What the pristine weights hold."""
        networks = (self.model.vae, *self.model.lora_components().values())
        return sum(network.get_memory_footprint() for network in networks)


@dataclass(slots=True)
class LocalWork:
    """What a job holds on the device: its model, the files it named, its set once fused, its denoising.

    `open` gives the model once the job was chosen to begin, or raises why it could not be loaded. `steps` is
    sent a prediction for each thing that it wants the UNet to evaluate (`wanted`), until the `latents` are
    there. `region` is what an inpainting job redraws. Implements `engine.job.JobWork`.
    """

    open: Callable[[], ServedModel]
    files: Sequence[FoundLora]
    lease: Lease | None = field(default=None)
    opened: ServedModel | None = field(default=None)
    region: Region | None = field(default=None)
    steps: Denoising | None = field(default=None)
    wanted: ModelInput | None = field(default=None)
    latents: torch.Tensor | None = field(default=None)

    @property
    def served(self) -> ServedModel:
        """The model, kept from its first use on."""
        if self.opened is None:
            self.opened = self.open()
        return self.opened

    def begin(self, steps: Denoising) -> bool:
        """Take the first request of a denoising; True if it has none."""
        self.steps = steps
        return self._take(lambda: next(steps))

    def advance(self, prediction: torch.Tensor) -> bool:
        """Send a prediction and take the next request; True once the latents are there."""
        steps = self.steps
        assert steps is not None, "advance comes after begin"  # noqa: S101
        return self._take(lambda: steps.send(prediction))

    def _take(self, step: Callable[[], ModelInput]) -> bool:
        try:
            self.wanted = step()
        except StopIteration as stop:
            self.wanted, self.latents = None, stop.value
            return True
        return False

    def close(self) -> None:
        """See `JobWork.close`."""
        if self.steps is not None:
            self.steps.close()
        if self.lease is not None:
            self.lease.release()
        self.steps = self.lease = self.wanted = self.latents = self.region = self.opened = None


def work_of(job: Job) -> LocalWork:
    """Return what this runner holds for a job that has not ended."""
    assert isinstance(job.work, LocalWork), "the job has ended"  # noqa: S101
    return job.work


class LocalRunner:
    """Runs jobs on this machine's device; their work is a LocalWork.

    The preparing thread alone uses the text encoders' switches, the step thread alone the UNet's; the VAE is
    never touched by a LoRA and may run anywhere. Encoded prompts are kept in `prompts`; pictures' parameters
    hold the models' `hashes`.
    """

    def __init__(self, prompts: PromptCache, hashes: ModelHashes | None = None) -> None:
        self._prompts, self._hashes = prompts, hashes

    @torch.inference_mode()
    def prepare(self, job: Job) -> bool:
        """See `Runner.prepare`."""
        return as_out_of_memory(lambda: self._prepare(job), work_of(job).served.model.device)

    def _prepare(self, job: Job) -> bool:
        work, task = work_of(job), job.task
        served = work.served
        reading = Reading()
        with reading.and_fusing(job.observer, of=len(work.files)):
            files = map(reading.measured, work.files)
            lease = work.lease = served.sets.acquire(list(zip(files, task.loras, strict=True)))
        reports = tuple(_judged(report, task, served.model) for report in lease.reports)
        job.report = Prepared(reports, lease.set_id, lease.cached, lease.fuse_seconds)
        job.check_wanted()
        with job.observer.stage(Stage.ENCODED):
            conditioning = self._encode(served, lease, job)
        job.check_wanted()
        work.region = region(task) if task.kind is TaskKind.INPAINT else None
        report = self._reporter(job, served.model)
        done = work.begin(prepare(served.model, task, conditioning, report, region=work.region))
        _describe(job)
        return done

    def _encode(self, served: ServedModel, lease: Lease, job: Job) -> Conditioning:
        def activate() -> None:
            for component in served.model.text_encoders:
                served.use(component, lease)

        part, sampling = lease.prompt_part, job.task.sampling
        negative = job.task.negative_prompt if sampling.guidance_scale > 1 else None
        return encode(
            served.model,
            job.task.prompt,
            negative,
            clip_skip=sampling.clip_skip,
            context=PromptContext(part.text_encoders, part.tokens, part.disputed, activate),
            cache=self._prompts,
        )

    @torch.inference_mode()
    def predict(self, jobs: Sequence[Job], max_rows: int) -> Sequence[torch.Tensor]:
        """See `Predictor.predict`."""
        works = [work_of(job) for job in jobs]
        model, lease = works[0].served.model, works[0].lease
        requests = [work.wanted for work in works if work.wanted is not None]
        assert lease is not None and len(requests) == len(jobs), "predict comes after prepare"  # noqa: S101, PT018
        works[0].served.use("unet", lease)
        return as_out_of_memory(lambda: predict(model, requests, max_rows), model.device)

    @torch.inference_mode()
    def advance(self, job: Job, prediction: object) -> bool:
        """See `Runner.advance`."""
        assert isinstance(prediction, torch.Tensor)  # noqa: S101 - as `predict` returned it
        work = work_of(job)
        done = as_out_of_memory(lambda: work.advance(prediction), work.served.model.device)
        _describe(job)
        return done

    @torch.inference_mode()
    def finish(self, job: Job) -> None:
        """Decode one image after the other, so that the first is sent while the second is decoded."""
        as_out_of_memory(lambda: self._finish(job), work_of(job).served.model.device)

    def _finish(self, job: Job) -> None:
        work, task, sampling = work_of(job), job.task, job.task.sampling
        model, latents = work.served.model, work.latents
        assert latents is not None, "finish comes after the last step"  # noqa: S101
        if not torch.isfinite(latents).all():
            raise ModelError(
                f"the model {model.info.name!r}: the latents are not finite, it overflowed; serve it with "
                "--dtype float32, or lower the LoRA strengths"
            )
        for index in range(sampling.image_count):
            job.check_wanted()
            pictures = finish(task, decode(model, latents[index : index + 1]), work.region)
            job.check_wanted()
            seed = sampling.seed + index
            text = ""
            if not task.output.omit_metadata:
                sha256 = self._hashes.awaited(task.model) if self._hashes else ""
                text = parameters_text(task, model.info, job.report.loras, seed, model_sha256=sha256)
            image = images.encode(pictures[0], task.output.media_type, quality=task.output.quality, text=text)
            job.observer.drew(image.width, image.height)
            job.stream.put(ImageReady(index, seed, image))

    def _reporter(self, job: Job, model: Model) -> OnStep:
        def report(result: StepResult) -> None:
            options = job.task.output.preview
            render = partial(render_previews, model, options, result.predict_clean)
            job.progress(result.step, result.step_count, result.timestep, render)

        return report


def _describe(job: Job) -> None:
    """Say what of a job's next evaluation its scheduling needs: rows, and who can share the call."""
    work = work_of(job)
    wanted, lease = work.wanted, work.lease
    if wanted is None or lease is None:
        return
    job.rows = wanted.rows
    job.size = CallSize(job.task.model, (*wanted.sample.shape[1:], wanted.conditioning.token_count))
    job.group = (job.size, lease.set_id, wanted.guided)


def _judged(report: LoraReport, task: Task, model: Model) -> LoraReport:
    """A file's report with what of the task does not fit what the file was made for."""
    if report.recommended is None:
        return report
    trails = model.scheduler_config.get("timestep_spacing") == "trailing"
    unfit = report.recommended.warnings(task.sampling, model.info.prediction_type, trails=trails)
    return replace(report, warnings=report.warnings + unfit)


@torch.inference_mode()
def render_previews(
    model: Model, options: PreviewOptions, predict_clean: Callable[[], torch.Tensor]
) -> tuple[Preview, ...]:
    """One preview per image of the predicted clean latents `[n, 4, h, w]`.

    None where memory is short, or the latents are not finite: what is wrong with those, the end tells.

    Raises:
        ModelError: as `decode`.

    """
    try:
        return as_out_of_memory(lambda: _previews(model, options, predict_clean()), model.device)
    except OutOfMemory:
        return ()


def _previews(model: Model, options: PreviewOptions, denoised: torch.Tensor) -> tuple[Preview, ...]:
    if not torch.isfinite(denoised).all():
        return ()
    if options.kind is PreviewKind.LATENT:
        return tuple(Preview(index, latent_array(row)) for index, row in enumerate(denoised))
    if options.kind is PreviewKind.DECODED:
        longer_side = options.max_side or max(denoised.shape[-2:])
        pictures = [fitted(picture, longer_side) for picture in decode(model, denoised)]
    else:
        pictures = preview_pictures(model, denoised, options.max_side)
    return tuple(Preview(index, images.encode(one, "image/png")) for index, one in enumerate(pictures))
