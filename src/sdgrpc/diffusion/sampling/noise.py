"""Random numbers from a seed, as the contract's `Sampling.seed` states it for other implementations."""

from __future__ import annotations

import torch

WORD = 2**32
PARALLEL = 0.9995
# A generator's state is the seed, two counters, the twister's 624 words, each in eight bytes, and more.
FIRST_WORD, WORDS = 3, 624


def slerp(noise: torch.Tensor, other: torch.Tensor, share: float) -> torch.Tensor:
    """Return what lies on the arc from one noise to another, each `[1, C, h, w]`, at a share from 0 to 1.

    Spherical interpolation as the web UI of AUTOMATIC1111 does it for its variation seed (`slerp` in
    `modules/rng.py`): each column of each channel is a vector; nearly parallel noises are mixed plainly.
    """
    first, second = (one / torch.linalg.vector_norm(one, dim=2, keepdim=True) for one in (noise, other))
    cosine = (first * second).sum(dim=2, keepdim=True)
    if cosine.mean() > PARALLEL:
        return (1 - share) * noise + share * other
    angle = torch.acos(cosine.clamp(-1, 1))
    whole = torch.sin(angle)
    return torch.sin((1 - share) * angle) / whole * noise + torch.sin(share * angle) / whole * other


def generator(seed: int) -> torch.Generator:
    """Return an image's own CPU generator: another for each seed of 64 bits, negative ones as unsigned.

    torch starts its Mersenne Twister from the lower 32 bits of a seed. So seeds from 2^32 on start it here,
    by the algorithm's own way for longer keys (`init_by_array` of the reference implementation, which
    `random.seed(seed)` of Python and `numpy.random.RandomState([low, high])` use too).
    """
    made = torch.Generator().manual_seed(seed)
    whole = seed % 2**64
    if whole >= WORD:
        state = made.get_state()
        words = torch.tensor(_init_by_array([whole % WORD, whole // WORD]))
        state.view(torch.int64)[FIRST_WORD : FIRST_WORD + WORDS] = words
        made.set_state(state)
    return made


def _init_genrand(seed: int) -> list[int]:
    words = [seed % WORD]
    for index in range(1, WORDS):
        last = words[-1]
        words.append((1812433253 * (last ^ last >> 30) + index) % WORD)
    return words


def _init_by_array(key: list[int]) -> list[int]:
    """The twister's first words for a key of 32-bit numbers.

    Source: `init_by_array` of Matsumoto and Nishimura's mt19937ar.c.
    """
    words = _init_genrand(19650218)
    at, taken = 1, 0
    for _ in range(max(WORDS, len(key))):
        last = words[at - 1]
        words[at] = ((words[at] ^ (last ^ last >> 30) * 1664525) + key[taken] + taken) % WORD
        at, taken = at + 1, (taken + 1) % len(key)
        if at == WORDS:
            words[0], at = words[-1], 1
    for _ in range(WORDS - 1):
        last = words[at - 1]
        words[at] = ((words[at] ^ (last ^ last >> 30) * 1566083941) - at) % WORD
        at += 1
        if at == WORDS:
            words[0], at = words[-1], 1
    words[0] = 2**31
    return words
