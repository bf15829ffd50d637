"""Pictures to look at. Every function returns a new (H, W, 3) uint8 RGB array and changes nothing;
`draw_ced` alone writes a file.

Points may be arrays or tensors on any device, in px of the picture they are drawn on (pixel centres
at integers).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from prnet.geometry.mesh import vertex_normals
from prnet.geometry.rasterize import rasterize, require_mesh

# Jaw, brows, bridge and base of the nose, eyes, lips: first landmark, one past the last, closed.
LANDMARK_LINES = (
    (0, 17, False),
    (17, 22, False),
    (22, 27, False),
    (27, 31, False),
    (31, 36, False),
    (36, 42, True),
    (42, 48, True),
    (48, 60, True),
    (60, 68, True),
)
LINE_COLOUR = (255, 255, 255)
HEADING_COLOUR = (40, 44, 52)
POINT_COLOUR = (0, 220, 60)
MESH_COLOUR = (150, 190, 255)
# Of the head's axes: to the subject's left, up, forward.
AXIS_COLOURS = ((230, 50, 50), (60, 200, 60), (60, 100, 255))
# A mesh whose triangles' boxes cover the picture more often than this is not drawn: a face's cover
# it once, those of an untrained network ten thousand times, which takes seconds to draw.
MOST_COVERS = 100
# Of a map's error in px: black below the first, the lightest colour from the second on.
ERROR_RANGE = (0.5, 256.0)
# OpenCV draws at fractions of a pixel: coordinates in units of 2^-4 px.
SUBPIXEL_BITS = 4


def to_picture(image: Tensor) -> np.ndarray:  # (3, H, W), RGB in [0, 1]
    """A network input as a picture."""
    scaled = (image.detach().float().cpu().clamp(0, 1) * 255).round()
    return scaled.permute(1, 2, 0).to(torch.uint8).numpy()


def draw_landmarks(
    picture: np.ndarray,  # (H, W, 3), uint8
    landmarks: np.ndarray | Tensor,  # (68, 2 or more), order of iBUG
    *,
    stroke: float | None = None,  # px, width of a line; None: by the picture's size
) -> np.ndarray:
    """The 68 landmarks and the lines that join them, drawn at sub-pixel positions.

    Raises:
        ValueError: other than 68 points, or a coordinate that is not finite.
    """
    points = _to_array(landmarks)
    if points.ndim != 2 or points.shape[0] != 68 or points.shape[1] < 2:
        raise ValueError(f"landmarks: got shape {points.shape}, expected (68, 2 or more)")
    if not np.isfinite(points).all():
        raise ValueError("landmarks: hold coordinates that are not finite")
    drawn = _require_picture(picture).copy()
    fixed = _fixed_point(points, drawn)
    stroke = stroke or _stroke(drawn)
    for first, end, closed in LANDMARK_LINES:
        cv2.polylines(
            drawn,
            [fixed[first:end]],
            closed,
            LINE_COLOUR,
            thickness=max(round(stroke), 1),
            lineType=cv2.LINE_AA,
            shift=SUBPIXEL_BITS,
        )
    return draw_points(drawn, points, stroke=stroke)


def draw_points(
    picture: np.ndarray,  # (H, W, 3), uint8
    points: np.ndarray | Tensor,  # (K, 2 or more); NaN is left out
    *,
    stroke: float | None = None,  # px, about half of a dot; None: by the picture's size
) -> np.ndarray:
    """Dots at sub-pixel positions."""
    drawn = _require_picture(picture).copy()
    places = _to_array(points)[:, :2]
    places = places[np.isfinite(places).all(1)]
    radius = round(1.6 * (stroke or _stroke(drawn)) * 2**SUBPIXEL_BITS)
    for x, y in _fixed_point(places, drawn).tolist():
        cv2.circle(drawn, (x, y), radius, POINT_COLOUR, -1, cv2.LINE_AA, SUBPIXEL_BITS)
    return drawn


def draw_axes(
    picture: np.ndarray,  # (H, W, 3), uint8
    origin: np.ndarray,  # (2 or more,)
    axes: np.ndarray,  # (3, 3), from the origin, z toward the camera
    *,
    stroke: float | None = None,  # px, width of a line; None: by the picture's size
) -> np.ndarray:
    """Three arrows from one point, red, green and blue, the one that points away first."""
    drawn = _require_picture(picture).copy()
    ends = origin[:2] + np.stack([np.zeros((3, 2)), axes[:, :2]], 1)  # (3, 2, 2)
    thickness = max(round(stroke or _stroke(drawn)), 1)
    for index in np.argsort(axes[:, -1], kind="stable"):
        start, end = _fixed_point(ends[index], drawn).tolist()
        options = {"line_type": cv2.LINE_AA, "shift": SUBPIXEL_BITS, "tipLength": 0.15}
        cv2.arrowedLine(drawn, start, end, AXIS_COLOURS[index], thickness, **options)
    return drawn


def draw_mesh(
    picture: np.ndarray,  # (H, W, 3), uint8
    vertices: np.ndarray | Tensor,  # (N, 3), z toward the camera
    triangles: Tensor,  # (T, 3), outward in the y-down frame
    *,
    opacity: float = 0.75,
) -> np.ndarray:
    """The mesh over the picture, lit from the camera; back faces and hidden parts are not drawn.
    Of a mesh that is no surface (`MOST_COVERS`) the picture alone is left.

    Raises:
        ValueError: as `prnet.geometry.rasterize.rasterize`.
    """
    height, width = _require_picture(picture).shape[:2]
    mesh = torch.as_tensor(vertices).detach().float().cpu()[None]
    triangles = triangles.cpu()
    require_mesh(mesh, triangles)
    x, y = mesh[0, triangles, 0].clamp(0, width), mesh[0, triangles, 1].clamp(0, height)  # (T, 3)
    boxes = (x.amax(1) - x.amin(1)) * (y.amax(1) - y.amin(1))
    if boxes.sum() > MOST_COVERS * height * width:
        return picture.copy()
    raster = rasterize(mesh, triangles, height=height, width=width, cull_back_faces=True)
    covered = raster.triangle[0] >= 0
    corner_normals = vertex_normals(mesh, triangles)[0, triangles[raster.triangle[0][covered]]]
    facing = (raster.barycentric[0][covered] * corner_normals[..., 2]).sum(-1).clamp(0, 1)
    light = 0.25 + 0.75 * facing.numpy()

    covered = covered.numpy()
    drawn = picture.copy()
    blended = (1 - opacity) * picture[covered] + opacity * light[:, None] * np.array(MESH_COLOUR)
    drawn[covered] = np.rint(blended).astype(np.uint8)
    return drawn


def draw_position_map(position_map: np.ndarray | Tensor) -> np.ndarray:  # (3, H, W), crop px
    """x, y and z as red, green and blue; coordinates outside of 0 to 255 px are clipped."""
    channels = np.clip(np.rint(_to_array(position_map)), 0, 255)
    return np.ascontiguousarray(channels.transpose(1, 2, 0).astype(np.uint8))


def draw_map_error(
    predicted: np.ndarray | Tensor,  # (3, H, W), crop px
    truth: np.ndarray | Tensor,  # (3, H, W), crop px
    *,
    mask: np.ndarray | Tensor,  # (H, W), bool: texels that count
    legend: bool = False,
) -> np.ndarray:
    """The distance between two position maps, from black below 0.5 px to pale yellow at 256.

    The scale is logarithmic, the same at every step of a training: each doubling is a step of
    colour, so that neither a fresh network is all light nor a good one all black. With a `legend`
    the colours of 1, 2, 4 ... 128 px and the mean lie over the lowest rows.
    """
    least, largest = ERROR_RANGE
    distance = np.linalg.norm(_to_array(predicted) - _to_array(truth), axis=0)
    inside = _to_array(mask).astype(bool)
    drawn = _error_colours(np.where(inside, distance, 0))
    if not legend:
        return drawn
    steps = 2.0 ** np.arange(math.log2(least) + 1, math.log2(largest))
    height, width = drawn.shape[:2]
    band = height // 16
    cells = [
        draw_heading(f"{step:g}", width=cell, height=band)
        for step, cell in zip(steps, _shares(width, len(steps)), strict=True)
    ]
    swatches = np.repeat(_error_colours(steps[None]), _shares(width, len(steps)), axis=1)
    mean = f"px, mean {distance[inside].mean():.1f}"
    rows = (np.repeat(swatches, band, axis=0), np.concatenate(cells, 1))
    text = draw_heading(mean, width=width, height=band)
    drawn[height - 3 * band :] = np.concatenate([*rows, text])
    return drawn


def _error_colours(distance: np.ndarray) -> np.ndarray:  # (H, W), px
    """(H, W, 3), uint8 RGB."""
    least, largest = ERROR_RANGE
    share = np.log2(np.clip(distance, least, largest) / least) / math.log2(largest / least)
    coloured = cv2.applyColorMap(np.rint(255 * share).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB)


def _shares(total: int, count: int) -> list[int]:
    """`total` px cut into `count` nearly equal widths."""
    return np.diff(np.linspace(0, total, count + 1).astype(int)).tolist()


def draw_mask(
    picture: np.ndarray,  # (H, W, 3), uint8
    mask: np.ndarray | Tensor,  # (S, S), bool; resampled to the picture
) -> np.ndarray:
    """The picture with everything outside of the mask darkened."""
    height, width = _require_picture(picture).shape[:2]
    inside = _to_array(mask).astype(np.float32)
    inside = cv2.resize(inside, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.rint(picture * (0.25 + 0.75 * inside[:, :, None])).astype(np.uint8)


def draw_heading(text: str, *, width: int, height: int) -> np.ndarray:
    """A dark strip, (height, width, 3), with a line of text in light letters, smaller, then cut
    short, where it would not fit. Letters beyond ASCII, which OpenCV cannot draw, are question
    marks."""
    strip = np.full((height, width, 3), HEADING_COLOUR, np.uint8)
    text = text.encode("ascii", "replace").decode()
    font, margin = cv2.FONT_HERSHEY_SIMPLEX, height // 4
    (full_width, full_height), _ = cv2.getTextSize(text, font, 1.0, 1)
    scale = min(0.5 * height / full_height, (width - 2 * margin) / max(full_width, 1))
    legible = 0.3 * height / full_height
    if scale < legible:
        text = f"{text[: int(len(text) * scale / legible) - 3]}..."
        scale = legible
    place = (margin, round((height + scale * full_height) / 2))
    return cv2.putText(strip, text, place, font, scale, LINE_COLOUR, 1, cv2.LINE_AA)


def tile(pictures: Sequence[np.ndarray], *, columns: int) -> np.ndarray:
    """A contact sheet: row by row, each picture at the top left of a cell as large as the largest.

    Raises:
        ValueError: no picture, or a number of columns below 1.
    """
    if not pictures or columns < 1:
        raise ValueError(f"got {len(pictures)} pictures for {columns} columns, expected at least 1")
    height = max(_require_picture(picture).shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    sheet = np.zeros((rows * height, columns * width, 3), dtype=np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * height, number % columns * width
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def draw_ced(
    curves: Mapping[str, Sequence[float]],  # title -> one error an image
    path: Path | str,
    *,
    limit: float = 10.0,
    reach: float | None = None,  # where the axis ends; None: at the limit
    quantity: str = "NME",
    unit: str = "%",
) -> None:
    """Cumulative error distributions up to `limit`, means in the legend, as PRN's Fig. 5.

    The figure is written to `path`, in the format of its suffix. Where it reaches further, a line
    stands at the limit, beyond which an image is a failure.

    Raises:
        ValueError: a curve without an image.
    """
    # Importing it takes longer than drawing a face, and only curves need it.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.add_subplot()
    reach = max(limit, reach or limit)
    for title, errors in curves.items():
        ordered = np.sort(np.asarray(errors, dtype=np.float64))
        if len(ordered) == 0:
            raise ValueError(f"{title}: no error to draw")
        share = 100 * np.arange(1, len(ordered) + 1) / len(ordered)
        # The curve rises at every error; it stays at its last height up to the limit.
        steps = np.concatenate([[0], ordered, [max(reach, ordered[-1])]])
        heights = np.concatenate([[0], share, [100]])
        axes.step(steps, heights, where="post", label=f"{title}: mean {ordered.mean():.2f} {unit}")
    axes.set(xlim=(0, reach), ylim=(0, 100), xlabel=f"{quantity}, {unit}", ylabel="images, %")
    if reach > limit:
        failures = f"beyond {limit:g} {unit}: failures"
        axes.axvline(limit, color="grey", linestyle="--", label=failures)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


def _fixed_point(points: np.ndarray, picture: np.ndarray) -> np.ndarray:  # (K, 2 or more), px
    """OpenCV's fixed-point coordinates (K, 2), int32."""
    # Points far outside stay outside: their coordinates would overflow.
    limit = 8 * sum(picture.shape[:2])
    return np.rint(np.clip(points[:, :2], -limit, limit) * 2**SUBPIXEL_BITS).astype(np.int32)


def _stroke(picture: np.ndarray) -> float:
    """Width of lines, px: that of one pixel of a picture of 256 px."""
    return max(math.sqrt(picture.shape[0] * picture.shape[1]) / 256, 0.5)


def _to_array(values: np.ndarray | Tensor) -> np.ndarray:
    """Arrays and tensors alike as float64, or bool, arrays."""
    values = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return values if values.dtype == bool else values.astype(np.float64)


def _require_picture(picture: np.ndarray) -> np.ndarray:
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ValueError(f"picture: got {picture.dtype} {picture.shape}, expected uint8 (H, W, 3)")
    return picture
