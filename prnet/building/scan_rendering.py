"""A head scan seen by a camera: its face found, the region that is scored, the pose, the picture.

Letters: N scan points, M points of the face region, P pixels on the scan.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from prnet.building.scan_files import OUTER_EYES, Scan
from prnet.building.scan_fitting import NOSE_TIP, FaceOnScan
from prnet.checks import require_choice
from prnet.geometry import camera
from prnet.geometry.mesh import vertex_normals
from prnet.geometry.rasterize import rasterize

MILLIMETRES = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
REGIONS = ("nose_radius", "uv_mask")
SUPERSAMPLING = 2
# A scan point is of the face's mask if the fitted mask has a vertex this near, mm.
MASK_REACH = 5.0
LEAST_POINTS = 100


class RenderRule(NamedTuple):
    """How scans become images and truth."""

    pitch_deg: tuple[float, ...] = (-15.0, 0.0, 20.0, 25.0)
    yaw_deg: tuple[float, ...] = (-80.0, -40.0, 0.0, 40.0, 80.0)
    scans: tuple[str, ...] = ("frontal1", "frontal2")  # of MICC's, the first that can be used
    unit: str = "mm"  # of the scan files
    upright: bool = True  # angles about the fitted face's axes; False: about the scan's own
    region: str = "nose_radius"
    radius_mm: float = 95.0  # of region nose_radius
    max_points: int = 19000  # of the region, drawn with a fixed seed
    picture_size: int = 512  # px
    picture_scale: float = 1.6  # side of the picture over the mean side of the region's box
    shading: float = 0.3  # share of the brightness that depends on the normal, under a headlight
    background: int = 0  # grey value

    @classmethod
    def from_values(cls, values: dict) -> "RenderRule":
        """From the plain values of a configuration.

        Raises:
            ValueError: a value is none of its choices.
        """
        lists = {key: tuple(values[key]) for key in ("pitch_deg", "yaw_deg", "scans")}
        rule = cls(**{**values, **lists})
        for field, choices in (("unit", MILLIMETRES), ("region", REGIONS)):
            require_choice(f"dataset.{field}", getattr(rule, field), choices)
        positive = ("radius_mm", "max_points", "picture_size", "picture_scale")
        if not all(getattr(rule, field) > 0 for field in positive) or not 0 <= rule.shading <= 1:
            raise ValueError(
                f"dataset: expected {', '.join(positive)} above 0 and shading in 0..1, got {values}"
            )
        if not (rule.pitch_deg and rule.yaw_deg):
            raise ValueError("dataset: pitch_deg and yaw_deg name no pose")
        return rule


class Located(NamedTuple):
    """A scan with its face found; mm, frame of the poses."""

    scan: Scan  # vertices in that frame, about the middle of the region
    region: np.ndarray  # (M, 3)
    outer_eyes: np.ndarray  # (2, 3)


def locate(
    scan: Scan,  # mm
    fit: FaceOnScan,
    rule: RenderRule,
) -> Located:
    """The scan in the frame of its poses, with the region of its face.

    Raises:
        ValueError: the region has fewer than `LEAST_POINTS` points.
    """
    points = scan.vertices
    # Points on a texture seam come twice; the truth has each once.
    candidates = np.unique(points, axis=0)
    if rule.region == "nose_radius":
        kept = np.linalg.norm(candidates - fit.landmarks[NOSE_TIP], axis=1) <= rule.radius_mm
    else:
        kept = cKDTree(fit.mask_points).query(candidates)[0] <= MASK_REACH
    region = candidates[kept]
    if len(region) < LEAST_POINTS:
        raise ValueError(f"{len(region)} points in the face region, expected a dense scan")
    if len(region) > rule.max_points:
        random = np.random.default_rng(0)
        region = region[np.sort(random.choice(len(region), rule.max_points, replace=False))]
    rotation = fit.rotation if rule.upright else np.eye(3)
    middle = (region.min(0) + region.max(0)) / 2
    return Located(
        scan._replace(vertices=(points - middle) @ rotation),
        (region - middle) @ rotation,
        (fit.landmarks[list(OUTER_EYES)] - middle) @ rotation,
    )


def place(
    region: np.ndarray,  # (M, 3), mm
    pitch_deg: float,
    yaw_deg: float,
    rule: RenderRule,
) -> np.ndarray:
    """Weak perspective that frames the projected region in the picture, (4, 4), zero_based px."""
    angles = torch.tensor([pitch_deg, yaw_deg, 0.0], dtype=torch.float64).deg2rad()
    turned = region @ camera.rotation_from_angles(angles).numpy().T
    low, high = turned.min(0), turned.max(0)
    scale = rule.picture_size / (rule.picture_scale * (high - low)[:2].mean())
    middle = (rule.picture_size + 1) / 2  # the centre of pixels 1 to n, y up
    translation = torch.from_numpy(middle - scale * (low + high) / 2)
    return camera.image_from_model(
        torch.tensor(scale, dtype=torch.float64),
        angles,
        translation,
        torch.tensor(float(rule.picture_size), dtype=torch.float64),
    ).numpy()


def render(
    scan: Scan,
    image_from_scan: np.ndarray,  # (4, 4)
    rule: RenderRule,
) -> np.ndarray:
    """The scan as seen by the camera, (S, S, 3) uint8: texture times (1 - s + s |n_z|)."""
    fine = SUPERSAMPLING
    side = fine * rule.picture_size
    vertices = fine * transform(image_from_scan, scan.vertices)
    vertices[:, :2] += (fine - 1) / 2
    points = torch.from_numpy(vertices).float()[None]
    triangles = torch.from_numpy(scan.triangles)
    raster = rasterize(points, triangles, height=side, width=side)
    seen = raster.triangle[0].numpy() >= 0
    corners = scan.triangles[raster.triangle[0].numpy()[seen]]  # (P, 3)
    weights = raster.barycentric[0].numpy()[seen][..., None]  # (P, 3, 1)

    if scan.texture is not None:
        u, v = (scan.uv_coords[corners] * weights).sum(1).T
        height, width = scan.texture.shape[:2]
        # Texture coordinates may repeat beyond [0, 1]; texel centres lie at halves.
        column = np.mod(u, 1.0) * width - 0.5
        row = (1 - np.mod(v, 1.0)) * height - 0.5
        color = [
            map_coordinates(channel, (row, column), np.float64, order=1, mode="nearest")
            for channel in np.moveaxis(scan.texture, 2, 0)
        ]
        color = np.stack(color, 1)
    else:
        color = (scan.colors[corners] * weights).sum(1)
    normals = vertex_normals(points, triangles)[0].numpy()
    facing = np.abs((normals[corners] * weights).sum(1)[:, 2:])
    picture = np.full((side, side, 3), float(rule.background), dtype=np.float32)
    picture[seen] = color * (1 - rule.shading + rule.shading * facing)
    small = cv2.resize(picture, (rule.picture_size,) * 2, interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(small), 0, 255).astype(np.uint8)


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:  # (4, 4), (N, 3)
    return points @ matrix[:3, :3].T + matrix[:3, 3]
