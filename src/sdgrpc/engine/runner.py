"""What `sdgrpc-prepare` (fuse, encode), `sdgrpc-step` (predict), `sdgrpc-finish` (decode, write) do here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from sdgrpc import images
from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures.autoencoder import decode
from sdgrpc.diffusion.pictures.inpainting import finish, region
from sdgrpc.diffusion.prompts.cache import PromptCache
from sdgrpc.diffusion.prompts.conditioning import Conditioning, encode
from sdgrpc.diffusion.sampling.denoise import OnStep, StepResult, later
from sdgrpc.diffusion.sampling.predict import predict
from sdgrpc.diffusion.sampling.second_pass import Upscale, follow
from sdgrpc.diffusion.sampling.start import prepare
from sdgrpc.domain import Decoder, ImageReady, Phase, Picture, Task, TaskKind
from sdgrpc.domain.phases import begun_with, late, phases
from sdgrpc.engine.hashing.models import ModelHashes
from sdgrpc.engine.job import Job
from sdgrpc.engine.models.served_model import ServedModel
from sdgrpc.engine.observing.observer import Stage
from sdgrpc.engine.observing.reading import Reading
from sdgrpc.engine.pictures.previews import render_previews
from sdgrpc.engine.prompts.learned import context_of, learned_words, widths_of
from sdgrpc.engine.prompts.telling import Telling, telling
from sdgrpc.engine.prompts.texts import PromptTexts, Said
from sdgrpc.engine.sets.job_sets import JobSets, ReadySet
from sdgrpc.engine.sets.reports import reported, with_steps
from sdgrpc.engine.work import LocalWork, check_finite, describe, work_of
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
    hold the models' `hashes`. The names of `embeddings` are words of prompts. `upscale` enlarges pictures
    between two passes.
    """

    def __init__(
        self,
        prompts: PromptCache,
        hashes: ModelHashes | None = None,
        embeddings: EmbeddingLibrary | None = None,
        upscale: Upscale | None = None,
    ) -> None:
        self._prompts, self._hashes, self._embeddings = prompts, hashes, embeddings or EmbeddingLibrary()
        self._upscale = upscale
        self._last_call: Mark | None = None

    @torch.inference_mode()
    def prepare(self, job: Job) -> bool:
        """See `Runner.prepare`."""
        device = work_of(job).served.model.device
        with own_stream(device, finish=True):
            return as_out_of_memory(lambda: self._prepare(job), device)

    def _prepare(self, job: Job) -> bool:
        work, task = work_of(job), job.task
        model, planned = work.served.model, phases(task)
        if task.sampling.late_start and not self._has(work, planned[0], task):
            planned = late(task, planned)
            job.tells_prepared = len(planned) > 1 and planned[1].may_begin < planned[1].begins
        work.sets = JobSets(planned, on_begin=partial(_tell_late, job), before_release=work.wait_for_mark)
        self._make_ready(job, reports=not job.tells_prepared)
        work.region = region(task) if task.kind is TaskKind.INPAINT else None
        told, report = work.sets.conditioning_at, self._reporter(job, model)
        if job.follows:
            after = later(told, job.current.step_count)
            work.next_pass = partial(follow, model, task, after, report, upscale=self._upscale)
        done = work.begin(prepare(model, job.current, told, report, region=work.region))
        describe(job)
        return done

    @torch.inference_mode()
    def follow(self, job: Job, beat: Callable[[], None] = lambda: None) -> bool:
        """See `Runner.follow`."""
        work, device = work_of(job), work_of(job).served.model.device

        def check() -> None:
            beat()
            job.check_wanted()

        def begin() -> bool:
            check_finite(work.served.model, work.latents)
            return work.follow(check)

        with own_stream(device, finish=True):
            work.queue_after_mark()
            job.pass_index += 1
            done = as_out_of_memory(begin, device)
        describe(job)
        return done

    def _has(self, work: LocalWork, phase: Phase, task: Task) -> bool:
        """Whether the set of a phase is there already."""
        return not work.still_finds and work.served.sets.holds(work.members(phase, task))

    @torch.inference_mode()
    def prepare_next(self, job: Job) -> None:
        """See `Runner.prepare_next`."""
        device = work_of(job).served.model.device
        with own_stream(device, finish=True):
            as_out_of_memory(lambda: self._make_ready(job, reports=job.tells_prepared), device)

    def _make_ready(self, job: Job, *, reports: bool) -> None:
        """Fuse the set of a job's next phase and encode its prompt; nothing where that is done already."""
        work = work_of(job)
        reading = Reading(work.was_read_ahead)
        sets, served = work.sets, work.served
        assert sets is not None, "prepare makes them"  # noqa: S101
        if (phase := sets.next_phase) is None or (phase.loras and work.still_finds):
            return
        members = work.members(phase, job.task)
        with reading.and_fusing(job.observer, of=len(members)):
            lease = served.sets.acquire([(reading.measured(file), ref) for file, ref in members])
        try:
            if reports and not job.report.loras:
                report = reported(job.task, served.model, served.sets, work.files, phase, lease)
                job.report = report if job.tells_prepared else with_steps(report, job.task, sets.phases)
            job.check_wanted()
            with job.observer.stage(Stage.ENCODED):
                told = self._encode(served, lease, job, phase)
            job.check_wanted()
        except BaseException:
            lease.release()
            raise
        sets.put(ReadySet(lease, told))
        if sets.is_complete:
            work.settle()

    def _encode(self, served: ServedModel, lease: Lease, job: Job, phase: Phase) -> Telling:
        def activate() -> None:
            for component in served.model.text_encoders:
                served.use(component, lease)

        work, texts = work_of(job), PromptTexts.of(job.task)
        learned = learned_words(self._embeddings, widths_of(served.model), texts.every)
        work.embeddings = learned.hashes
        context = context_of(lease.prompt_part, learned, activate)
        steps = (phase.may_begin, None if work.sets is None else work.sets.end_of(phase))
        skipped, cache = job.task.sampling.clip_skip, self._prompts

        def encoded(said: Said) -> Conditioning:
            job.check_wanted()
            parts = [*zip(said[0], texts.weights, strict=True)]
            return encode(served.model, parts, said[1], skipped, context=context, cache=cache)

        return telling(texts, steps, encoded)

    @torch.inference_mode()
    def predict(self, jobs: Sequence[Job], max_rows: int) -> Sequence[torch.Tensor]:
        """See `Predictor.predict`."""
        works = [work_of(job) for job in jobs]
        model, lease = works[0].served.model, works[0].lease
        requests = [work.wanted for work in works if work.wanted is not None]
        assert len(requests) == len(jobs), "a job that waits for a set is in no call"  # noqa: S101
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
        assert prediction is None or isinstance(prediction, torch.Tensor)  # noqa: S101 - as `predict` returned it
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
        model, latents = work.served.model, check_finite(work.served.model, work.latents)
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


def _tell_late(job: Job, phase: int, step: int) -> None:
    """Tell of the set that a job began without, once it begins."""
    sets = work_of(job).sets
    if job.tells_prepared and phase == 1 and sets is not None:
        job.report = with_steps(job.report, job.task, begun_with(sets.phases, step))
        job.stream.put(job.report)


def decoded(task: Task, model: Model, latents: torch.Tensor) -> list[Picture]:
    """The pictures of a task's latents, by the decoder that it asks for."""
    return decode(model, latents, task.sampling.tiling, tiny=task.output.decoder is Decoder.TINY)
