"""What the loop's threads do on the device: fuse and encode, predict, decode and write the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from sdgrpc import images
from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures.autoencoder import decode
from sdgrpc.diffusion.pictures.inpainting import finish, region
from sdgrpc.diffusion.pictures.previews import fitted, latent_array, preview_pictures
from sdgrpc.diffusion.prompts.cache import PromptCache
from sdgrpc.diffusion.prompts.conditioning import Conditioning, encode
from sdgrpc.diffusion.sampling.denoise import OnStep, StepResult
from sdgrpc.diffusion.sampling.predict import predict
from sdgrpc.diffusion.sampling.second_pass import follow
from sdgrpc.diffusion.sampling.start import prepare
from sdgrpc.domain import (
    Decoder,
    ImageReady,
    LoraReport,
    Picture,
    Prepared,
    Preview,
    PreviewKind,
    PreviewOptions,
    Task,
    TaskKind,
)
from sdgrpc.engine.hashing.models import ModelHashes
from sdgrpc.engine.job import Job
from sdgrpc.engine.models.served_model import ServedModel
from sdgrpc.engine.observing.observer import Stage
from sdgrpc.engine.observing.reading import Reading
from sdgrpc.engine.prompts.learned import context_of, learned_words
from sdgrpc.engine.work import check_finite, describe, work_of
from sdgrpc.errors import OutOfMemory
from sdgrpc.lora.embeddings.library import EmbeddingLibrary
from sdgrpc.lora.fusing.cache import Lease
from sdgrpc.machine.out_of_memory import as_out_of_memory
from sdgrpc.machine.step_memory import StepMemory
from sdgrpc.machine.streams import Mark, own_stream
from sdgrpc.parameters.writing import parameters_text


class LocalRunner:
    """Runs jobs on this machine's device; their work is a LocalWork.

    The preparing thread alone uses the text encoders' switches, the step thread alone the UNet's; the VAE is
    never touched by a LoRA and may run anywhere. Encoded prompts are kept in `prompts`; pictures' parameters
    hold the models' `hashes`. The names of `embeddings` are words of prompts.
    """

    def __init__(
        self,
        prompts: PromptCache,
        hashes: ModelHashes | None = None,
        embeddings: EmbeddingLibrary | None = None,
    ) -> None:
        self._prompts, self._hashes, self._embeddings = prompts, hashes, embeddings or EmbeddingLibrary()
        self._last_call: Mark | None = None

    @torch.inference_mode()
    def prepare(self, job: Job) -> bool:
        """See `Runner.prepare`."""
        device = work_of(job).served.model.device
        with own_stream(device, finish=True):
            return as_out_of_memory(lambda: self._prepare(job), device)

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
        if job.follows:
            check = job.check_wanted
            work.next_pass = partial(follow, served.model, task, conditioning, report, check=check)
        done = work.begin(prepare(served.model, job.current, conditioning, report, region=work.region))
        describe(job)
        return done

    @torch.inference_mode()
    def follow(self, job: Job) -> bool:
        """See `Runner.follow`."""
        work, device = work_of(job), work_of(job).served.model.device

        def begin() -> bool:
            check_finite(work.served.model, work.latents)
            return work.follow()

        with own_stream(device, finish=True):
            work.queue_after_mark()
            job.pass_index += 1
            done = as_out_of_memory(begin, device)
        describe(job)
        return done

    def _encode(self, served: ServedModel, lease: Lease, job: Job) -> Conditioning:
        def activate() -> None:
            for component in served.model.text_encoders:
                served.use(component, lease)

        negative = job.task.negative_prompt if job.task.sampling.guidance_scale > 1 else None
        learned = learned_words(self._embeddings, served.model, (job.task.prompt, negative))
        work_of(job).embeddings = learned.hashes
        return encode(
            served.model,
            job.task.prompt,
            negative,
            clip_skip=job.task.sampling.clip_skip,
            context=context_of(lease.prompt_part, learned, activate),
            cache=self._prompts,
        )

    @torch.inference_mode()
    def predict(self, jobs: Sequence[Job], max_rows: int) -> Sequence[torch.Tensor]:
        """See `Predictor.predict`."""
        works = [work_of(job) for job in jobs]
        model, lease = works[0].served.model, works[0].lease
        requests = [work.wanted for work in works if work.wanted is not None]
        assert lease is not None and len(requests) == len(jobs), "predict comes after prepare"  # noqa: S101, PT018
        meter = StepMemory(model.device)
        # A warm-up's size is nobody's: compiling it would hold up the sizes that are asked for.
        call = works[0].served.evaluator if any(job.counted for job in jobs) else None
        with own_stream(model.device):
            works[0].served.use("unet", lease)
            answers = as_out_of_memory(lambda: predict(model, requests, max_rows, call), model.device)
            for work in works:
                work.mark()
            self._keep_pace(model.device)
        jobs[0].call_bytes = meter.taken()
        return answers

    def _keep_pace(self, device: torch.device) -> None:
        """Wait for the call before this one, so that the device has one more to do and times stay true."""
        before, self._last_call = self._last_call, Mark.here(device)
        if before is not None:
            before.wait()

    @torch.inference_mode()
    def advance(self, job: Job, prediction: object) -> bool:
        """See `Runner.advance`."""
        assert isinstance(prediction, torch.Tensor)  # noqa: S101 - as `predict` returned it
        work = work_of(job)
        device = work.served.model.device
        with own_stream(device):
            done = as_out_of_memory(lambda: work.advance(prediction), device)
            work.mark()
        describe(job)
        return done

    @torch.inference_mode()
    def finish(self, job: Job) -> None:
        """Decode one image after the other, so that the first is sent while the second is decoded."""
        work, device = work_of(job), work_of(job).served.model.device
        with own_stream(device, finish=True):
            work.queue_after_mark()
            as_out_of_memory(lambda: self._finish(job), device)

    def _finish(self, job: Job) -> None:
        work, task, sampling = work_of(job), job.task, job.task.sampling
        model, latents = work.served.model, work.latents
        latents = check_finite(model, latents)
        for index in range(sampling.image_count):
            job.check_wanted()
            pictures = finish(task, decoded(task, model, latents[index : index + 1]), work.region)
            job.check_wanted()
            seed = sampling.seed_of(index)
            text = ""
            if not task.output.omit_metadata:
                sha256 = self._hashes.awaited(task.model) if self._hashes else ""
                used = job.report.loras, seed
                text = parameters_text(
                    task, model.info, *used, model_sha256=sha256, image=index, embeddings=work.embeddings
                )
            image = images.encode(pictures[0], task.output.media_type, quality=task.output.quality, text=text)
            job.observer.drew(image.width, image.height)
            job.stream.put(ImageReady(index, seed, image))

    def _reporter(self, job: Job, model: Model) -> OnStep:
        def report(result: StepResult) -> None:
            options = job.task.output.preview
            ready = Mark.here(model.device)
            render = partial(render_previews, model, options, result.predict_clean, ready)
            before = sum(each.step_count for each in job.task.passes[: job.pass_index])
            job.progress(before + result.step, job.task.step_count, result.timestep, render)

        return report


def decoded(task: Task, model: Model, latents: torch.Tensor) -> list[Picture]:
    """The pictures of a task's latents, by the decoder that it asks for."""
    return decode(model, latents, task.sampling.tiling, tiny=task.output.decoder is Decoder.TINY)


def _judged(report: LoraReport, task: Task, model: Model) -> LoraReport:
    """A file's report with what of the task does not fit what the file was made for."""
    if report.recommended is None:
        return report
    trails = model.scheduler_config.get("timestep_spacing") == "trailing"
    unfit = report.recommended.warnings(task.sampling, model.info.prediction_type, trails=trails)
    return replace(report, warnings=report.warnings + unfit)


@torch.inference_mode()
def render_previews(
    model: Model, options: PreviewOptions, predict_clean: Callable[[], torch.Tensor], ready: Mark
) -> tuple[Preview, ...]:
    """One preview per image of the predicted clean latents `[n, 4, h, w]`, for which the device is `ready`.

    None where memory is short, or the latents are not finite: what is wrong with those, the end tells.

    Raises:
        ModelError: as `decode`.

    """
    try:
        with own_stream(model.device, finish=True):
            ready.queue_after()
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
        pictures = [fitted(picture, longer_side) for picture in decode(model, denoised, tiny=True)]
    else:
        pictures = preview_pictures(model, denoised, options.max_side)
    return tuple(Preview(index, images.encode(one, "image/png")) for index, one in enumerate(pictures))
