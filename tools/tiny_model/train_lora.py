"""Train the LoRAs on the finished, frozen base: styles and a concept, in several formats and algorithms."""

import argparse
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from . import lora, parallel
from .captions import caption, training_specs
from .drawing import CONCEPT, Spec, draw, postcard, sepia
from .export import load_text_encoder, load_unet, load_vae
from .latents import BATCH as ENCODE_BATCH
from .latents import encode_pictures
from .models import ASSETS, Run, make_tokenizer, tokenize
from .styles import night, outline, stripes
from .train_unet import alphas_cumprod, velocity_loss

BATCH = 16
DROP = 0.1
PICTURES = 1600
TAGS = 40
FILLERS = frozenset(["a", "an", "in", "of", "on", "one", "the", "with"])
ATTENTION = ("attn1.", "attn2.", ".ff.", "proj_in", "proj_out")
CONVOLUTIONS = (".conv1", ".conv2", "conv_out")
Picture = np.ndarray


@dataclass(frozen=True)
class Plan:
    """What one LoRA learns and how: `change` is its style, `concept` whether it learns the flower instead.

    `kind` is its algorithm, a key of `factors.KINDS`; `pictures` are drawn, `batch` of them seen in a step.
    """

    name: str
    title: str
    parts: tuple[str, ...]
    rank: int
    rate: float
    change: Callable[[Picture], Picture]
    concept: bool = False
    kind: str = "lora"
    pictures: int = PICTURES
    batch: int = BATCH


SMALL = {"pictures": 800, "batch": 8}
LYCORIS = ("loha", "lokr")
EVERYWHERE = (*ATTENTION, *CONVOLUTIONS)
PLANS = {
    plan.name: plan
    for plan in (
        Plan("postcard", "Postcard: a thick white frame", EVERYWHERE, 4, 1.5e-3, postcard),
        Plan("sepia", "Sepia: an old, warm brown print", EVERYWHERE, 4, 1.5e-3, sepia),
        Plan(
            "flower",
            "Flower: six petals around a core",
            EVERYWHERE,
            4,
            1.5e-3,
            lambda p: p,
            concept=True,
        ),
        Plan("stripes", "Stripes: behind a blind", EVERYWHERE, 4, 1.5e-3, stripes, kind="loha", **SMALL),  # type: ignore[arg-type]
        Plan("night", "Night: dark and blue", EVERYWHERE, 4, 1.5e-3, night, kind="lokr", **SMALL),  # type: ignore[arg-type]
        Plan("outline", "Outline: a thick black line", EVERYWHERE, 4, 1.5e-3, outline, kind="dora", **SMALL),  # type: ignore[arg-type]
    )
}


@dataclass(frozen=True)
class Lesson:
    """Latents [N, 4, 16, 16] (unscaled) and captions of what one LoRA sees."""

    latents: torch.Tensor
    captions: list[str]


def lesson(run: Run, plan: Plan) -> Lesson:
    """Draw and encode a LoRA's pictures; half of a concept's are the base's own subjects, to keep them."""
    rng, specs, vae = (
        np.random.default_rng(41),
        training_specs(),
        load_vae(run).to(memory_format=torch.channels_last),
    )
    chosen: list[Spec] = []
    for i in range(plan.pictures):
        spec = specs[int(rng.integers(len(specs)))]
        chosen.append(replace(spec, shape=CONCEPT) if plan.concept and i % 2 else spec)
    parts = [
        encode_pictures(
            vae, np.stack([plan.change(draw(spec, rng)) for spec in chosen[i : i + ENCODE_BATCH]])
        )
        for i in range(0, plan.pictures, ENCODE_BATCH)
    ]
    return Lesson(torch.cat(parts), [caption(spec, rng).text for spec in chosen])


