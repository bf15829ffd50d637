"""Where things are on a face's texture, and brushes to draw them with.

Points are (column, row) in px of a square texture over the face's UV window, the same window and
rows as its position map. Lengths are in units of the distance between the outer corners of the
eyes, so nothing depends on the resolution or on the face's own UV layout.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch

from prnet.faces.embedded import Head, window_triangles
from prnet.faces.face import Face

# Brushes draw at this multiple of the texture's resolution, then average.
OVERSAMPLING = 4
FRACTION_BITS = 4


class SkinChart(NamedTuple):
    """The places of one face on a texture of `size` px. (H, W) = (size, size), float32."""

    size: int
    unit: float  # px
    landmarks: np.ndarray  # (68, 2)
    lips: np.ndarray  # (H, W), in [0, 1]
    eyelids: np.ndarray  # (H, W), in [0, 1]
    ears: np.ndarray  # (H, W), in [0, 1]

    def between(self, first: int, second: int, share: float) -> np.ndarray:
        """The point at `share` of the way from one landmark to another, (2,)."""
        return (1 - share) * self.landmarks[first] + share * self.landmarks[second]

    def offset(self, landmark: int, right: float, down: float) -> np.ndarray:
        """A landmark moved by so many units, (2,)."""
        return self.landmarks[landmark] + self.unit * np.array([right, down])

    def blob(
        self,
        center: np.ndarray,  # (2,)
        radii: tuple[float, float],  # units
    ) -> np.ndarray:
        """A Gaussian of height 1, (H, W)."""
        pixel = np.arange(self.size, dtype=np.float32)
        column = np.exp(-(((pixel - center[0]) / (radii[0] * self.unit)) ** 2))
        row = np.exp(-(((pixel - center[1]) / (radii[1] * self.unit)) ** 2))
        return np.outer(row, column).astype(np.float32)

    def blur(self, field: np.ndarray, sigma: float) -> np.ndarray:  # (H, W); units
        return cv2.GaussianBlur(field, (0, 0), max(sigma * self.unit, 0.1))

    def canvas(self) -> np.ndarray:
        """An empty sheet for brushes."""
        return np.zeros((self.size * OVERSAMPLING,) * 2, np.uint8)

    def finish(self, canvas: np.ndarray) -> np.ndarray:
        """A sheet brought to the texture's resolution, (H, W) in [0, 1]."""
        reduced = cv2.resize(canvas, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return reduced.astype(np.float32) / 255

    def fill(self, canvas: np.ndarray, polygon: Sequence[np.ndarray]) -> None:  # points (2,)
        cv2.fillPoly(canvas, [_fixed(np.stack(polygon))], 255, cv2.LINE_AA, FRACTION_BITS)

    def region(self, polygon: Sequence[np.ndarray], softness: float = 0.0) -> np.ndarray:
        """A polygon with an edge that fades over some `softness` units, (H, W)."""
        sheet = np.zeros((self.size, self.size), np.uint8)
        points = np.rint(np.stack(polygon) * 2**FRACTION_BITS).astype(np.int32)
        cv2.fillPoly(sheet, [points], 255, cv2.LINE_AA, FRACTION_BITS)
        return self.blur(sheet.astype(np.float32) / 255, softness)

    def line(
        self,
        canvas: np.ndarray,
        path: np.ndarray,  # (K, 2)
        width: float,  # units
        strength: float = 1.0,
    ) -> None:
        """A line of even width."""
        thickness = max(1, round(width * self.unit * OVERSAMPLING))
        shade = round(255 * strength)
        cv2.polylines(canvas, [_fixed(path)], False, shade, thickness, cv2.LINE_AA, FRACTION_BITS)

    def strokes(
        self,
        canvas: np.ndarray,
        roots: np.ndarray,  # (K, 2)
        directions: np.ndarray,  # (K, 2), of any length
        lengths: np.ndarray,  # (K,), units
        *,
        bend: np.ndarray,  # (K,), how far the tip turns aside, of the length
        shades: tuple[float, ...] = (0.55, 0.8, 1.0),
        thickness: int = 1,  # px of the canvas
    ) -> None:
        """Hairs: bent lines from root to tip, a few shades of them."""
        along = directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-6)
        along = along * (lengths * self.unit)[:, None]
        aside = np.stack([-along[:, 1], along[:, 0]], -1) * bend[:, None]
        paths = np.stack([roots, roots + 0.5 * along + 0.25 * aside, roots + along + aside], 1)
        paths = _fixed(paths)
        for start, shade in enumerate(shades):
            hairs = list(paths[start :: len(shades)])
            value = round(255 * shade)
            cv2.polylines(canvas, hairs, False, value, thickness, cv2.LINE_AA, FRACTION_BITS)


def skin_chart(head: Head, face: Face, size: int) -> SkinChart:
    """The chart of a head whose part in the window is `face`, at some resolution."""
    kept = torch.unique(head.triangles[window_triangles(head)])  # the vertices of `face`
    masks = torch.stack([head.masks[name][kept] for name in ("lips", "eyelids", "ears")], -1)
    maps = face.uv.position_map(masks[None])[0].numpy()  # (3, R, R)
    resolution = face.uv.resolution
    if resolution != size:
        maps = np.stack([cv2.resize(field, (size, size)) for field in maps])
    pixels = face.uv.vertex_pixels[face.landmark_index].numpy().astype(np.float64)
    landmarks = pixels * (size - 1) / (resolution - 1)
    unit = float(np.linalg.norm(landmarks[45] - landmarks[36]))
    return SkinChart(size, unit, landmarks, *(np.clip(field, 0, 1) for field in maps))


def along_path(path: np.ndarray, share: np.ndarray) -> np.ndarray:  # (K, 2); (M,), in [0, 1]
    """Points on a polyline by the share of its length, (M, 2)."""
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    position = np.concatenate([[0], np.cumsum(steps)]) / steps.sum()
    return np.stack([np.interp(share, position, path[:, axis]) for axis in range(2)], -1)


def smooth_path(points: Sequence[np.ndarray], count: int = 24) -> np.ndarray:
    """A smooth curve near a few points, from the first to the last, (count, 2)."""
    points = np.stack(points)
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    position = np.linspace(1, len(points), count)
    first = np.minimum(position.astype(int), len(points) - 1)
    share = (position - first)[:, None]
    before, start, end, after = (padded[first + shift] for shift in (-1, 0, 1, 2))
    # Catmull-Rom.
    return 0.5 * (
        2 * start
        + (end - before) * share
        + (2 * before - 5 * start + 4 * end - after) * share**2
        + (3 * start - before - 3 * end + after) * share**3
    )


def _fixed(points: np.ndarray) -> np.ndarray:  # (..., 2), px of the texture
    """Canvas coordinates in the fixed point that OpenCV draws with."""
    canvas = (points + 0.5) * OVERSAMPLING - 0.5
    return np.rint(canvas * 2**FRACTION_BITS).astype(np.int32)
