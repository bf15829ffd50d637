"""Compiled loops from a face's coefficients to the texels of its map, in memory.

Letters: B batch, C coefficients, V vertices, P texels decoded, H W = map.
"""

from typing import NamedTuple

import numpy as np

from prnet.geometry.compiled import cached, inlined

LEVELS = 2**15 - 1
BLOCK = 4096  # numbers summed at once, which stay in the nearest cache
NEAR, GROUP = 512, 4  # the same of several rows and bases at once


class FixedPoint(NamedTuple):
    """Bases as whole numbers of half the bytes, for a single face, which takes as long as it takes
    to read them.

    A displacement is off by at most 2^-16 of the largest in its basis and block of vertices;
    float16 would be off by up to 2^-12 of itself.
    """

    numbers: np.ndarray  # (C, N), int16
    steps: np.ndarray  # (C, blocks), float32

    @classmethod
    def of(cls, basis: np.ndarray) -> "FixedPoint":  # (C, N), float32
        starts = np.arange(0, basis.shape[1], BLOCK)
        steps = np.zeros((len(basis), len(starts)), np.float32)
        numbers = np.zeros(basis.shape, np.int16)
        for vector, row, units in zip(basis, numbers, steps, strict=True):
            units[:] = np.maximum.reduceat(np.abs(vector), starts) / LEVELS
            units[units == 0] = 1.0
            row[:] = np.rint(vector / np.repeat(units, BLOCK)[: len(vector)])
        return cls(numbers, steps)

    def weighed(self, coefficients: np.ndarray) -> np.ndarray:  # (B, C)
        """The sum of the bases, (B, N), float32."""
        sums = np.zeros((len(coefficients), self.numbers.shape[1]), np.float32)
        for sample, row in zip(coefficients, sums, strict=True):
            _sum_bases(self.numbers, (sample[:, None] * self.steps).T, row)
        return sums