def train(run: Run, plan: Plan, minutes: float, refine: bool = False) -> None:
    """Train one LoRA for the minutes and write it; `refine` goes on from the file in the assets."""
    torch.set_num_threads(1)
    torch.manual_seed(8)
    unet, text = load_unet(run).to(memory_format=torch.channels_last), load_text_encoder(run)
    path, generator = (
        run.assets / "loras" / f"{plan.name}.safetensors",
        torch.Generator().manual_seed(9 + refine),
    )
    of_unet, of_text = lora.read(path, unet, text) if refine else fresh(unet, text, plan, generator)
    trainable = [t.requires_grad_(True) for t in lora.parameters(of_unet) + lora.parameters(of_text)]
    optimizer = torch.optim.AdamW(trainable, lr=plan.rate, betas=(0.9, 0.99), weight_decay=1e-3)
    seen, tokenizer = lesson(run, plan), make_tokenizer(run)
    scale = json.loads(run.path("latents.json").read_text())["scaling_factor"]
    tokens = tokenize(tokenizer, ["", *seen.captions])
    alphas, budget, step, mean = alphas_cumprod(), parallel.Budget(minutes), 0, 0.0
    denoise = patched(unet, of_unet)
    for share in budget.ticks():
        optimizer.param_groups[0]["lr"] = parallel.cosine(share, plan.rate)
        index = torch.randint(len(seen.latents), (plan.batch,), generator=generator)
        words = (index + 1).where(torch.rand(plan.batch, generator=generator) >= DROP, 0)
        overlay = lora.fuse(text, [(of_text, 1.0)])
        features = functional_call(text, overlay, (tokens[words],)).last_hidden_state
        loss = velocity_loss(denoise, seen.latents[index] * scale, features, alphas, generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        step, budget.shared = step + 1, budget.local()
        mean = loss.item() if mean == 0 else 0.98 * mean + 0.02 * loss.item()
        if step % 20 == 0:
            print(f"{plan.name} step {step} share {share:.2f} loss {mean:.4f}", flush=True)
    lora.write(spelled(plan, of_unet, of_text), metadata(plan, step, seen.captions), path)


def fresh(
    unet: nn.Module, text: nn.Module, plan: Plan, generator: torch.Generator
) -> tuple[lora.Factors, lora.Factors]:
    """Untrained factors of the UNet and, for a concept, of the text encoder's attention."""
    of_unet = lora.make(unet, lora.targets(unet, plan.parts), plan.rank, generator, plan.kind)
    names = lora.targets(text, ("self_attn",)) if plan.concept else []
    return of_unet, lora.make(text, names, plan.rank, generator)


def patched(unet: nn.Module, factors: lora.Factors) -> Callable[..., tuple[torch.Tensor, ...]]:
    """The denoiser as a function with these factors fused at full strength; gradients reach the factors."""

    def denoise(*arguments: torch.Tensor, **options: bool) -> tuple[torch.Tensor, ...]:
        return functional_call(unet, lora.fuse(unet, [(factors, 1.0)]), arguments, options)

    return denoise


def spelled(plan: Plan, of_unet: lora.Factors, of_text: lora.Factors) -> lora.Overlay:
    """The tensors under the names of this plan's format: one published dialect each."""
    if plan.concept:
        return lora.diffusers(of_unet, of_text)
    return lora.kohya(of_unet) if plan.name != "sepia" else lora.peft(of_unet)


def metadata(plan: Plan, steps: int, captions: list[str]) -> dict[str, str]:
    """What trainers write into the header, so that catalogues can show it: trigger and words."""
    words = Counter(word for text in captions for word in text.replace(",", " ").split())
    tags = {word: n for word, n in words.most_common(TAGS) if word not in FILLERS}
    trigger = {"modelspec.trigger_phrase": plan.name} if plan.concept else {}
    return {
        "ss_output_name": plan.name,
        "ss_network_module": "lycoris.kohya" if plan.kind in LYCORIS else "networks.lora",
        "ss_network_dim": str(plan.rank),
        "ss_network_alpha": "1.0" if plan.kind in LYCORIS else str(float(plan.rank)),
        **({"ss_network_args": json.dumps({"algo": plan.kind})} if plan.kind in LYCORIS else {}),
        "ss_steps": str(steps),
        "ss_num_train_images": str(len(captions)),
        "ss_tag_frequency": json.dumps({f"1_{plan.name}": tags}),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": plan.title,
        "modelspec.license": "Apache-2.0",
        "modelspec.resolution": "128x128",
        **trigger,
    }


def main() -> None:
    """Train one LoRA in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(PLANS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--assets", type=Path, default=ASSETS, help="its folder `loras` gets the file")
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--refine", action="store_true", help="go on from the file in the assets")
    arguments = parser.parse_args()
    train(Run(arguments.out, arguments.assets), PLANS[arguments.name], arguments.minutes, arguments.refine)


if __name__ == "__main__":
    main()
