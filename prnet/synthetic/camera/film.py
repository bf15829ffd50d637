"""From light to the picture a network sees: lens, sensor, tone curve, small pictures, JPEG.

Everything is batched torch with parameters of their own for each sample, the same code on every
device. Noise comes from an integer hash of seed and position, so it has the same bits everywhere.

Letters: B batch, S side of the square picture, n side of the padded picture.
Lengths are in px of a picture of 256 px and scale with S.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prnet.synthetic.camera.blur import blur
from prnet.synthetic.camera.exposure import LUMA, finish
from prnet.synthetic.camera.film_noise import hash_noise, noise_key
from prnet.synthetic.camera.jpeg import compress

REFERENCE_SIDE = 256
TONE_LEVELS = 4096
# Blur reaches past the border: the picture is mirrored so far before it. 256 + 2 * 16 and 128 + 32
# have small prime factors, as the Fourier transform likes them.
BORDER = 16
# Sampling every s px needs a blur of about this times s against aliasing: between the standard
# deviations of a box (0.29) and of a triangle (0.41) of that width.
ANTIALIAS = 0.37
SMALLEST_SIDE = 16


class FilmParameters(NamedTuple):
    """One sample: numbers and (3,) or (2,) arrays, float64. A batch: the same with B leading."""

    exposure: float  # stops
    white_balance: np.ndarray  # (3,), gain of linear R, G, B
    saturation: float  # 0 grey, 1 as it is
    contrast: float  # of encoded values about 0.5
    gamma: float  # exponent of encoded values
    vignette: float  # share of the light lost in the corners
    blur_px: float  # standard deviation
    defocus_px: float  # radius of the disc
    motion_px: float  # length of the straight path
    motion_angle: float  # radians, from x to y
    sharpening: float  # gain of the finest detail
    aberration_px: np.ndarray  # (2,), x and y by which red is shifted, and blue against it
    resolution: float  # side of the picture as taken, over the side asked for: (0, 1]
    read_noise: float  # standard deviation in the dark, linear light
    shot_noise: float  # variance per unit of light
    jpeg_quality: float  # 1 to 99 as libjpeg's; 100 and more: not compressed


def draw_film(generator: np.random.Generator) -> FilmParameters:
    """A camera, its settings and what became of the picture since."""
    uniform, normal = generator.uniform, generator.normal

    def sometimes(share: float, value: float) -> float:
        return value if uniform() < share else 0.0

    cast = 2.5 if uniform() < 0.15 else 1.0
    warmth, tint = cast * normal(0.01, 0.06), cast * normal(0, 0.025)
    white_balance = np.exp([warmth, tint, -1.3 * warmth])
    grey = uniform() < 0.08
    noise = np.exp(uniform(math.log(0.001), math.log(0.03)))
    aberration = sometimes(0.3, abs(normal(0, 0.6))) * _direction(uniform(0, 2 * math.pi))
    return FilmParameters(
        exposure=float(np.clip(normal(-0.05, 0.33), -1.3, 0.8)),
        white_balance=white_balance,
        # Toned monochrome keeps the white balance.
        saturation=0.0 if grey else float(np.clip(normal(1.0, 0.22), 0.2, 1.6)),
        contrast=float(np.clip(normal(1.05, 0.16), 0.6, 1.6)),
        gamma=float(np.exp(np.clip(normal(0, 0.16), -0.45, 0.45))),
        vignette=sometimes(0.4, uniform(0.05, 0.6)),
        blur_px=uniform(0.35, 0.8) + sometimes(0.15, uniform(0, 1.5)),
        defocus_px=sometimes(0.06, uniform(0.8, 3.5)),
        motion_px=sometimes(0.05, uniform(1.5, 7)),
        motion_angle=uniform(0, math.pi),
        sharpening=sometimes(0.35, uniform(0.2, 1.5)),
        aberration_px=aberration,
        resolution=1.0 if uniform() < 0.65 else float(np.exp(uniform(math.log(0.22), 0))),
        read_noise=noise * uniform(0.1, 0.5),
        shot_noise=noise**2 * uniform(0.3, 3),
        jpeg_quality=100.0 if uniform() < 0.2 else 15 + 82 * generator.beta(2.2, 1.1),
    )


def develop(
    image: Tensor,  # (B, 3, S, S), linear RGB; above 1 is overexposed
    parameters: FilmParameters,  # tensors (B,), (B, 2) or (B, 3)
    seeds: Tensor,  # (B,), int64
) -> Tensor:
    """The picture as a file would hold it, (B, 3, S, S), sRGB in [0, 1].

    Lens, light, sensor, tone curve, JPEG, in this order; JPEG and noise act on the picture as
    taken (`resolution`), which is then enlarged bilinearly.

    Parameters best stay on the CPU: which samples a stage leaves alone is then known without
    waiting for the device.

    Raises:
        ValueError: a side that is no multiple of 16 (JPEG's chroma blocks).
    """
    size = image.shape[-1]
    if image.shape[1:] != (3, size, size) or size % 16:
        raise ValueError(
            f"picture: got {tuple(image.shape)}, expected (B, 3, S, S) with S a multiple of 16"
        )
    there = FilmParameters(
        *(field.to(image.device, torch.float32, non_blocking=True) for field in parameters)
    )
    side = (parameters.resolution * size).round().clamp(SMALLEST_SIDE, size).float()

    image = _lens(image, there, parameters, size / side.to(image.device))
    if image.device.type == "cpu":
        finish(image, there, side, noise_key(seeds), tone_tables(there))
        return image
    return _finish(image, there, parameters, side, seeds)


def _finish(
    image: Tensor,  # (B, 3, S, S), behind the lens
    there: FilmParameters,
    parameters: FilmParameters,
    side: Tensor,  # (B,)
    seeds: Tensor,  # (B,)
) -> Tensor:
    """Light, sensor, tone curve, JPEG, and back to the full side."""
    size = image.shape[-1]
    image = _light(image, there)
    small = _chosen(side < size, image.device)
    if len(small):
        side = side.to(image.device)[small]
        image = image.index_copy(0, small, _shrink(image[small], side))
    image = _sensor(image, there, seeds)
    image = _tone(image, there)
    lossy = _chosen(parameters.jpeg_quality < 100, image.device)
    if len(lossy):
        image[lossy] = compress(image[lossy], there.jpeg_quality[lossy])
    if len(small):
        image[small] = _enlarge(image[small], side)
    return image


def _chosen(condition: Tensor, device: torch.device) -> Tensor:  # (B,), bool
    """Indices of the samples a stage is for."""
    return torch.nonzero(condition)[:, 0].to(device)


def _direction(angle: float) -> np.ndarray:
    return np.array([math.cos(angle), math.sin(angle)])


def _lens(
    image: Tensor,  # (B, 3, S, S)
    there: FilmParameters,
    parameters: FilmParameters,
    step: Tensor,  # (B,), px of the image per px of the picture as taken
) -> Tensor:
    """`_transferred`; on a CPU most pictures take a shorter way to nearly the same."""
    if image.device.type != "cpu":
        return _transferred(image, there, parameters, step)
    skewed = (parameters.motion_px > 0) | (parameters.defocus_px > 0)
    skewed |= (parameters.aberration_px != 0).any(-1)
    image = image.contiguous()
    result = torch.zeros_like(image)
    scale = image.shape[-1] / REFERENCE_SIDE
    variance = _variance(there, scale, step).tolist()
    sharpening = there.sharpening.tolist()
    for number in (~skewed).nonzero()[:, 0].tolist():
        arguments = variance[number], sharpening[number], scale**2, BORDER
        blur(image[number], *arguments, result[number])
    rest = _chosen(skewed, image.device)
    if len(rest):
        chosen = (FilmParameters(*(field[rest] for field in all_)) for all_ in (there, parameters))
        result[rest] = _transferred(image[rest], *chosen, step[rest])
    return result


def _variance(there: FilmParameters, scale: float, step: Tensor) -> Tensor:  # (B,)
    """Of the blur, with what guards against aliasing, (B,), px^2."""
    return (scale * there.blur_px) ** 2 + ANTIALIAS**2 * (step**2 - 1)


def _transferred(
    image: Tensor,  # (B, 3, S, S)
    there: FilmParameters,
    parameters: FilmParameters,
    step: Tensor,  # (B,), px of the image per px of the picture as taken
) -> Tensor:
    """Blur, defocus, motion, sharpening and lateral colour as one transfer function.

    H(f) = G(f) sinc(L f.d) 2 J1(2 pi R |f|) / (2 pi R |f|) (1 + a (1 - g(f))) exp(-+2 pi i f.s),
    H(0) = 1: the mean stays. Where the picture is to be sampled coarsely G also guards it against
    aliasing.
    """
    size = image.shape[-1]
    scale = size / REFERENCE_SIDE
    padded = functional.pad(image, (BORDER,) * 4, mode="reflect")
    side = padded.shape[-1]
    # Cycles per px.
    frequency_x = torch.fft.rfftfreq(side, device=image.device)
    frequency_y = torch.fft.fftfreq(side, device=image.device)[:, None]
    squared = frequency_x**2 + frequency_y**2  # (n, n / 2 + 1)

    variance = _variance(there, scale, step)
    decay = -2 * math.pi**2 * squared
    transfer = torch.exp(variance[:, None, None] * decay)  # (B, n, n / 2 + 1)
    transfer *= 1 + there.sharpening[:, None, None] * (1 - torch.exp(decay * scale**2))

    moving = _chosen(parameters.motion_px > 0, image.device)
    if len(moving):
        length = scale * there.motion_px[moving, None, None]
        angle = there.motion_angle[moving, None, None]
        along = frequency_x * angle.cos() + frequency_y * angle.sin()
        transfer[moving] *= torch.sinc(length * along)
    defocused = _chosen(parameters.defocus_px > 0, image.device)
    if len(defocused):
        radius = scale * there.defocus_px[defocused, None, None]
        argument = (2 * math.pi * radius * squared.sqrt()).clamp(min=1e-3)
        transfer[defocused] *= 2 * torch.special.bessel_j1(argument) / argument

    spectrum = torch.fft.rfft2(padded)
    spectrum *= transfer[:, None].to(spectrum.dtype)
    shifted = _chosen((parameters.aberration_px != 0).any(-1), image.device)
    if len(shifted):
        shift = scale * there.aberration_px[shifted, :, None, None]
        phase = -2 * math.pi * (frequency_x * shift[:, 0] + frequency_y * shift[:, 1])
        turn = torch.polar(torch.ones_like(phase), phase)
        spectrum[shifted, 0] *= turn
        spectrum[shifted, 2] *= turn.conj()
    inside = slice(BORDER, BORDER + size)
    return torch.fft.irfft2(spectrum, s=(side, side))[..., inside, inside]


def _light(image: Tensor, there: FilmParameters) -> Tensor:  # (B, 3, S, S)
    """Saturation, then exposure and white balance, then less light in the corners."""
    size = image.shape[-1]
    weights = image.new_tensor(LUMA)[:, None, None]
    grey = (image * weights).sum(1, keepdim=True)  # (B, 1, S, S)
    lit = torch.lerp(grey, image, there.saturation[:, None, None, None])
    axis = torch.linspace(-1, 1, size, device=image.device) ** 2
    from_center = (axis + axis[:, None]) / 2  # 1 in the corners
    gain = there.white_balance * torch.exp2(there.exposure)[:, None]
    falloff = 1 - there.vignette[:, None, None] * from_center  # (B, S, S)
    return lit.mul_(gain[:, :, None, None]).mul_(falloff[:, None])


def _shrink(image: Tensor, side: Tensor) -> Tensor:  # (B, 3, S, S); (B,)
    """The picture sampled at `side` px, in the upper left of its square; the last pixel repeats to
    the right and below."""
    size = image.shape[-1]
    pixel = torch.arange(size, device=image.device)
    pixel = torch.minimum(pixel, side[:, None] - 1)  # (B, S)
    return _sample(image, 2 * (pixel + 0.5) / side[:, None] - 1)


def _enlarge(image: Tensor, side: Tensor) -> Tensor:  # (B, 3, S, S); (B,)
    """The upper left `side` px spread over the whole square, bilinear."""
    size = image.shape[-1]
    pixel = torch.arange(size, device=image.device)
    position = (pixel + 0.5) * side[:, None] / size - 0.5  # (B, S), px
    position = torch.minimum(position, side[:, None] - 1)
    return _sample(image, (2 * position + 1) / size - 1)


def _sample(image: Tensor, position: Tensor) -> Tensor:  # (B, 3, S, S); (B, S), in [-1, 1]
    """Bilinear samples at the same positions along x and y."""
    count, size = position.shape
    grid = torch.stack(
        [
            position[:, None, :].expand(count, size, size),
            position[:, :, None].expand(count, size, size),
        ],
        -1,
    )
    return functional.grid_sample(image, grid, padding_mode="border", align_corners=False)


def _sensor(image: Tensor, there: FilmParameters, seeds: Tensor) -> Tensor:  # (B, 3, S, S); (B,)
    """Noise of variance read_noise^2 + shot_noise x."""
    image = image.clamp(min=0)
    read = there.read_noise[:, None, None, None]
    shot = there.shot_noise[:, None, None, None]
    noise = hash_noise(seeds.to(image.device), image.shape[-1])
    return image.addcmul_((image * shot).add_(read**2).sqrt_(), noise)


def srgb_encode(linear: Tensor) -> Tensor:  # in [0, 1]
    """IEC 61966-2-1."""
    return torch.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=1e-4) ** (1 / 2.4) - 0.055
    )


def _tone(image: Tensor, there: FilmParameters) -> Tensor:  # (B, 3, S, S)
    """sRGB encoding, gamma and contrast, as one table for each sample."""
    index = image.clamp(0, 1).sqrt_().mul_(TONE_LEVELS - 1).round_().int()
    first = torch.arange(len(image), dtype=torch.int32, device=image.device) * TONE_LEVELS
    index += first[:, None, None, None]
    return tone_tables(there).flatten().index_select(0, index.flatten()).view(image.shape)


def tone_tables(there: FilmParameters) -> Tensor:
    """Values, (B, levels), at equal steps of the square root of the light.

    They are nearly equal steps of the encoding: the table is within 0.1/255 of the curve.
    """
    level = torch.linspace(0, 1, TONE_LEVELS, device=there.gamma.device)
    encoded = srgb_encode(level**2) ** there.gamma[:, None]
    return (0.5 + there.contrast[:, None] * (encoded - 0.5)).clamp(0, 1)
