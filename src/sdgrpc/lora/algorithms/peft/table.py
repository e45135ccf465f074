"""The newer methods of PEFT that are applied: their tensors and low_rank."""

from __future__ import annotations

from collections.abc import Sequence

from sdgrpc.lora.algorithms import reflections
from sdgrpc.lora.algorithms.algorithm import Algorithm, roles
from sdgrpc.lora.algorithms.peft import low_rank, structured, with_bias

NOTHING = roles("")

DELORA = Algorithm(
    "delora",
    "DeLoRA",
    roles("delora_A delora_B delora_lambda delora_w_norm"),
    NOTHING,
    low_rank.delora_size,
    low_rank.delora_rank,
    factors=low_rank.delora,
)
GRALORA = Algorithm(
    "gralora",
    "GraLoRA",
    roles("gralora_A gralora_B"),
    roles("gralora_A_general gralora_B_general"),
    low_rank.gralora_size,
    low_rank.gralora_rank,
    change=low_rank.gralora,
    has_alpha=True,
)
HIRA = Algorithm(
    "hira",
    "HiRA",
    roles("hira_A hira_B"),
    NOTHING,
    low_rank.hira_size,
    low_rank.hira_rank,
    weighted=low_rank.hira,
)
C3A = Algorithm("c3a", "C3A", roles("c3a_kernel"), NOTHING, structured.c3a_size, change=structured.c3a)
VERA = Algorithm(
    "vera",
    "VeRA",
    roles("vera_lambda_b vera_lambda_d vera_A vera_B"),
    NOTHING,
    low_rank.vera_size,
    low_rank.vera_rank,
    weighted=low_rank.vera,
)
SHIRA = Algorithm(
    "shira",
    "SHiRA",
    roles("shira_weight shira_indices"),
    NOTHING,
    structured.shira_size,
    weighted=structured.shira,
)
FOURIERFT = Algorithm(
    "fourierft",
    "FourierFT",
    roles("fourierft_spectrum"),
    NOTHING,
    structured.fourierft_size,
    weighted=structured.fourierft,
)
MISS = Algorithm(
    "miss",
    "MiSS",
    roles("miss_block"),
    NOTHING,
    structured.miss_size,
    structured.miss_rank,
    weighted=structured.miss,
)
HRA = Algorithm(
    "hra",
    "HRA",
    roles("hra_u"),
    NOTHING,
    reflections.hra_size,
    reflections.hra_rank,
    weighted=reflections.hra,
)
PEFT_BOFT = Algorithm(
    "boft",
    "BOFT",
    roles("boft_R boft_s"),
    NOTHING,
    reflections.peft_boft_size,
    reflections.peft_boft_rank,
    weighted=reflections.peft_boft,
)
LN_TUNING = Algorithm(
    "ln_tuning",
    "LN tuning",
    roles("ln_weight"),
    roles("ln_bias"),
    with_bias.tuned_norm_size,
    weighted=with_bias.tuned_norm,
    weighted_bias=with_bias.tuned_norm_bias,
)
ROAD = Algorithm(
    "road",
    "RoAd",
    roles("road_theta road_alpha"),
    NOTHING,
    with_bias.road_size,
    weighted=with_bias.road,
    weighted_bias=with_bias.road_bias,
)
PEFT_IA3 = Algorithm(
    "ia3",
    "(IA)^3",
    roles("ia3_l"),
    NOTHING,
    with_bias.peft_ia3_size,
    weighted=with_bias.peft_ia3,
    weighted_bias=with_bias.peft_ia3_bias,
)

PEFT_KINDS: Sequence[Algorithm] = (
    *(DELORA, GRALORA, HIRA, C3A, VERA, SHIRA, FOURIERFT, MISS, HRA, PEFT_BOFT),
    *(LN_TUNING, ROAD, PEFT_IA3),
)