@cached(fastmath={"contract", "nsz"})
def _sum_bases(
    numbers: np.ndarray,  # (C, N), int16
    block_factors: np.ndarray,  # (blocks, C)
    sums: np.ndarray,  # (N,), 0 at first
) -> None:
    count, length = numbers.shape
    for start in range(0, length, BLOCK):
        end = min(start + BLOCK, length)
        block, factors = sums[start:end], block_factors[start // BLOCK]
        # Eight at once, so that a sum is read and written once for all of them.
        whole = count - count % 8
        for c in range(0, whole, 8):
            f_0, f_1, f_2, f_3 = factors[c], factors[c + 1], factors[c + 2], factors[c + 3]
            f_4, f_5, f_6, f_7 = factors[c + 4], factors[c + 5], factors[c + 6], factors[c + 7]
            n_0, n_1 = numbers[c, start:end], numbers[c + 1, start:end]
            n_2, n_3 = numbers[c + 2, start:end], numbers[c + 3, start:end]
            n_4, n_5 = numbers[c + 4, start:end], numbers[c + 5, start:end]
            n_6, n_7 = numbers[c + 6, start:end], numbers[c + 7, start:end]
            for i in range(end - start):
                sum_03 = (f_0 * np.float32(n_0[i]) + f_1 * np.float32(n_1[i])) + (
                    f_2 * np.float32(n_2[i]) + f_3 * np.float32(n_3[i])
                )
                sum_47 = (f_4 * np.float32(n_4[i]) + f_5 * np.float32(n_5[i])) + (
                    f_6 * np.float32(n_6[i]) + f_7 * np.float32(n_7[i])
                )
                block[i] += sum_03 + sum_47
        for c in range(whole, count):
            factor, row = factors[c], numbers[c, start:end]
            for i in range(end - start):
                block[i] += factor * np.float32(row[i])


def weighed_bases(
    mean: np.ndarray,  # (N,), float32
    basis: np.ndarray,  # (C, N), float32
    coefficients: np.ndarray,  # (B, C), float32
) -> np.ndarray:
    """mean + coefficients @ basis, (B, N). A row is summed in one order whatever stands beside it,
    unlike numpy's product, and in two thirds of the time of torch's, of which that is true, too."""
    rows = len(coefficients)
    # Whole groups of rows and bases alone, so that there is one way to be summed.
    factors = np.pad(coefficients, [(0, -rows % GROUP), (0, -coefficients.shape[1] % GROUP)])
    sums = np.zeros((len(factors), basis.shape[1]), np.float32)
    _sum_groups(mean, basis, factors, sums)
    return sums[:rows]


@cached(fastmath={"contract", "nsz"})
def _sum_groups(
    mean: np.ndarray,  # (N,)
    basis: np.ndarray,  # (C, N)
    factors: np.ndarray,  # (rows, C or more), both multiples of GROUP, 0 beyond C
    sums: np.ndarray,  # (rows, N), written
) -> None:
    length, last = basis.shape[1], len(basis) - 1
    for start in range(0, length, NEAR):
        end = min(start + NEAR, length)
        for row in range(0, len(sums), GROUP):
            s_0, s_1 = sums[row, start:end], sums[row + 1, start:end]
            s_2, s_3 = sums[row + 2, start:end], sums[row + 3, start:end]
            for i in range(end - start):
                s_0[i] = s_1[i] = s_2[i] = s_3[i] = mean[start + i]
            for c in range(0, factors.shape[1], GROUP):
                b_0, b_1 = basis[c, start:end], basis[min(c + 1, last), start:end]
                b_2 = basis[min(c + 2, last), start:end]
                b_3 = basis[min(c + 3, last), start:end]
                f, g, h, k = factors[row], factors[row + 1], factors[row + 2], factors[row + 3]
                f_0, f_1, f_2, f_3 = f[c], f[c + 1], f[c + 2], f[c + 3]
                g_0, g_1, g_2, g_3 = g[c], g[c + 1], g[c + 2], g[c + 3]
                h_0, h_1, h_2, h_3 = h[c], h[c + 1], h[c + 2], h[c + 3]
                k_0, k_1, k_2, k_3 = k[c], k[c + 1], k[c + 2], k[c + 3]
                for i in range(end - start):
                    n_0, n_1, n_2, n_3 = b_0[i], b_1[i], b_2[i], b_3[i]
                    s_0[i] += (f_0 * n_0 + f_1 * n_1) + (f_2 * n_2 + f_3 * n_3)
                    s_1[i] += (g_0 * n_0 + g_1 * n_1) + (g_2 * n_2 + g_3 * n_3)
                    s_2[i] += (h_0 * n_0 + h_1 * n_1) + (h_2 * n_2 + h_3 * n_3)
                    s_3[i] += (k_0 * n_0 + k_1 * n_1) + (k_2 * n_2 + k_3 * n_3)


@inlined(forceinline=True, fastmath={"contract", "nsz"})
def _move_vertices(
    mean: np.ndarray,  # (V, 3), model frame
    offset: np.ndarray,  # (V, 3), of the vertices from their mean
    matrix: np.ndarray,  # (4, 4), affine, from the model frame
    moved: np.ndarray,  # (3, V), written
) -> None:
    x, y, z = moved[0], moved[1], moved[2]
    a_0, a_1, a_2, a_3 = matrix[0, 0], matrix[0, 1], matrix[0, 2], matrix[0, 3]
    b_0, b_1, b_2, b_3 = matrix[1, 0], matrix[1, 1], matrix[1, 2], matrix[1, 3]
    c_0, c_1, c_2, c_3 = matrix[2, 0], matrix[2, 1], matrix[2, 2], matrix[2, 3]
    for vertex in range(len(mean)):
        v_0, v_1 = mean[vertex, 0] + offset[vertex, 0], mean[vertex, 1] + offset[vertex, 1]
        v_2 = mean[vertex, 2] + offset[vertex, 2]
        x[vertex] = a_0 * v_0 + a_1 * v_1 + a_2 * v_2 + a_3
        y[vertex] = b_0 * v_0 + b_1 * v_1 + b_2 * v_2 + b_3
        z[vertex] = c_0 * v_0 + c_1 * v_1 + c_2 * v_2 + c_3


@cached(fastmath={"contract", "nsz"})
def fill_texels(
    mean: np.ndarray,  # (V, 3), model frame
    offsets: np.ndarray,  # (B, V, 3), of the vertices from their mean
    matrices: np.ndarray,  # (B, 4, 4), affine, from the model frame
    corners: np.ndarray,  # (P, 3), uint32, vertices of each texel's triangle
    weights: np.ndarray,  # (P, 3)
    places: np.ndarray,  # (2, P), uint32, cells of the map: as it is, and mirrored
    mirrored: np.ndarray,  # (B,), bool
    maps: np.ndarray,  # (B, 3, H W), written
) -> None:
    """Vertices through their matrix, then interpolated: fewer vertices than texels are moved."""
    moved = np.zeros((3, len(mean)), maps.dtype)
    x, y, z = moved[0], moved[1], moved[2]
    for sample in range(len(offsets)):
        _move_vertices(mean, offsets[sample], matrices[sample], moved)
        cells = places[1] if mirrored[sample] else places[0]
        columns, rows, depths = maps[sample, 0], maps[sample, 1], maps[sample, 2]
        for texel in range(len(corners)):
            i, j, k = corners[texel, 0], corners[texel, 1], corners[texel, 2]
            w_i, w_j, w_k = weights[texel, 0], weights[texel, 1], weights[texel, 2]
            cell = cells[texel]
            columns[cell] = w_i * x[i] + w_j * x[j] + w_k * x[k]
            rows[cell] = w_i * y[i] + w_j * y[j] + w_k * y[k]
            depths[cell] = w_i * z[i] + w_j * z[j] + w_k * z[k]


@cached(fastmath={"contract", "nsz"})
def mark_pixels(
    mean: np.ndarray,  # (V, 3), model frame
    offsets: np.ndarray,  # (B, V, 3), of the vertices from their mean
    matrices: np.ndarray,  # (B, 4, 4), affine, from the model frame
    corners: np.ndarray,  # (P, 3), uint32, vertices of each texel's triangle
    weights: np.ndarray,  # (P, 3)
    pixels: np.ndarray,  # (B, S, S), bool, written
) -> None:
    """As `fill_texels` without depth: the pixels that texels fall into, from outside the border."""
    moved = np.zeros((3, len(mean)), weights.dtype)
    x, y, last = moved[0], moved[1], pixels.shape[-1] - 1
    for sample in range(len(offsets)):
        _move_vertices(mean, offsets[sample], matrices[sample], moved)
        marked = pixels[sample]
        for texel in range(len(corners)):
            i, j, k = corners[texel, 0], corners[texel, 1], corners[texel, 2]
            w_i, w_j, w_k = weights[texel, 0], weights[texel, 1], weights[texel, 2]
            column = w_i * x[i] + w_j * x[j] + w_k * x[k]
            row = w_i * y[i] + w_j * y[j] + w_k * y[k]
            marked[int(min(max(row, 0), last)), int(min(max(column, 0), last))] = True
