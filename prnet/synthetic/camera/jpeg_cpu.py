"""`jpeg.compress` of one picture as compiled loops, for a CPU.

Letters: n side of the square picture. A band is eight rows of blocks' pixels, at most `BAND`
columns of them at a time, in buffers whose strides a compiler knows.
"""

import math

import numba
import numpy as np

from prnet.synthetic.camera.jpeg import RGB_FROM_CHROMA, YCBCR_FROM_RGB

F = np.float32
BAND = 64
# Coefficient k of the orthonormal DCT-II of eight values x_j is SCALES[k] sum_j COSINES[k, j] x_j.
# So split, the coefficients that are often a half of a step, k = 0 and 4, are without rounding.
SCALES = np.array([math.sqrt(1 / 8) if k % 4 == 0 else 1 / 2 for k in range(8)])
COSINES = np.array([[math.cos(math.pi * k * (2 * j + 1) / 16) for j in range(8)] for k in range(8)])
COSINES[4] = np.sign(COSINES[4])
SCALES_2D = np.outer(SCALES, SCALES).astype(np.float32)
COSINES = COSINES.astype(np.float32)
BACK = np.ascontiguousarray(COSINES.T)
FROM_RGB = np.array(YCBCR_FROM_RGB, np.float32) * F(255)
FROM_CHROMA = np.array(RGB_FROM_CHROMA, np.float32)
OPTIONS = {"cache": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}


@numba.njit(**OPTIONS)
def compress_cpu(
    image: np.ndarray,  # (3, n, n), in [0, 1]; written
    luma_steps: np.ndarray,  # (64,), of `jpeg.quantisation_table`
    chroma_steps: np.ndarray,  # (64,)
) -> None:
    """What JPEG leaves of a picture, in place; n a multiple of 16."""
    size = image.shape[1]
    half = size // 2
    luma = np.zeros((size, size), np.float32)
    chroma = np.zeros((2, half, half), np.float32)
    for row in range(size):
        for column in range(size):
            value = FROM_RGB[0, 0] * image[0, row, column]
            value += FROM_RGB[0, 1] * image[1, row, column]
            value += FROM_RGB[0, 2] * image[2, row, column]
            luma[row, column] = np.rint(value) - F(128)
    for row in range(half):
        for column in range(half):
            red = _mean(image[0], row, column)
            green = _mean(image[1], row, column)
            blue = _mean(image[2], row, column)
            for part in range(2):
                value = FROM_RGB[1 + part, 0] * red + FROM_RGB[1 + part, 1] * green
                chroma[part, row, column] = np.rint(value + FROM_RGB[1 + part, 2] * blue)
    _quantise(luma, luma_steps)
    _quantise(chroma[0], chroma_steps)
    _quantise(chroma[1], chroma_steps)
    _write(image, luma, chroma)


@numba.njit(forceinline=True, **OPTIONS)
def _mean(plane: np.ndarray, row: int, column: int) -> float:
    """Of two by two pixels."""
    upper = plane[2 * row, 2 * column] + plane[2 * row, 2 * column + 1]
    lower = plane[2 * row + 1, 2 * column] + plane[2 * row + 1, 2 * column + 1]
    return F(0.25) * (upper + lower)


@numba.njit(**OPTIONS)
def _quantise(plane: np.ndarray, steps: np.ndarray) -> None:  # (h, w), written; (64,)
    """Blocks of 8 x 8 to their cosine coefficients, rounded to the steps, and back."""
    first, second = np.zeros((8, BAND), np.float32), np.zeros((8, BAND), np.float32)
    # The coefficients of a block stand transposed.
    step, scale = np.ones((8, BAND), np.float32), np.ones((8, BAND), np.float32)
    for k in range(8):
        for column in range(BAND):
            step[k, column] = steps[8 * (column % 8) + k]
            scale[k, column] = SCALES_2D[k, column % 8]
    height, width = plane.shape
    for top in range(0, height, 8):
        for left in range(0, width, BAND):
            count = min(BAND, width - left)
            for k in range(8):
                for column in range(count):
                    first[k, column] = plane[top + k, left + column]
            _multiply(COSINES, first, second)
            _transpose(second, first)
            _multiply(COSINES, first, second)
            for k in range(8):
                for column in range(BAND):
                    whole = np.rint(scale[k, column] * second[k, column] / step[k, column])
                    second[k, column] = whole * step[k, column] * scale[k, column]
            _multiply(BACK, second, first)
            _transpose(first, second)
            _multiply(BACK, second, first)
            for k in range(8):
                for column in range(count):
                    plane[top + k, left + column] = first[k, column]


@numba.njit(forceinline=True, **OPTIONS)
def _multiply(matrix: np.ndarray, band: np.ndarray, product: np.ndarray) -> None:
    for k in range(8):
        for column in range(BAND):
            total = matrix[k, 0] * band[0, column] + matrix[k, 1] * band[1, column]
            total += matrix[k, 2] * band[2, column] + matrix[k, 3] * band[3, column]
            total += matrix[k, 4] * band[4, column] + matrix[k, 5] * band[5, column]
            total += matrix[k, 6] * band[6, column] + matrix[k, 7] * band[7, column]
            product[k, column] = total


@numba.njit(forceinline=True, **OPTIONS)
def _transpose(band: np.ndarray, turned: np.ndarray) -> None:
    """Every block of eight columns."""
    for left in range(0, BAND, 8):
        for k in range(8):
            for j in range(8):
                turned[k, left + j] = band[j, left + k]


@numba.njit(**OPTIONS)
def _write(
    image: np.ndarray,  # (3, n, n), written
    luma: np.ndarray,  # (n, n)
    chroma: np.ndarray,  # (2, n / 2, n / 2)
) -> None:
    """To RGB, chroma enlarged bilinearly."""
    size, half = len(luma), len(luma) // 2
    scale = F(1 / 255)
    level = np.zeros((2, half + 2), np.float32)  # with its ends repeated
    fine = np.zeros((2, size), np.float32)
    for row in range(size):
        near = row // 2
        far = min(max(near + (1 if row % 2 else -1), 0), half - 1)
        for part in range(2):
            for column in range(half):
                value = F(0.75) * chroma[part, near, column] + F(0.25) * chroma[part, far, column]
                level[part, column + 1] = value
            level[part, 0], level[part, half + 1] = level[part, 1], level[part, half]
            for column in range(half):
                middle = F(0.75) * level[part, column + 1]
                fine[part, 2 * column] = middle + F(0.25) * level[part, column]
                fine[part, 2 * column + 1] = middle + F(0.25) * level[part, column + 2]
        for channel in range(3):
            blue, red = FROM_CHROMA[channel, 0], FROM_CHROMA[channel, 1]
            for column in range(size):
                value = luma[row, column] + F(128)
                value += blue * fine[0, column] + red * fine[1, column]
                image[channel, row, column] = min(max(scale * value, F(0)), F(1))
