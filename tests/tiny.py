"""A face of 98 vertices in closed form, and a data folder in the archives' formats made of it.

Its projection is written out in numpy on purpose: it is the oracle of the tests, not the code they
test. Units and frames are the BFM's (micrometres, y up), so real poses fit it.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import scipy.io
import torch
from scipy.spatial import Delaunay

from prnet.geometry.uv import UVLayout

NUM_SHAPE = 4
NUM_EXP = 3
# Lengths of the coefficient vectors in 300W-LP's files.
FILE_SHAPE, FILE_EXP = 199, 29


class TinyFace(NamedTuple):
    """N vertices; float64, indices 0-based."""

    shape_mean: np.ndarray  # (N, 3)
    exp_mean: np.ndarray  # (N, 3)
    shape_basis: np.ndarray  # (S, N, 3)
    exp_basis: np.ndarray  # (E, N, 3)
    triangles: np.ndarray  # (T, 3), inward in the y-up frame, like the BFM's; lips open
    mouth_triangles: np.ndarray  # (M, 3), close the slit
    landmark_index: np.ndarray  # (68,)
    uv_coords: np.ndarray  # (N, 2)
    regions: np.ndarray  # (4, N), bool: nose, eyes, mouth, rest

    def vertices(self, shape_params: np.ndarray, exp_params: np.ndarray) -> np.ndarray:
        """(N, 3) in the model frame; coefficients beyond the bases are ignored."""
        offset = np.tensordot(shape_params[:NUM_SHAPE], self.shape_basis, 1)
        offset = offset + np.tensordot(exp_params[:NUM_EXP], self.exp_basis, 1)
        return self.shape_mean + self.exp_mean + offset


class TinyFit(NamedTuple):
    shape_params: np.ndarray  # (199,), zeros after the first 4
    exp_params: np.ndarray  # (29,), zeros after the first 3
    pose: np.ndarray  # (7,): pitch, yaw, roll, t_x, t_y, t_z, f


def landmark_template() -> np.ndarray:
    """The 68 landmarks of a frontal face as (u, v), in iBUG order: 0 on the left of the image."""

    def ellipse(center: tuple, radii: tuple, count: int) -> np.ndarray:
        """From the left corner over the top to the right corner and back."""
        angle = np.pi - 2 * np.pi * np.arange(count) / count
        return np.stack(
            [center[0] + radii[0] * np.cos(angle), center[1] + radii[1] * np.sin(angle)], -1
        )

    turn = np.linspace(0, np.pi, 17)
    jaw = np.stack([0.5 - 0.42 * np.cos(turn), 0.62 - 0.42 * np.sin(turn)], -1)
    brow_u = np.linspace(0.20, 0.42, 5)
    brow = np.stack([brow_u, 0.78 + 0.04 * np.sin(np.linspace(0.3, np.pi - 0.3, 5))], -1)
    other_brow = brow[::-1] * [-1, 1] + [1, 0]
    bridge = np.stack([np.full(4, 0.5), np.array([0.70, 0.62, 0.54, 0.48])], -1)
    nostrils = np.stack([np.linspace(0.42, 0.58, 5), np.array([0.43, 0.42, 0.41, 0.42, 0.43])], -1)
    eyes = [ellipse((center, 0.68), (0.07, 0.025), 6) for center in (0.31, 0.69)]
    lips = [ellipse((0.5, 0.32), (0.14, 0.06), 12), ellipse((0.5, 0.32), (0.09, 0.02), 8)]
    return np.concatenate([jaw, brow, other_brow, bridge, nostrils, *eyes, *lips])


def tiny_face(seed: int = 0) -> TinyFace:
    landmarks = landmark_template()
    side = np.linspace(0, 1, 7)
    rim = [(u, v) for u in side for v in side if u in (0, 1) or v in (0, 1)]
    inner = [(0.25, 0.93), (0.5, 0.92), (0.75, 0.93), (0.22, 0.5), (0.78, 0.5), (0.3, 0.4)]
    uv_coords = np.concatenate([landmarks, rim, inner])
    u, v = uv_coords.T

    # A half cylinder that leans back at the forehead and the chin, with a nose.
    turn = 1.3 * (2 * u - 1)
    nose = 3.5e4 * np.exp(-(((u - 0.5) / 0.07) ** 2) - ((v - 0.5) / 0.1) ** 2)
    mean = np.stack(
        [
            9e4 * np.sin(turn),
            2.1e5 * (v - 0.5) - 1.5e4,
            1.0e5 * np.cos(turn) - 2e4 * (2 * v - 1) ** 2 + nose,
        ],
        -1,
    )
    exp_mean = np.stack([0 * u, -7.7e3 - 2e3 * (v < 0.35), 9e2 + 0 * u], -1)

    # Smooth fields: low powers of u and v with random weights.
    random = np.random.default_rng(seed)
    powers = np.stack([(2 * u - 1) ** i * (2 * v - 1) ** j for i in range(3) for j in range(3)])
    fields = np.einsum("cpk,pn->cnk", random.normal(size=(NUM_SHAPE + NUM_EXP, 9, 3)), powers)
    fields /= np.linalg.norm(fields, axis=(1, 2), keepdims=True)
    shape_basis = fields[:NUM_SHAPE]
    exp_basis = fields[NUM_SHAPE:] * 500 * np.sqrt(mean.size)  # 0.5 mm rms per unit

    triangles = Delaunay(uv_coords).simplices.astype(np.int64)
    corner = uv_coords[triangles]
    edge_1, edge_2 = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    area = edge_1[:, 0] * edge_2[:, 1] - edge_1[:, 1] * edge_2[:, 0]
    triangles = triangles[np.abs(area) > 1e-9]
    flipped = area[np.abs(area) > 1e-9] > 0
    triangles[flipped] = triangles[flipped][:, ::-1]
    triangles = triangles[np.lexsort(np.sort(triangles, axis=1).T[::-1])]
    slit = ((triangles >= 60) & (triangles < 68)).all(1)  # between the inner lips

    nose_region = (np.abs(u - 0.5) < 0.1) & (v > 0.4) & (v < 0.66)
    eye_region = (np.abs(np.abs(u - 0.5) - 0.19) < 0.1) & (np.abs(v - 0.68) < 0.05)
    mouth_region = (np.abs(u - 0.5) < 0.16) & (np.abs(v - 0.32) < 0.08)
    rest = ~(nose_region | eye_region | mouth_region)
    return TinyFace(
        mean,
        exp_mean,
        shape_basis,
        exp_basis,
        triangles[~slit],
        triangles[slit],
        np.arange(68),
        uv_coords,
        np.stack([nose_region, eye_region, mouth_region, rest]),
    )


def bfm_files(face: TinyFace, *, mouth: bool = False) -> dict[str, dict]:
    """What face3d's three files hold, {file name: {variable: value}}, for a test to change.

    Like the published ones: interleaved columns, 1-based indices, one column per triangle.
    """
    model = {
        "shapeMU": face.shape_mean.reshape(-1, 1).astype(np.float32),
        "shapePC": face.shape_basis.reshape(NUM_SHAPE, -1).T.astype(np.float32),
        "shapeEV": np.ones((NUM_SHAPE, 1), np.float32),
        "expMU": face.exp_mean.reshape(-1, 1).astype(np.float32),
        "expPC": face.exp_basis.reshape(NUM_EXP, -1).T.astype(np.float32),
        "expEV": np.ones((NUM_EXP, 1), np.float32),
        "tri": (face.triangles.T + 1).astype(np.int32),
        "kpt_ind": (face.landmark_index[None] + 1).astype(np.int32),
    }
    if mouth:
        model["tri_mouth"] = (face.mouth_triangles.T + 1).astype(np.int32)
    info = {
        "segbin": face.regions.astype(np.uint8),
        "kpt_ind": (face.landmark_index[None] + 1).astype(np.uint16),
    }
    return {
        "BFM.mat": {"model": model},
        "BFM_info.mat": {"model_info": info},
        "BFM_UV.mat": {"UV": face.uv_coords},
    }


def write_bfm_files(folder: Path, files: dict[str, dict]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        scipy.io.savemat(folder / name, content)
    return folder


def write_tiny_bfm(folder: Path, *, mouth: bool = False) -> Path:
    """BFM.mat, BFM_info.mat and BFM_UV.mat of the tiny face."""
    return write_bfm_files(folder, bfm_files(tiny_face(), mouth=mouth))


def tiny_rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """3DDFA's order, from its clockwise elementary matrices."""
    (c1, c2, c3), (s1, s2, s3) = np.cos([pitch, yaw, roll]), np.sin([pitch, yaw, roll])
    about_x = np.array([[1, 0, 0], [0, c1, s1], [0, -s1, c1]])
    about_y = np.array([[c2, 0, -s2], [0, 1, 0], [s2, 0, c2]])
    about_z = np.array([[c3, s3, 0], [-s3, c3, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def project(vertices: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """(N, 3) model frame -> X, Y, Z of the y-up image plane."""
    return pose[6] * vertices @ tiny_rotation(*pose[:3]).T + pose[3:6]


def tiny_fit(
    random: np.random.Generator,
    *,
    height: int,
    width: int,
    yaw_deg: float,
) -> TinyFit:
    """A face that fills some 2/3 of the picture."""
    shape_params, exp_params = np.zeros(FILE_SHAPE), np.zeros(FILE_EXP)
    shape_params[:NUM_SHAPE] = random.normal(0, 2e4, NUM_SHAPE)
    exp_params[:NUM_EXP] = random.normal(0, 1, NUM_EXP)
    pitch, roll = random.uniform(-0.2, 0.2, 2)
    scale = 0.65 * height / 2.1e5 * random.uniform(0.9, 1.1)
    yaw = np.radians(yaw_deg)
    # The pivot lies behind the face, which swings to one side; the translation takes it back.
    center = [width / 2 + random.uniform(-4, 4) + 6e4 * scale * np.sin(yaw), height / 2, -60]
    pose = np.array([pitch, yaw, roll, *center, scale])
    return TinyFit(shape_params, exp_params, pose)


def landmarks_matlab(face: TinyFace, fit: TinyFit, height: int) -> np.ndarray:
    """(68, 3), as AFLW2000-3D's pt3d_68: (X, h + 1 - Y, Z)."""
    points = project(face.vertices(fit.shape_params, fit.exp_params)[face.landmark_index], fit.pose)
    return points * [1, -1, 1] + [0, height + 1, 0]


def write_tiny_sample(
    folder: Path,
    stem: str,
    face: TinyFace,
    fit: TinyFit,
    *,
    height: int,
    width: int,
    kind: str,  # "aflw2000" (pt3d_68, 21 points of pt2d) or "300w_lp" (68 points of pt2d)
) -> None:
    """STEM.jpg and STEM.mat."""
    folder.mkdir(parents=True, exist_ok=True)
    landmarks = landmarks_matlab(face, fit, height)
    rows, columns = np.mgrid[:height, :width]
    colours = [
        rows * 255 / height,
        columns * 255 / width,
        128 + 100 * np.sin(rows / 9 + columns / 7),
    ]
    picture = np.stack(colours, -1).astype(np.uint8)
    for x, y in landmarks[:, :2] - 1:
        cv2.circle(picture, (round(x), round(y)), 2, (255, 255, 255), -1)
    assert cv2.imwrite(str(folder / f"{stem}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    content = {
        "Pose_Para": fit.pose[None],
        "Shape_Para": fit.shape_params[:, None],
        "Exp_Para": fit.exp_params[:, None],
        "roi": np.array([[1, 1, width, height]], np.int16),
    }
    if kind == "aflw2000":
        content |= {"pt3d_68": landmarks.T, "pt2d": np.full((2, 21), -1.0)}
    else:
        content["pt2d"] = landmarks.T[:2]
    scipy.io.savemat(folder / f"{stem}.mat", content)


AFLW2000_YAWS_DEG = {
    "image00002": -5.0,
    "image00004": 68.0,
    "image00006": 41.0,
    "image00008": 12.0,
    "image00010": -74.0,
    "image00013": -38.0,
}
YAWS_300W_LP_DEG = {
    "AFW/AFW_100_1_0": 3.0,
    "AFW/AFW_100_1_1": 35.0,
    "AFW/AFW_200_1_0": -20.0,
    "AFW/AFW_200_1_1": -66.0,
    "AFW/AFW_300_2_0": 10.0,
    "AFW/AFW_400_1_0": 55.0,
    "IBUG/IBUG_image_001_0": -12.0,
    "IBUG/IBUG_image_001_1": -47.0,
}
HEIGHT, WIDTH = 160, 144


def write_tiny_data_dir(folder: Path) -> Path:
    """A whole data folder: BFM, AFLW2000 (6 pairs), 300W_LP/{AFW,IBUG} (8 pairs)."""
    face = tiny_face()
    write_tiny_bfm(folder / "BFM")
    random = np.random.default_rng(1)
    for root, kind, yaws in (
        (folder / "AFLW2000", "aflw2000", AFLW2000_YAWS_DEG),
        (folder / "300W_LP", "300w_lp", YAWS_300W_LP_DEG),
    ):
        for name, yaw_deg in yaws.items():
            path = root / name
            fit = tiny_fit(random, height=HEIGHT, width=WIDTH, yaw_deg=yaw_deg)
            write_tiny_sample(
                path.parent, path.name, face, fit, height=HEIGHT, width=WIDTH, kind=kind
            )
    return folder


def sphere(radius: float, center: tuple, rings: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles of a closed sphere, outward in a y-down frame such as the image."""
    polar, turn = np.meshgrid(
        np.linspace(0, np.pi, rings + 1), np.arange(2 * rings) * np.pi / rings, indexing="ij"
    )
    points = np.stack(
        [np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)], -1
    )
    index = np.arange((rings + 1) * 2 * rings).reshape(rings + 1, 2 * rings)
    here, right = index[:-1], np.roll(index, -1, 1)[:-1]
    below, below_right = index[1:], np.roll(index, -1, 1)[1:]
    triangles = np.concatenate(
        [np.stack([here, below, right], -1), np.stack([right, below, below_right], -1)]
    )
    vertices = radius * points.reshape(-1, 3) + center
    return vertices, triangles.reshape(-1, 3)


def read_back(layout: UVLayout, position_map: torch.Tensor) -> torch.Tensor:  # (B, C, H, W)
    """A map at the places of the mesh's vertices, bilinear, (B, N, C)."""
    grid = layout.vertex_pixels.to(position_map.dtype) * (2 / (layout.resolution - 1)) - 1
    sampled = torch.nn.functional.grid_sample(
        position_map,
        grid.expand(len(position_map), 1, -1, -1),  # (B, 1, N, 2)
        align_corners=True,
        padding_mode="border",
    )
    return sampled.squeeze(2).transpose(1, 2)
