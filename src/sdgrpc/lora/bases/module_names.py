"""Every spelling that LoRA files use for the modules of a loaded model.

Names are never un-flattened by guessing where an underscore was a dot: the model's own names are flattened,
in all their spellings, and looked up. So this works for whatever model is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sdgrpc.lora.bases.ldm import ldm_names
from sdgrpc.lora.dialects.key_endings import flatten
from sdgrpc.lora.dialects.numbered import numbered_names

Shape = tuple[int, ...]

UNET, TEXT_ENCODER, TEXT_ENCODER_2 = "unet", "text_encoder", "text_encoder_2"
CONV_IN = "conv_in"
TOKEN_EMBEDDING = "embeddings.token_embedding"  # noqa: S105  # the name of a module, no secret

PEFT = "base_model.model."
PREFIXES: Mapping[str, tuple[str, ...]] = {
    # kohya (also its malformed twin), kohya's OFT, diffusers, ComfyUI, SimpleTuner, PEFT, none at all
    UNET: (
        "lora_unet_",
        "lora_unet_unet_",
        "oft_unet_",
        "unet.",
        f"unet.{PEFT}",
        "diffusion_model.",
        "lycoris_",
        "lycoris_unet_",
        PEFT,
        PEFT + PEFT,
        "",
    ),
    # diffusers' converter writes lora_te1_ for SD1 too; ComfyUI calls the encoders by their size
    TEXT_ENCODER: (
        "lora_te_",
        "lora_te1_",
        "oft_te_",
        "oft_te1_",
        "text_encoder.",
        f"text_encoder.{PEFT}",
        "text_encoders.clip_l.transformer.",
        "text_encoders.clip_l.",
        "text_encoders.clip_h.transformer.",
        "clip_l.transformer.",
        "clip_l.",
        "clip_h.transformer.",
        "lycoris_",
        "lycoris_te_",
        "lycoris_text_encoder_",
        PEFT,
        PEFT + PEFT,
        "",
    ),
    TEXT_ENCODER_2: (
        "lora_te2_",
        "oft_te2_",
        "text_encoder_2.",
        f"text_encoder_2.{PEFT}",
        "text_encoders.clip_g.transformer.",
        "text_encoders.clip_g.",
        "clip_g.transformer.",
        "clip_g.",
        "lycoris_",
        "lycoris_te2_",
        "lycoris_text_encoder_2_",
        PEFT,
        PEFT + PEFT,
        "",
    ),
}
"""What stands before a module's own name, per component."""

_TEXT_PROJECTIONS = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


@dataclass(frozen=True, slots=True)
class Module:
    """One module of a model: where it is and the shapes of its parameters.

    `weight` is `(out, in[, kh, kw])`, or `(dim,)` for a norm; `bias` is `(out,)` or None.
    """

    component: str
    path: str
    weight: Shape
    bias: Shape | None = None
    spelled_ldm: bool = False

    @property
    def identity(self) -> tuple[str, str, Shape]:
        """What tells it from any other, however it is spelled."""
        return self.component, self.path, self.weight


class NameIndex:
    """Looks up a module by any of its spellings, with dots or underscores alike.

    Args:
        shapes: per component (`unet`, `text_encoder`, `text_encoder_2`) the shape of each parameter by its
            dotted name, as a state dict has it.
        other_inputs: how many inputs the U-Net's `conv_in` may have besides, in variants of the model.

    """

    def __init__(self, shapes: Mapping[str, Mapping[str, Shape]], other_inputs: Sequence[int] = ()) -> None:
        self.modules: dict[tuple[str, str], Module] = {}
        self._spellings: dict[str, list[Module]] = {}
        for component, parameters in shapes.items():
            modules = list(_modules(component, parameters))
            self.modules.update({(component, module.path): module for module in modules})
            for spelling, module in _spell_all(component, modules):
                for prefix in PREFIXES[component]:
                    self._add(flatten(prefix + spelling), module)
                    for inputs in other_inputs if (component, module.path) == (UNET, CONV_IN) else ():
                        weight = (module.weight[0], inputs, *module.weight[2:])
                        self._add(flatten(prefix + spelling), replace(module, weight=weight))
            for spelling, path in numbered_names(component, [module.path for module in modules]):
                self._add(spelling, self.modules[component, path])

    def _add(self, spelling: str, module: Module) -> None:
        known = self._spellings.setdefault(spelling, [])
        if all(other.identity != module.identity for other in known):
            known.append(module)

    def find(self, spelling: str) -> list[Module]:
        """Return the modules of that spelling: none, one, or (by shape to be told apart) several."""
        return self._spellings.get(flatten(spelling), [])

    def paths(self, component: str) -> list[str]:
        """Return the dotted paths of a component's modules in the model's order."""
        return [path for owner, path in self.modules if owner == component]

    @property
    def token_widths(self) -> dict[str, int]:
        """How wide the vectors of each text encoder's tokens are: component -> width."""
        return {
            component: module.weight[1]
            for (component, path), module in self.modules.items()
            if path.endswith(TOKEN_EMBEDDING)
        }

    @property
    def cross_attention_width(self) -> int:
        """Width of the text embedding that the U-Net attends to; 0 where no module tells."""
        for (component, path), module in self.modules.items():
            if component == UNET and path.endswith("attn2.to_k"):
                return module.weight[1]
        return 0


def _modules(component: str, parameters: Mapping[str, Shape]) -> Iterator[Module]:
    for name, shape in parameters.items():
        path, _, leaf = name.rpartition(".")
        if leaf == "weight":
            yield Module(component, path, tuple(shape), parameters.get(f"{path}.bias"))


def _spell_all(component: str, modules: Iterable[Module]) -> Iterator[tuple[str, Module]]:
    by_path = {module.path: module for module in modules}
    for path, module in by_path.items():
        for spelling in _spell_text(path) if component != UNET else _spell_attention(path):
            yield spelling, module
    if component == UNET:
        for path, ldm_path in ldm_names(by_path):
            module = by_path[path]
            named = Module(component, path, module.weight, module.bias, spelled_ldm=True)
            for spelling in _spell_attention(ldm_path):
                yield spelling, named


def _spell_attention(path: str) -> Iterator[str]:
    """Spell a U-Net module: diffusers' attention processors had the LoRA inside and no `to_out.0`."""
    paths = [path]
    if path.endswith(".to_out.0"):
        paths.append(path.removesuffix(".0"))
    for spelled in paths:
        yield spelled
        if found := re.search(r"(?<=\.attn[12]\.)to_", spelled):
            yield f"{spelled[: found.start()]}processor.{spelled[found.start() :]}"


def _spell_text(path: str) -> Iterator[str]:
    """Spell a text encoder's module: with and without `text_model.`, projections by diffusers' old names."""
    bare = path.removeprefix("text_model.")
    head, _, leaf = bare.rpartition(".")
    spelled = [bare]
    if leaf in _TEXT_PROJECTIONS:
        spelled.append(f"{head}.{_TEXT_PROJECTIONS[leaf]}")
    for name in spelled:
        yield name
        yield f"text_model.{name}"
