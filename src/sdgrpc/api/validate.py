"""A request is judged as a whole: every violation is collected, then it fails once.

`field_rules` has the rules of single fields; what concerns several of them stands here under "Across fields".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from sdgrpc.api import codec
from sdgrpc.api.codec import Request
from sdgrpc.api.field_rules import request_table
from sdgrpc.api.loras.together import faults
from sdgrpc.api.pictures.masks import mask_faults, widen
from sdgrpc.api.pictures.sizes import size_faults
from sdgrpc.api.prompts.changing import COUNTS, changing_faults
from sdgrpc.api.prompts.wording import NO_WORDING, Wording, read_wording
from sdgrpc.api.rules import Complaint, fields, number
from sdgrpc.api.sampling import together
from sdgrpc.api.sampling.second_pass import second_pass_faults
from sdgrpc.domain import ModelInfo, Picture, ResizeMode, Task
from sdgrpc.errors import FieldViolation, InvalidRequest, ModelNotFound
from sdgrpc.images import ImageError, ImageLimits, ReadAs
from sdgrpc.images.decoder_processes import LocalReader, PictureReader
from sdgrpc.settings import Settings
from sdgrpc.v1 import diffusion_pb2 as pb


def read(
    request: Request,
    settings: Settings,
    models: Sequence[ModelInfo],
    reader: PictureReader | None = None,
) -> Task:
    """Judge the request, decode its images, and make a task of it. Takes as long as decoding does.

    Without a `reader` images are decoded in this process.

    An unknown model is one violation among others; alone it is ModelNotFound.

    Raises:
        InvalidRequest: with every violation.
        ModelNotFound: nothing else is wrong.

    """
    findings = Findings(request, settings, models, reader or LocalReader(image_limits(settings)))
    findings.judge()
    if findings.violations:
        raise InvalidRequest(findings.violations)
    if findings.model is None:
        raise findings.unknown_model()
    pictures, warnings = findings.pictures, findings.warnings
    return findings.wording.of(
        codec.task(request, findings.model, pictures.get("image"), pictures.get("mask"), warnings)
    )


def image_limits(settings: Settings) -> ImageLimits:
    """What pictures that are sent may have."""
    return ImageLimits(
        max_bytes=settings.max_image_bytes,
        max_pixels=settings.max_image_pixels,
        max_side=settings.max_image_side,
    )


@dataclass
class Findings:
    """What is known about a request while it is judged. `model` is None if no model has its name."""

    request: Request
    settings: Settings
    models: Sequence[ModelInfo]
    reader: PictureReader
    violations: list[FieldViolation] = field(default_factory=list)
    pictures: dict[str, Picture] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    wording: Wording = NO_WORDING

    @property
    def model(self) -> ModelInfo | None:
        """The model that the request names, or the default."""
        wanted = self.request.model or self.models[0].name
        return next((model for model in self.models if model.name == wanted), None)

    def judge(self) -> None:
        """Collect every violation."""
        widened = isinstance(self.request, pb.InpaintRequest) and self.request.HasField("margins")
        needed = ("image",) if widened else ("image", "mask")
        rule = fields(request_table(type(self.request), self.settings), needed=needed)
        self._add(rule(self.request))
        base = self.model.base if self.model is not None else ""
        self.wording = read_wording(self.request, self.settings, base)
        self._add(self.wording.complaints)
        self._decode_images()
        for across in ACROSS:
            self._add(across(self))
        if self.violations and self.model is None and not self.wrong("model"):
            self._add([(".model", self.unknown_model().message)])

    def unknown_model(self) -> ModelNotFound:
        """The failure for a model that is not served."""
        return ModelNotFound.among(self.request.model, [model.name for model in self.models])

    def wrong(self, *paths: str) -> bool:
        """Tell whether one of the fields, or something below it, has a violation already."""
        return any(
            violation.field == path or violation.field.startswith((f"{path}.", f"{path}["))
            for violation in self.violations
            for path in paths
        )

    def _add(self, complaints: Iterator[Complaint] | Sequence[Complaint]) -> None:
        self.violations += [FieldViolation(path.lstrip("."), sentence) for path, sentence in complaints]

    def _decode_images(self) -> None:
        if isinstance(self.request, pb.GenerateRequest):
            return
        self._decode(self.request.image, ReadAs.IMAGE)
        if isinstance(self.request, pb.InpaintRequest):
            if self.request.HasField("mask"):
                self._decode(self.request.mask, ReadAs.MASK)
            if not self.wrong("mask", "margins"):
                self._add(list(widen(self.request, self.pictures, self.settings.max_image_pixels)))

    def _decode(self, image: pb.Image, use: ReadAs) -> None:
        name = use.value
        if self.wrong(name):
            return
        try:
            reading = self.reader.read(image.data, use)
        except ImageError as error:
            self._add([(f".{name}.data", str(error))])
            return
        self.pictures[name] = reading.picture
        if reading.warning:
            self.warnings.append(f"{name}.data: {reading.warning}")


# Across fields. Each is silent where a field it needs is wrong already.


def loras(found: Findings) -> Iterator[Complaint]:
    """Strengths that are unset are in the operator's range; those by block are for the model's blocks."""
    asked, judged = found.request.loras, not found.wrong("loras")
    if judged or len(asked) <= found.settings.max_loras:
        base = found.model.base if found.model is not None and judged else ""
        yield from ((f".loras{path}", fault) for path, fault in faults(found.request, base, found.settings))


def default_steps(found: Findings) -> Iterator[Complaint]:
    """The model's own number of steps may be more than the operator allows."""
    if found.model is None or found.request.sampling.steps != 0:
        return
    for _, sentence in number(1, found.settings.max_steps)(found.model.steps):
        yield ".sampling.steps", f"is unset, which means {found.model.steps}: {sentence}; set it"


