"""Noise of a sensor from an integer hash of seed and position: the same bits on every device.

Letters: B batch, S side of the square picture.
"""

import torch
from torch import Tensor

NOISE_BITS = 10


def hash_noise(seeds: Tensor, size: int) -> Tensor:  # (B,), int64
    """Standard normal noise without spatial correlation, (B, 3, size, size).

    Three times ten bits of a 32-bit hash of seed and pixel choose from a table of 1,024 normal
    quantiles: integers and one table, so every device gives the same bits.
    """
    pixel = torch.arange(1, size * size + 1, dtype=torch.int32, device=seeds.device)
    bits = mixed(mixed(pixel) ^ noise_key(seeds)[:, None])  # (B, size^2)
    quantiles = noise_quantiles().to(seeds.device)
    shift = torch.arange(3, dtype=torch.int32, device=seeds.device)[:, None] * NOISE_BITS
    index = (bits[:, None] >> shift).bitwise_and_((1 << NOISE_BITS) - 1)  # (B, 3, size^2)
    return quantiles.index_select(0, index.flatten()).view(-1, 3, size, size)


def noise_key(seeds: Tensor) -> Tensor:  # (B,), int64
    """Of all bits of the seed, (B,) int32."""
    low, high = seeds.to(torch.int32), (seeds >> 32).to(torch.int32)
    return mixed(mixed(low + 1) ^ high)


def noise_quantiles() -> Tensor:
    """The normal distribution in equal shares, (1024,), variance 1."""
    levels = 1 << NOISE_BITS
    share = (torch.arange(levels, dtype=torch.float64) + 0.5) / levels
    quantiles = torch.special.ndtri(share)
    return (quantiles / quantiles.square().mean().sqrt()).float()


def mixed(bits: Tensor) -> Tensor:  # int32
    """MurmurHash3's 32-bit finaliser; products wrap, shifts bring in zeros."""
    bits = bits ^ (bits >> 16).bitwise_and_(0xFFFF)
    bits *= -2048144789
    bits ^= (bits >> 13).bitwise_and_(0x7FFFF)
    bits *= -1028477387
    bits ^= (bits >> 16).bitwise_and_(0xFFFF)
    return bits
