"""The four parts, as diffusers and transformers build them, and where a run keeps its files."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from . import tokenizer as bpe

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "src" / "sdgrpc" / "assets" / "tiny"
WIDTH = 128
LATENT_STD = 0.5
STEPS = 20
GUIDANCE = 2.0


@dataclass(frozen=True)
class Run:
    """The folder of one training run: every stage reads and writes its checkpoints here."""

    out: Path
    assets: Path = ASSETS

    def path(self, name: str) -> Path:
        """The file `name` of this run, its folder made."""
        self.out.mkdir(parents=True, exist_ok=True)
        return self.out / name


def make_tokenizer(run: Run) -> CLIPTokenizer:
    """The tokenizer, learned on the first call and read from the run's folder afterwards."""
    folder = run.path("tokenizer")
    if not (folder / "merges.txt").exists():
        bpe.build(folder)
    return CLIPTokenizer.from_pretrained(folder)


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """CLIP's text model, 3 layers of width 128: [B, 77] tokens to [B, 77, 128]."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=bpe.MAX_LENGTH,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def make_vae() -> AutoencoderKL:
    """A KL autoencoder: [B, 3, 128, 128] in [-1, 1] to [B, 4, 16, 16] and back."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(16, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=128,
    )


def make_unet() -> UNet2DConditionModel:
    """The denoiser: [B, 4, 16, 16], time steps [B], text [B, 77, 128] to the velocity [B, 4, 16, 16]."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion's schedule, predicting the velocity (Salimans and Ho 2022)."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """[B, 77] token ids, padded and cut as Stable Diffusion does."""
    return tokenizer(
        texts, padding="max_length", max_length=bpe.MAX_LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
