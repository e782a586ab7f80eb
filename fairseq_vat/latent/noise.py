"""Standard normal noise that belongs to a sentence, not to a batch.

torch's generators hand out numbers in the order they are asked for, so a sentence's noise would
depend on its neighbours, on padding, and on the process that happens to hold it.  Here every
number is a hash of (seed, draw, the sentence's tokens, position, dimension): a SplitMix64 stream
a sentence (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"), turned
normal by the Box-Muller transform.  The same numbers come out whatever the batch, the padding,
the number of processes or the device (up to rounding of log and cos).

Shape legend: T positions, B sentences, L latent width, P pairs of dimensions.
"""

import math

import torch
from torch import Tensor

_MASK_64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: SplitMix64's increment


def sentence_keys(tokens_BT: Tensor, padding_idx: int) -> Tensor:
    """A 64-bit key of each sentence's tokens, (B,) int64, independent of padding on the right.

    Args:
        tokens_BT: token indices, (B, T), padded on the right.
    """
    positions_T = torch.arange(1, tokens_BT.size(1) + 1, device=tokens_BT.device)
    # position and token share one word: sequences are far shorter than 2^32
    mixed_BT = _mix((positions_T << 32) + tokens_BT.long())
    return _mix(mixed_BT.masked_fill(tokens_BT.eq(padding_idx), 0).sum(dim=1))


def repeated_keys(keys_B: Tensor, repeats_B: Tensor) -> Tensor:
    """Keys of their own for sentences that were there before, (B,) int64.

    Args:
        repeats_B: (B,) int64, how often the same sentence was there before; at 0 the key stays.
    """
    return torch.where(repeats_B == 0, keys_B, _mix(keys_B + _mix(repeats_B)))


def normal(keys_B: Tensor, length: int, width: int, seed: int, draw: int = 0) -> Tensor:
    """Standard normal noise, (T, B, L) in single precision.

    Args:
        length: T; a longer T only adds positions, it changes none.
        draw: number of the draw for the same sentence, from 0.
    """
    pairs = (width + 1) // 2
    start_B = _mix(keys_B ^ _signed(_mix_int(_mix_int(seed & _MASK_64) + draw)))
    steps_T1P = torch.arange(1, length * pairs + 1, device=keys_B.device).view(length, 1, pairs)
    bits_TBP = _mix(start_B.view(1, -1, 1) + steps_T1P * _signed(_GOLDEN))
    # half a step away from 0, so that the logarithm stays finite
    radius_TBP = ((_shift(bits_TBP, 32).float() + 0.5) * 2.0**-32).log_().mul_(-2.0).sqrt_()
    angle_TBP = (bits_TBP & 0xFFFFFFFF).float() * (2.0 * math.pi * 2.0**-32)
    noise_TBL = torch.cat((radius_TBP * angle_TBP.cos(), radius_TBP * angle_TBP.sin()), dim=-1)
    return noise_TBL[..., :width]


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's output function on int64, which wraps around as uint64 would."""
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _mix_int(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return x ^ (x >> 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's own is arithmetic and would drag the sign in."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    x &= _MASK_64
    return x - (1 << 64) if x >> 63 else x
