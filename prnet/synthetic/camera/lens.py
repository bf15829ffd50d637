"""The lens: blur, defocus, motion, sharpening and lateral colour.

Lengths are in px of a picture of 256 px and scale with the picture's side.

Letters: B batch, S side of the square picture, n side of the padded picture.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from prnet.synthetic.camera.blur import blur
from prnet.synthetic.camera.film import FilmParameters

REFERENCE_SIDE = 256
# Blur reaches past the border: the picture is mirrored so far before it. With sides that are
# multiples of 16 px the padded ones have small prime factors, as the Fourier transform likes them.
BORDER = SIZE_STEP = 16
# Sampling every s px needs a blur of about this times s against aliasing: between the standard
# deviations of a box (0.29) and of a triangle (0.41) of that width.
ANTIALIAS = 0.37


def through_lens(
    image: Tensor,  # (B, 3, S, S), written
    film: FilmParameters,  # float32 tensors, leading B
    step: Tensor,  # (B,), px of the image per px of the picture as taken
) -> None:
    """`transferred`, in place: memory for a whole batch would be new, and slow for that. Most
    pictures are blurred round, and take a shorter way to nearly the same."""
    skewed = (film.motion_px > 0) | (film.defocus_px > 0) | (film.aberration_px != 0).any(-1)
    blurred = torch.zeros_like(image[0])
    scale = image.shape[-1] / REFERENCE_SIDE
    variance, sharpening = _variance(film, scale, step).tolist(), film.sharpening.tolist()
    for number in (~skewed).nonzero()[:, 0].tolist():
        arguments = variance[number], sharpening[number], scale**2, BORDER
        blur(image[number], *arguments, blurred.zero_())
        image[number] = blurred
    # One at a time: the spectra of a batch do not fit into any cache, and take twice as long.
    for number in skewed.nonzero()[:, 0].tolist():
        one = slice(number, number + 1)
        chosen = film._make(field[one] for field in film)
        image[one] = transferred(image[one], chosen, step[one])


def _variance(film: FilmParameters, scale: float, step: Tensor) -> Tensor:  # (B,)
    """Of the blur, with what guards against aliasing, (B,), px^2."""
    return (scale * film.blur_px) ** 2 + ANTIALIAS**2 * (step**2 - 1)


def transferred(
    image: Tensor,  # (B, 3, S, S)
    film: FilmParameters,
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
    frequency_x = torch.fft.rfftfreq(side)
    frequency_y = torch.fft.fftfreq(side)[:, None]
    squared = frequency_x**2 + frequency_y**2  # (n, n / 2 + 1)

    variance = _variance(film, scale, step)
    decay = -2 * math.pi**2 * squared
    transfer = torch.exp(variance[:, None, None] * decay)  # (B, n, n / 2 + 1)
    if film.sharpening.any():
        transfer *= 1 + film.sharpening[:, None, None] * (1 - torch.exp(decay * scale**2))

    moving = (film.motion_px > 0).nonzero()[:, 0]
    if len(moving):
        length = scale * film.motion_px[moving, None, None]
        angle = film.motion_angle[moving, None, None]
        along = frequency_x * angle.cos() + frequency_y * angle.sin()
        transfer[moving] *= torch.sinc(length * along)
    defocused = (film.defocus_px > 0).nonzero()[:, 0]
    if len(defocused):
        radius = scale * film.defocus_px[defocused, None, None]
        argument = (2 * math.pi * radius * squared.sqrt()).clamp(min=1e-3)
        transfer[defocused] *= 2 * torch.special.bessel_j1(argument) / argument

    spectrum = torch.fft.rfft2(padded)
    spectrum *= transfer[:, None].to(spectrum.dtype)
    shifted = (film.aberration_px != 0).any(-1).nonzero()[:, 0]
    if len(shifted):
        shift = scale * film.aberration_px[shifted, :, None, None]
        phase = -2 * math.pi * (frequency_x * shift[:, 0] + frequency_y * shift[:, 1])
        turn = torch.polar(torch.ones_like(phase), phase)
        spectrum[shifted, 0] *= turn
        spectrum[shifted, 2] *= turn.conj()
    inside = slice(BORDER, BORDER + size)
    return torch.fft.irfft2(spectrum, s=(side, side))[..., inside, inside]
