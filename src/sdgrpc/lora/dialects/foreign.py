"""What is not for us at all, by its keys: files for other architectures, and files that are no LoRAs.

A file is told from the words in its keys and from how its modules' names begin, without its metadata, which
lies: a published Flux file says `ss_base_model_version: sd_1.5`. It is asked before any data is read, and
thousands of keys must cost little: words are searched in all keys at once, each beginning only once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sdgrpc.errors import LoraIncompatible


def _for(what: str) -> str:
    return f"is for {what}, not for Stable Diffusion 1, 2 or XL"


def _is(what: str) -> str:
    return f"is {what}, not a LoRA"


CHECKPOINT = _is("a full checkpoint") + "; serve it with --model"
EMBEDDING = _is("a textual inversion (a token's embedding)")
TRANSFORMER = _for("a transformer model (Stable Diffusion 3, Flux or Qwen-Image)")

WORDS: Sequence[tuple[tuple[str, ...], str]] = (
    (
        (
            "lora_controlnet",
            "controlnet_cond_embedding",
            "controlnet_down_block",
            "controlnet_mid_block",
            "input_hint_block",
            "\ncontrol_model.",
        ),
        _for("a ControlNet"),
    ),
    (("lllite_",), _for("ControlNet-LLLite")),
    (
        ("\nimage_proj.", "\nip_adapter.", "to_k_ip.", "to_v_ip.", "encoder_hid_proj.image_projection"),
        _is("an IP-Adapter"),
    ),
    (("\npulid_",), _is("a PuLID file")),
    (("\nid_encoder.",), _is("a PhotoMaker file")),
    (("_custom_diffusion.",), _is("a Custom Diffusion file")),
    (("motion_modules", "temporal_transformer."), _for("AnimateDiff's motion modules")),
    (("temporal_transformer_blocks",), _for("Stable Video Diffusion")),
    (("temp_attentions", "temp_convs"), _for("a text-to-video U-Net (ModelScope, Zeroscope)")),
    (("add_k_proj_lora", "add_v_proj_lora"), _for("Kandinsky 2 or DeepFloyd IF")),
    (("encoder_hid_proj",), _for("Kolors, or another model whose U-Net projects its text")),
    (("lora_prior_",), _for("Stable Cascade's prior")),
    (("distilled_guidance_layer",), _for("Chroma")),
    (("double_stream_blocks", "single_stream_blocks"), _for("HiDream")),
    (("joint_transformer_blocks",), _for("AuraFlow")),
    (("joint_blocks", "lora_te3_"), _for("Stable Diffusion 3")),
    (
        (
            "individual_token_refiner",
            "token_refiner.refiner_blocks",
            "img_mlp_fc",
            "img_mlp.fc",
            "img_mod_linear",
            "img_mod.linear",
            ".img_attn_qkv",
            ".img_attn_proj",
        ),
        _for("HunyuanVideo or HunyuanImage"),
    ),
    (("double_blocks", "single_blocks", "single_transformer_blocks"), _for("Flux")),
    (
        (
            "\nmodel.diffusion_model.",
            "\nfirst_stage_model.",
            "\ncond_stage_model.",
            "\nconditioner.embedders.",
        ),
        CHECKPOINT,
    ),
)
"""Words in keys that only other files have -> what is said of them. The first that is found wins."""

_PREFIX = (
    r"(?:base_model\.model\.|lora_unet_|lora_transformer_|lycoris_|transformer\.|diffusion_model[._]|pipe\."
    r"|dit\.|unet\.|model\.)*"
)
_HEAD_LENGTH = 64

HEADS: Sequence[tuple[str, str]] = (
    (r"transformer_blocks[._]\d+[._](?:img|txt)_(?:mlp|mod)", _for("Qwen-Image")),
    (r"(?<=lora_unet_)transformer_blocks_\d+_(?!attn[12]_)", _for("Qwen-Image")),
    (r"(?<=diffusion_model\.)transformer_blocks\.\d+\.attn\.", _for("Qwen-Image")),
    (r"transformer_blocks[._]\d+[._](?:attn[._]|ff_context|norm1_context)", TRANSFORMER),
    (
        r"transformer_blocks[._]\d+[._]",
        _for("a transformer model (LTX-Video, PixArt, Sana, CogVideoX or another)"),
    ),
    (r"blocks[._]\d+[._](?:attn1[._]Wqkv|attn2[._]kv_proj)", _for("HunyuanDiT")),
    (r"blocks[._]\d+[._](?!transformer_blocks)", _for("a video or Anima transformer (Wan, Anima)")),
    (
        r"(?:cap_embedder|noise_refiner|context_refiner)[._]|layers[._]\d+[._](?:attention|feed_forward|adaLN)",
        _for("Lumina or Z-Image"),
    ),
    (r"(?:double|single)_layers[._]\d", _for("AuraFlow")),
    (
        r"(?:llm\.|language_model\.|decoder\.)*layers[._]\d+[._](?:self_attn|mlp)[._]",
        _for("a language model, or an image model that is one"),
    ),
)
"""How modules' names begin after the trainers' prefixes, where the model is no U-Net. The first wins."""

_HEADS = [(re.compile("^" + _PREFIX + pattern), what) for pattern, what in HEADS]
_ANY_HEAD = re.compile(
    _PREFIX + r"(?:transformer_blocks|blocks|layers|cap_embedder|noise_refiner|context_refiner"
    r"|double_layers|single_layers|llm|language_model|decoder)[._]"
)

_ADAPTER = re.compile(
    r"lora|hada_|lokr_|[bo]ft_|ia3|on_input|vera_|hra_u|:(?:up|down)$|\.(?:alpha|diff|diff_b|[wb]_norm)$"
    r"|\.[ab][12]\.weight$|bundle_emb|lambda_layer"
)
"""What some key of every adapter has."""

_EMBEDDING = re.compile(
    r"^(?:emb_params|string_to_param.*|string_to_token.*|clip_l|clip_g|t5xxl|<.*>|text_encoders_\d)$"
)

WHOLE: Sequence[tuple[str, str]] = (
    (r"^adapter\.|^body\.\d+\.(?:resnets|block\d|in_conv|down_opt)\b", _is("a T2I-Adapter")),
    (
        r"^(?:vae\.)?decoder\.(?:conv_in|conv_out|up|mid|up_blocks|mid_block|layers\.\d+\.(?:weight|conv))\b",
        _is("a VAE"),
    ),
    (
        r"^(?:params(?:_ema)?\.)?(?:conv_first\.|body\.\d+\.rdb|RRDB_trunk\.)|^model\.\d+\.(?:weight|sub\.)",
        _is("an upscaler"),
    ),
    (r"^(?:320|640|768|1024|1280)\.\d+\.", _is("a hypernetwork")),
    (r"\.delta$", _is("an SVDiff file")),
    (r"^(?:vision_model|visual)\.", _is("an image encoder")),
    (
        r"^encoder\.block\.\d+\.|^(?:text_model\.)?(?:encoder\.layers\.\d+|embeddings\.token_embedding)\.",
        _is("a text encoder's own weights"),
    ),
    (
        r"^(?:unet\.|diffusion_model\.)?(?:down_blocks|up_blocks|mid_block|input_blocks|output_blocks)\.",
        _is("a U-Net's own weights") + "; serve the model with --model",
    ),
)
"""Keys of files without any adapter's tensor -> what they are."""


def reject_foreign(name: str, keys: Iterable[str]) -> None:
    """Refuse what is for another architecture or no LoRA at all.

    Raises:
        LoraIncompatible: says what the file is.

    """
    keys = list(keys)
    text = "\n" + "\n".join(keys)
    for words, what in WORDS:
        if word := next((word for word in words if word in text), None):
            key = next((key for key in keys if word in "\n" + key), "")
            raise LoraIncompatible(name, f"{what} ({key!r})", key=key)
    if any(_ANY_HEAD.match(head) for head in {key[:_HEAD_LENGTH] for key in keys}):
        _reject(name, keys, _HEADS)
    if keys and all(_EMBEDDING.match(key) for key in keys):
        raise LoraIncompatible(name, EMBEDDING)
    if not any(_ADAPTER.search(key) for key in keys):
        _reject(name, keys, [(re.compile(pattern), what) for pattern, what in WHOLE])


def _reject(name: str, keys: Sequence[str], kinds: Sequence[tuple[re.Pattern[str], str]]) -> None:
    for expression, what in kinds:
        if key := next((key for key in keys if expression.search(key)), None):
            raise LoraIncompatible(name, f"{what} ({key!r})", key=key)
