"""A camera that changes nothing, and the oracle of what happens behind the lens.

Letters: S side of the square picture.
"""

import numpy as np
import torch
from torch import Tensor

from prnet.synthetic.camera.exposure import compress, noise_quantiles, tone_tables
from prnet.synthetic.camera.film import FilmParameters

IDENTITY_FILM = FilmParameters(
    exposure=0.0,
    white_balance=np.ones(3),
    saturation=1.0,
    contrast=1.0,
    gamma=1.0,
    vignette=0.0,
    blur_px=0.0,
    defocus_px=0.0,
    motion_px=0.0,
    motion_angle=0.0,
    sharpening=0.0,
    aberration_px=np.zeros(2),
    resolution=1.0,
    read_noise=0.0,
    shot_noise=0.0,
    jpeg_quality=100.0,
)


def exposed_by_formula(
    image: Tensor,  # (3, S, S), behind the lens
    film: FilmParameters,  # of one sample
    side: int,  # of the picture as taken
    seed: int,
) -> Tensor:
    """Light, sensor, tone curve and JPEG, enlarged again, (3, S, S)."""
    size = image.shape[-1]
    grey = (image * torch.tensor([0.2126, 0.7152, 0.0722])[:, None, None]).sum(0)
    lit = torch.lerp(grey, image, float(film.saturation))
    axis = torch.linspace(-1, 1, size) ** 2
    lit = lit * (1 - float(film.vignette) * (axis + axis[:, None]) / 2)
    lit = lit * (torch.as_tensor(film.white_balance) * 2**film.exposure)[:, None, None]
    pixel = torch.arange(side)
    small = bilinear(lit.float(), (pixel + 0.5) * size / side - 0.5).clamp(min=0)
    noise = hash_noise(seed, size)[:, :side, :side]
    small = small + (film.read_noise**2 + film.shot_noise * small).sqrt() * noise
    curve = tone_tables(*(torch.tensor([float(x)]) for x in (film.gamma, film.contrast)))[0]
    small = curve[(small.clamp(0, 1).sqrt() * (len(curve) - 1)).round().long()]
    if film.jpeg_quality < 100:
        compress(small.numpy(), film.jpeg_quality)
    return bilinear(small, (torch.arange(size) + 0.5) * side / size - 0.5)


def bilinear(image: Tensor, place: Tensor) -> Tensor:  # (3, S, S), (n,)
    """Samples at the same places along x and y, (3, n, n)."""
    place = place.clamp(0, image.shape[-1] - 1)
    first = place.long()
    second, share = (first + 1).clamp(max=image.shape[-1] - 1), place - first
    rows = torch.lerp(image[:, first], image[:, second], share[:, None])
    return torch.lerp(rows[..., first], rows[..., second], share)


def hash_noise(seed: int, size: int) -> Tensor:
    """Standard normal noise without spatial correlation, (3, size, size): three times ten bits of
    a hash of seed and pixel choose from a table of quantiles."""
    key = mixed(mixed(np.uint32((seed + 1) & 0xFFFFFFFF)) ^ np.uint32(seed >> 32 & 0xFFFFFFFF))
    bits = mixed(mixed(np.arange(1, size * size + 1, dtype=np.uint32)) ^ key)
    levels = np.stack([bits >> shift & 1023 for shift in (0, 10, 20)]).astype(np.int64)
    return noise_quantiles()[torch.from_numpy(levels)].view(3, size, size)


def mixed(bits: np.ndarray) -> np.ndarray:  # uint32
    """MurmurHash3's 32-bit finaliser."""
    bits = np.asarray(bits, np.uint64)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ bits >> np.uint64(shift)) * np.uint64(factor) & np.uint64(0xFFFFFFFF)
    return (bits ^ bits >> np.uint64(16)).astype(np.uint32)
