"""Behind the lens: light, sensor, tone curve and JPEG, mostly as compiled loops.

A strip of pixels is worked on at a time.

Noise comes from an integer hash of seed and pixel, and a table: the same bits on every machine.

Letters: B batch, S side of the square picture, n side of the picture as taken.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from prnet.geometry.compiled import cached, inlined
from prnet.synthetic.camera.film import FilmParameters
from prnet.synthetic.srgb import srgb_encode

F = np.float32
LUMA = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709, linear light
STRIP = 64
TONE_LEVELS = 4096
NOISE_BITS = 10
# Rows of a strip, three of each: light, then value; noise.
LIGHT, NOISE, ROWS = 0, 3, 6
RELAXED = {"contract", "reassoc", "arcp", "nsz"}
part = inlined(forceinline=True, error_model="numpy", fastmath=RELAXED)


class Exposure(NamedTuple):
    """How light becomes values in one picture."""

    side: int  # px, of the picture as taken
    saturation: float
    gain: np.ndarray  # (3,), of exposure and white balance
    vignette: float
    read_noise: float
    shot_noise: float
    seed: int  # of the noise, 64 bits
    tone: np.ndarray  # (levels,), over the square root of the light


def expose(
    image: Tensor,  # (B, 3, S, S), behind the lens; written
    film: FilmParameters,  # float32 tensors, leading B
    side: Tensor,  # (B,), px, of the pictures as taken
    seeds: Tensor,  # (B,), int64
) -> None:
    """Light, sensor, tone curve, JPEG, and back to the full side, in place.

    Light: saturation, then exposure and white balance, then less light in the corners. Sensor:
    noise of variance read_noise^2 + shot_noise x.
    """
    exposures = map(
        Exposure,
        side.int().tolist(),
        film.saturation.tolist(),
        (film.white_balance * torch.exp2(film.exposure)[:, None]).numpy(),
        film.vignette.tolist(),
        film.read_noise.tolist(),
        film.shot_noise.tolist(),
        seeds.tolist(),
        tone_tables(film.gamma, film.contrast).numpy(),
    )
    quantiles = noise_quantiles().numpy()
    qualities = film.jpeg_quality.tolist()
    for picture, exposure, quality in zip(image.numpy(), exposures, qualities, strict=True):
        size = picture.shape[-1]
        # A picture as large as asked for is made in its place.
        taken = np.zeros((3, exposure.side, exposure.side), np.float32)
        if exposure.side == size:
            taken = picture
        _expose(picture, exposure, quantiles, taken)
        if quality < 100:
            compress(taken, quality)
        if exposure.side < size:
            for plane, enlarged in zip(taken, picture, strict=True):
                cv2.resize(plane, (size, size), dst=enlarged, interpolation=cv2.INTER_LINEAR)


def compress(picture: np.ndarray, quality: float) -> None:  # (3, n, n), in [0, 1]; written
    """What JPEG leaves of a picture, with chroma at half the side (4:2:0); quality 1 to 100."""
    pixels = np.zeros((*picture.shape[1:], 3), np.uint8)  # BGR
    _to_bytes(picture, pixels)
    options = [cv2.IMWRITE_JPEG_QUALITY, round(quality)]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    file = cv2.imencode(".jpg", pixels, options)[1]
    _from_bytes(cv2.imdecode(file, cv2.IMREAD_COLOR), picture)


@cached()
def _to_bytes(picture: np.ndarray, pixels: np.ndarray) -> None:  # (3, n, n); (n, n, 3), written
    size = len(pixels)
    for row in range(size):
        for column in range(size):
            for channel in range(3):
                pixels[row, column, channel] = np.rint(F(255) * picture[2 - channel, row, column])


@cached()
def _from_bytes(pixels: np.ndarray, picture: np.ndarray) -> None:  # (n, n, 3); (3, n, n), written
    size = len(pixels)
    for row in range(size):
        for column in range(size):
            for channel in range(3):
                picture[2 - channel, row, column] = F(pixels[row, column, channel]) / F(255)


def tone_tables(gamma: Tensor, contrast: Tensor) -> Tensor:  # (B,), (B,)
    """sRGB encoding, gamma and contrast: values, (B, levels), at equal steps of the square root of
    the light.

    They are nearly equal steps of the encoding: the table is within 0.1/255 of the curve.
    """
    level = torch.linspace(0, 1, TONE_LEVELS)
    encoded = srgb_encode(level**2) ** gamma[:, None]
    return (0.5 + contrast[:, None] * (encoded - 0.5)).clamp(0, 1)


def noise_quantiles() -> Tensor:
    """The normal distribution in equal shares, (1024,), variance 1."""
    levels = 1 << NOISE_BITS
    share = (torch.arange(levels, dtype=torch.float64) + 0.5) / levels
    quantiles = torch.special.ndtri(share)
    return (quantiles / quantiles.square().mean().sqrt()).float()


@cached(fastmath=RELAXED)
def _expose(
    image: np.ndarray,  # (3, S, S)
    exposure: Exposure,
    quantiles: np.ndarray,  # (1024,)
    picture: np.ndarray,  # (3, n, n), written
) -> None:
    side, saturation, gain, vignette, read_noise, shot_noise, seed, tone = exposure
    size = image.shape[1]
    key = _mixed(np.uint32(_mixed(np.uint32(seed + 1)) ^ np.uint32(seed >> 32)))
    scale, last = size / side, F(len(tone) - 1)
    saturation, shot, read = F(saturation), F(shot_noise), F(read_noise**2)
    light_0, light_1, light_2 = F(LUMA[0]), F(LUMA[1]), F(LUMA[2])
    strip = np.zeros((ROWS, STRIP), np.float32)
    bits, number = np.zeros(STRIP, np.uint32), np.zeros(STRIP, np.uint32)
    falls = np.zeros(STRIP, np.float32)
    for row in range(side):
        y = min((row + 0.5) * scale - 0.5, size - 1.0)
        down = 2 * y / (size - 1) - 1
        for left in range(0, side, STRIP):
            count = min(STRIP, side - left)
            for pixel in range(count):
                x = min((left + pixel + 0.5) * scale - 0.5, size - 1.0)
                across = 2 * x / (size - 1) - 1
                falls[pixel] = 1 - vignette * (across * across + down * down) / 2
                number[pixel] = row * size + left + pixel + 1
                if scale == 1:
                    for channel in range(3):
                        strip[LIGHT + channel, pixel] = image[channel, row, left + pixel]
                else:
                    _sample(image, x, y, strip, pixel)
            for pixel in range(STRIP):
                bits[pixel] = _mixed(_mixed(number[pixel]) ^ key)
            for channel in range(3):
                for pixel in range(count):
                    level = (bits[pixel] >> (NOISE_BITS * channel)) & ((1 << NOISE_BITS) - 1)
                    strip[NOISE + channel, pixel] = quantiles[level]
            for pixel in range(STRIP):
                red, green = strip[LIGHT, pixel], strip[LIGHT + 1, pixel]
                blue = strip[LIGHT + 2, pixel]
                grey = light_0 * red + light_1 * green + light_2 * blue
                strip[LIGHT, pixel] = falls[pixel] * (grey + saturation * (red - grey))
                strip[LIGHT + 1, pixel] = falls[pixel] * (grey + saturation * (green - grey))
                strip[LIGHT + 2, pixel] = falls[pixel] * (grey + saturation * (blue - grey))
            for channel in range(3):
                factor = gain[channel]
                for pixel in range(STRIP):
                    value = max(factor * strip[LIGHT + channel, pixel], F(0))
                    value += np.sqrt(shot * value + read) * strip[NOISE + channel, pixel]
                    value = last * np.sqrt(min(max(value, F(0)), F(1)))
                    strip[LIGHT + channel, pixel] = np.rint(value)
                for pixel in range(count):
                    level = int(strip[LIGHT + channel, pixel])
                    picture[channel, row, left + pixel] = tone[level]


@part
def _sample(image: np.ndarray, x: float, y: float, strip: np.ndarray, pixel: int) -> None:
    """Bilinear."""
    x, y = max(x, 0.0), max(y, 0.0)
    last = image.shape[1] - 1
    column, row = int(x), int(y)
    beside, below = min(column + 1, last), min(row + 1, last)
    right, down = F(x - column), F(y - row)
    for channel in range(3):
        upper = image[channel, row, column]
        upper += right * (image[channel, row, beside] - upper)
        lower = image[channel, below, column]
        lower += right * (image[channel, below, beside] - lower)
        strip[LIGHT + channel, pixel] = upper + down * (lower - upper)


@part
def _mixed(bits: int) -> int:
    """MurmurHash3's 32-bit finaliser, uint32."""
    bits = np.uint32(bits ^ (bits >> 16))
    bits = np.uint32(bits * 0x85EBCA6B)
    bits = np.uint32(bits ^ (bits >> 13))
    bits = np.uint32(bits * 0xC2B2AE35)
    return np.uint32(bits ^ (bits >> 16))