def result_size(found: Findings) -> Iterator[Complaint]:
    """The result's size after defaults: not too small, too long or too large."""
    request, image = found.request, found.pictures.get("image")
    known = isinstance(request, pb.GenerateRequest) or image is not None
    if found.model is not None and known and not found.wrong("width", "height"):
        yield from size_faults(request, codec.size(request, found.model, image), found.settings)


def second_pass(found: Findings) -> Iterator[Complaint]:
    """The second pass' size and steps, which depend on the first's."""
    request, model = found.request, found.model
    judged = not found.wrong("second_pass", "width", "height", "sampling")
    if judged and model is not None and isinstance(request, pb.GenerateRequest):
        yield from second_pass_faults(request, model, codec.size(request, model, None), found.settings)


def resize_mode(found: Findings) -> Iterator[Complaint]:
    """What was drawn of a crop, or of an image that keeps its size, is scaled back to its place."""
    if not isinstance(found.request, pb.InpaintRequest) or found.wrong("resize_mode"):
        return
    mode = codec.resize_mode(found.request)
    if mode is ResizeMode.STRETCH:
        return
    if found.request.mask_options.HasField("crop_padding"):
        yield ".resize_mode", f"{mode.name} cannot be combined with mask_options.crop_padding; leave out one"
    elif not found.wrong("width", "height") and not (found.request.width or found.request.height):
        yield (
            ".resize_mode",
            f"{mode.name} needs width or height: without them the result keeps the image's size",
        )


def masks(found: Findings) -> Iterator[Complaint]:
    """Mask, margins and model go together."""
    if isinstance(found.request, pb.InpaintRequest) and not found.wrong("margins"):
        yield from mask_faults(found.request, found.model, found.pictures)


def sampling(found: Findings) -> Iterator[Complaint]:
    """Scheduler, spacings and noise go together, and with the model."""
    if found.model is None:
        return
    names = [field.name for field in pb.Sampling.DESCRIPTOR.fields]
    wrong = {name for name in names if found.wrong(f"sampling.{name}")}
    for path, sentence in together.misfits(found.request.sampling, found.model, wrong):
        yield f".sampling{path}", sentence


def last_seed(found: Findings) -> Iterator[Complaint]:
    """The last image's seed is a seed, too."""
    if not found.wrong("sampling.seed", "sampling.image_count", "sampling.variation"):
        for path, sentence in together.seed_faults(found.request.sampling):
            yield f".sampling{path}", sentence


def clip_skip(found: Findings) -> Iterator[Complaint]:
    """A layer of the text encoder must remain."""
    if found.model is None or found.wrong("sampling.clip_skip"):
        return
    layers = found.model.text_encoder_layers
    for _, sentence in number(0, layers - 1)(found.request.sampling.clip_skip):
        yield ".sampling.clip_skip", f"{sentence}; the text encoder has {layers} layers"


def decoder(found: Findings) -> Iterator[Complaint]:
    """A tiny decoder is the operator's to give."""
    if found.request.output.decoder == pb.DECODER_TINY and found.model and not found.model.tiny_decoder:
        yield ".output.decoder", f"the model {found.model.name!r} has no tiny decoder (--tiny-vae)"


def changes(found: Findings) -> Iterator[Complaint]:
    """Prompts may say something else in each step, within a bound."""
    if found.model is not None and not found.wrong("prompt", "negative_prompt", *COUNTS):
        yield from changing_faults(found.request, found.model, found.wording.prompt)


ACROSS: Sequence[Callable[[Findings], Iterator[Complaint]]] = (
    loras,
    default_steps,
    result_size,
    resize_mode,
    masks,
    sampling,
    second_pass,
    last_seed,
    clip_skip,
    decoder,
    changes,
)
