"""Train the text encoder to say what a caption asks for, then freeze it: words mean something early."""

import time
from itertools import count

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import CLIPTextModel, CLIPTokenizer

from . import parallel
from .captions import ANY, Caption, caption, training_specs
from .drawing import BACKGROUNDS, FILLS, RADII, SHAPES
from .models import WIDTH, Run, make_text_encoder, make_tokenizer, tokenize

CLASSES = {
    "shape": (ANY, *SHAPES),
    "fill": (ANY, *FILLS),
    "background": (ANY, *BACKGROUNDS),
    "size": (ANY, *RADII),
}
EMPTY = Caption("", ANY, ANY, ANY, ANY)
PEAK_RATE = 1e-3
BATCH = 32
FEATURE_NOISE = 0.4


class Probes(nn.Module):
    """One linear reader per attribute: [..., 128] text features to class scores."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {name: nn.Linear(WIDTH, len(classes)) for name, classes in CLASSES.items()}
        )

    def loss(self, features: torch.Tensor, captions: list[Caption]) -> torch.Tensor:
        """Mean cross entropy of all attributes, features [B, N, 128]; noise keeps the classes apart."""
        noisy = features + FEATURE_NOISE * torch.randn_like(features)
        losses = []
        for name, head in self.heads.items():
            target = torch.tensor([CLASSES[name].index(getattr(c, name)) for c in captions])
            scores = head(noisy)
            losses.append(cross_entropy(scores.flatten(0, 1), target.repeat_interleave(scores.shape[1])))
        return torch.stack(losses).mean()

    def right(self, features: torch.Tensor, captions: list[Caption]) -> dict[str, float]:
        """The share of captions whose attribute the probe reads right, from features [B, 128]."""
        shares = {}
        for name, head in self.heads.items():
            read = head(features).argmax(-1).tolist()
            hits = [CLASSES[name][i] == getattr(c, name) for i, c in zip(read, captions, strict=True)]
            shares[name] = sum(hits) / len(hits)
        return shares


def sample_captions(rng: np.random.Generator, size: int) -> list[Caption]:
    """`size` captions of combinations in training, a few of them empty."""
    specs = training_specs()
    return [
        EMPTY if rng.random() < 0.04 else caption(specs[int(rng.integers(len(specs)))], rng)
        for _ in range(size)
    ]


def end_positions(tokens: torch.Tensor, rng: np.random.Generator, extra: int = 6) -> torch.Tensor:
    """[B, 1 + extra]: each caption's end token and some of the padding after it: all have read it."""
    length = tokens.shape[1]
    first = (tokens == tokens[0, -1]).int().argmax(1)
    offsets = torch.from_numpy(rng.random((len(tokens), extra))) * (length - first[:, None])
    return torch.cat([first[:, None], first[:, None] + offsets.long()], dim=1)


def features_at(
    encoder: CLIPTextModel, tokens: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, N, 128] features at these positions, of the last layer and of the one that clip skip reads."""
    states = encoder(tokens, output_hidden_states=True)
    norm = getattr(encoder, "text_model", encoder).final_layer_norm
    index = positions[..., None].expand(-1, -1, WIDTH)
    last, before = states.last_hidden_state.gather(1, index), norm(states.hidden_states[-2]).gather(1, index)
    return last, before


def train(run: Run, minutes: float) -> None:
    """Train for the minutes on one thread, then write the encoder to `text_encoder.pt` with its scores."""
    torch.set_num_threads(1)
    torch.manual_seed(2)
    tokenizer = make_tokenizer(run)
    encoder, probes, rng = make_text_encoder(tokenizer), Probes(), np.random.default_rng(5)
    parameters = [*encoder.parameters(), *probes.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, weight_decay=1e-2)
    started = time.monotonic()
    for step in count():
        share = (time.monotonic() - started) / (60 * minutes)
        if share >= 1:
            break
        optimizer.param_groups[0]["lr"] = parallel.cosine(share, PEAK_RATE)
        captions = sample_captions(rng, BATCH)
        tokens = tokenize(tokenizer, [c.text for c in captions])
        last, before = features_at(encoder, tokens, end_positions(tokens, rng))
        loss = probes.loss(last, captions) + 0.3 * probes.loss(before, captions)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 100 == 0:
            print(f"text step {step} share {share:.2f} loss {loss.item():.4f}", flush=True)
    scores = score(encoder.eval(), probes, tokenizer, np.random.default_rng(99))
    print("text", step, scores, flush=True)
    state = {"model": encoder.state_dict(), "probes": probes.state_dict(), "scores": scores, "step": step}
    parallel.save(run.path("text_encoder.pt"), state)


@torch.no_grad()
def score(
    encoder: CLIPTextModel, probes: Probes, tokenizer: CLIPTokenizer, rng: np.random.Generator
) -> dict[str, float]:
    """How often each attribute is read right at the end token of fresh captions."""
    captions = sample_captions(rng, 512)
    tokens = tokenize(tokenizer, [c.text for c in captions])
    last, _ = features_at(encoder, tokens, end_positions(tokens, rng, extra=1))
    return probes.right(last[:, 0], captions)


def load(run: Run) -> CLIPTextModel:
    """The trained, frozen text encoder of a run."""
    encoder = make_text_encoder(make_tokenizer(run))
    encoder.load_state_dict(torch.load(run.path("text_encoder.pt"), weights_only=True)["model"])
    return encoder.eval().requires_grad_(False)
