"""Face profiling: one photo and its fit, turned about the head's own vertical axis.

The fit's mesh carries the photo over the face. Around it a coarse mesh of anchors carries the rest:
on the face's outline it moves with the face, next to it (hair, neck) it turns in depth as far as
its neighbours let it, at the picture's border it stays. That is a continuous image of the whole
picture with its border fixed, so it leaves no hole.

Letters: N vertices, T triangles, H W picture, A anchors.

Source: face profiling of 3DDFA (Zhu et al., CVPR 2016, section 4), which made 300W-LP; SADRNet
(section III-E) takes it past profile.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from scipy.spatial import Delaunay, cKDTree
from torch import Tensor

from prnet.datasets.fits import decode_vertices, fit_matrix
from prnet.faces.face import Face
from prnet.geometry import camera
from prnet.geometry.mesh import vertex_normals
from prnet.geometry.rasterize import Raster, rasterize
from prnet.sample import Fit
from prnet.synthetic.camera.pose import angles_of

# Seen from farther above or below, a head's yaw and roll are nearly the same turn.
LARGEST_PITCH_DEG = 75.0
# Back of ears and neck, from the first to the second z of the model's normal: where the photo does
# not show it, the picture's surroundings are drawn there, since it is hair more often than skin.
BACK = (-0.2, -0.5)
SMALLEST_FACE = 24.0  # px, mean side of the landmarks' box
# Share of the photo's resolution across a surface below which it is not used, and from which it is.
# Below, outlines that are off by a pixel would be smeared over cheeks.
FORESHORTENING = (0.15, 0.4)
# A point this far behind the surface is hidden, share of the face's side.
DEPTH_TOLERANCE = 0.01
SOFT_EDGE = 0.6  # px, standard deviation
# Width of the blend between the photo and the colours that stand in for it, share of the side.
SEAM = 0.025
# Of the anchors, shares of the face's side: their spacing, how far from the outline they turn with
# the head, and at which distance their depth no longer falls.
ANCHOR_STEP = 0.07
TURNING_RANGE = 0.2
DEPTH_RANGE = 0.5
# Stiffness of an anchor that must not leave its place, in units of the springs between anchors.
PINNED = 1e6


class HeadPose(NamedTuple):
    """R = Rz(roll) Rx(pitch) Ry(yaw): the head turns about its own axis, which is tilted. rad."""

    yaw: float  # azimuth of the camera about the head's axis: any size, and additive under turns
    pitch: float
    roll: float


def head_pose(fit: Fit) -> HeadPose:
    """The head's pose with the turn about its own axis first, signs as `prnet.geometry.camera`.

    Its yaw is the fit's own where pitch or roll is 0, and passes 90 degrees without a jump.
    """
    rotation = camera.rotation_from_angles(torch.from_numpy(fit.angles)).numpy()
    return HeadPose(
        yaw=math.atan2(rotation[2, 0], rotation[2, 2]),
        pitch=math.asin(np.clip(-rotation[2, 1], -1, 1)),
        roll=math.atan2(rotation[0, 1], rotation[1, 1]),
    )


def require_turnable(fit: Fit, landmarks: np.ndarray, height: int, width: int) -> None:
    """Raise ValueError unless the fit is of a face that is there to be turned.

    `landmarks` are (68, 3), image px.
    """
    if fit.scale < 0:
        raise ValueError(f"scale {fit.scale:g} is negative: the fit is of a mirrored face")
    pitch_deg = math.degrees(head_pose(fit).pitch)
    if abs(pitch_deg) > LARGEST_PITCH_DEG:
        raise ValueError(
            f"the head is seen {pitch_deg:.0f} degrees from above or below, expected at most "
            f"{LARGEST_PITCH_DEG:g}: a turn about its axis does not show another side"
        )
    center, side = camera.box_from_points(torch.from_numpy(landmarks))
    if not side >= SMALLEST_FACE:
        raise ValueError(f"the face spans {side:.3g} px, expected at least {SMALLEST_FACE:g}")
    if not (0 <= center[0] < width and 0 <= center[1] < height):
        raise ValueError(
            f"the face's centre ({center[0]:.0f}, {center[1]:.0f}) px lies outside of the picture "
            f"of {width} x {height} px"
        )


def turn_fit(
    fit: Fit,
    face: Face,
    turn: float,  # rad, added to the head's yaw
    *,
    height: int,
    width: int,
) -> Fit:
    """The fit of the same head, turned about the axis of its model frame: R' = R Ry(turn).

    The mean of the vertices stays where it is, unless landmarks would leave a picture they were in.
    The coefficients are copied. Angles are in 3DDFA's order and pass 90 degrees of yaw.
    """
    pose = head_pose(fit)
    angles = angles_of(
        torch.tensor([[pose.yaw + turn, 0.0, pose.pitch, pose.roll]], dtype=torch.float64)
    )[0]
    vertices = decode_vertices(face.morphable_model, fit).double()
    center = vertices.mean(0)
    before, after = (
        camera.rotation_from_angles(angles) for angles in (torch.from_numpy(fit.angles), angles)
    )
    translation = torch.from_numpy(fit.translation) + fit.scale * (before - after) @ center
    turned = fit._replace(angles=angles.numpy(), translation=translation.numpy())

    landmarks = vertices[face.landmark_index]
    old, new = (
        camera.transform_points(fit_matrix(f, height), landmarks)[:, :2].numpy()
        for f in (fit, turned)
    )
    low = np.minimum(old.min(0), 0) - new.min(0)
    high = np.maximum(old.max(0), [width - 1, height - 1]) - new.max(0)
    # A face as wide as the picture cannot be moved into it.
    shift = np.where(low <= high, np.clip(0, low, high), 0)
    return turned._replace(translation=turned.translation + [shift[0], -shift[1], 0])


def turn_photo(
    photo: np.ndarray,  # (H, W, 3), uint8 RGB
    fit: Fit,
    turned: Fit,  # of the same coefficients
    face: Face,
) -> np.ndarray:
    """The photo as it would look with the head of `fit` posed as `turned`, (H, W, 3) uint8.

    Raises:
        ValueError: the head of `fit` is nowhere in the photo.
    """
    height, width = photo.shape[:2]
    vertices = decode_vertices(face.morphable_model, fit).double()
    image_from_model = fit_matrix(fit, height)
    turned_from_model = fit_matrix(turned, height)
    before = camera.transform_points(image_from_model, vertices).float()
    after = camera.transform_points(turned_from_model, vertices).float()
    seen, drawn = (
        rasterize(points[None], face.triangles, height=height, width=width, cull_back_faces=True)
        for points in (before, after)
    )
    if not (seen.triangle >= 0).any():
        raise ValueError("the head of the fit lies outside of the photo: there is nothing to turn")
    turned_from_image = turned_from_model @ camera.invert_affine(image_from_model)
    background = _background(photo, seen, turned_from_image.numpy())
    mask = (drawn.triangle[0] >= 0).numpy()
    if not mask.any():
        return background
    colour, trust = _face_colour(photo, before, after, seen, drawn, face)
    # The face's edge is as soft as the photo's; where nothing moved both layers are the photo.
    cover = _blur(mask.astype(np.float32), SOFT_EDGE)
    beyond = _blur(colour * mask[..., None], SOFT_EDGE) / np.maximum(cover, 1e-6)[..., None]
    colour = np.where(mask[..., None], colour, beyond)
    # Triangles that are outward in the image turn inward in the model frame.
    forward = -vertex_normals(vertices[None], face.triangles)[0, :, 2:].float()
    back = _ramp(_at_pixels(forward, drawn, face.triangles)[..., 0], *BACK)
    cover *= 1 - back * (1 - trust)
    blended = background + cover[..., None] * (colour - background)
    return np.clip(np.rint(blended), 0, 255).astype(np.uint8)


def _face_colour(
    photo: np.ndarray,  # (H, W, 3), uint8
    before: Tensor,  # (N, 3), image px of the photo
    after: Tensor,  # (N, 3), image px of the new picture
    seen: Raster,  # of `before`
    drawn: Raster,  # of `after`
    face: Face,
) -> tuple[np.ndarray, np.ndarray]:
    """Colour of the face's pixels, (H, W, 3) float32: from the photo where it shows them, else from
    the other side of the face, else spread from around; and the share (H, W) that is not spread."""
    mask = (drawn.triangle[0] >= 0).numpy()
    # The farthest around: beside a steep slope the pixel's own depth is not the point's.
    depth = cv2.erode(seen.depth[0].numpy(), np.ones((3, 3), np.uint8))
    side = math.sqrt((seen.triangle[0] >= 0).sum())
    area = _screen_areas(after, face.triangles)
    triangle = drawn.triangle[0].clamp(min=0)
    sources = [(torch.arange(len(before)), 1)]
    if face.mirror_index is not None:
        sources.append((face.mirror_index, -1))  # a mirrored triangle runs the other way round
    colour, trust = np.zeros(photo.shape, np.float32), np.zeros(photo.shape[:2], np.float32)
    for source, sign in sources:
        x, y, z = np.moveaxis(_at_pixels(before[source], drawn, face.triangles), -1, 0)
        share = sign * _screen_areas(before[source], face.triangles) / area
        surface = _sample(depth, x, y, cv2.INTER_NEAREST)
        usable = np.where(mask, _ramp(share[triangle].numpy(), *FORESHORTENING), 0)
        usable *= z >= surface - DEPTH_TOLERANCE * side
        height, width = depth.shape
        usable *= (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
        usable = _softened(usable.astype(np.float32), mask, SEAM * side)
        added = (1 - trust) * usable
        colour += added[..., None] * _sample(photo, x, y, cv2.INTER_CUBIC)
        trust += added
    return colour + (1 - trust)[..., None] * _spread(colour, trust), trust


def _background(
    photo: np.ndarray,  # (H, W, 3), uint8
    seen: Raster,  # of the face in the photo
    turned_from_image: np.ndarray,  # (4, 4), image px of the photo -> of the new picture
) -> np.ndarray:
    """The whole photo, carried by the anchors; what lies beside the face covers what it hid."""
    height, width = photo.shape[:2]
    mask = (seen.triangle[0] >= 0).numpy().astype(np.uint8)
    side = math.sqrt(mask.sum())
    step = ANCHOR_STEP * side
    # An open mouth may be a hole in the mesh, with an outline of its own. Specks do not count.
    outlines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    longest = max(outlines, key=len)
    outlines = [line for line in outlines if line is longest or len(line) > step]
    inside = cv2.fillPoly(np.zeros_like(mask), outlines, 1)  # an odd number of times: not the holes
    away = cv2.distanceTransform(1 - inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)

    columns, rows = (
        np.rint(np.linspace(0, size - 1, max(round(size / step), 1) + 1)).astype(int)
        for size in (width, height)
    )
    grid = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
    outline = np.concatenate([line[:: max(round(step / 4), 1), 0] for line in outlines])
    anchors = np.concatenate([outline, grid])  # (A, 2)
    on_border = ((anchors == 0) | (anchors == [width - 1, height - 1])).any(1)
    distance = away[anchors[:, 1], anchors[:, 0]]
    on_outline = np.arange(len(anchors)) < len(outline)
    kept = np.where(on_outline, ~on_border, on_border | (distance > step / 2))
    anchors, distance = anchors[kept], distance[kept]
    on_border, on_outline = on_border[kept], on_outline[kept]

    # Depth of the outline nearby, falling back with the distance as a head does.
    near, nearest = cKDTree(outline).query(anchors, k=min(8, len(outline)))
    closeness = 1 / (near.reshape(len(anchors), -1) + 1)
    depth = seen.depth[0].numpy()[outline[:, 1], outline[:, 0]][nearest].reshape(closeness.shape)
    z = (closeness * depth).sum(1) / closeness.sum(1)
    z -= np.minimum(distance, DEPTH_RANGE * side)
    points = np.concatenate([anchors, z[:, None]], 1) @ turned_from_image[:3, :3].T
    turned = (points + turned_from_image[:3, 3])[:, :2] - anchors
    turned[on_border] = 0
    stiffness = np.exp(-((distance / (TURNING_RANGE * side)) ** 2))
    pinned = on_outline | on_border
    triangles = Delaunay(anchors).simplices.astype(np.int64)
    moved = anchors + np.where(
        pinned[:, None],
        turned,
        _relaxed(turned, np.where(pinned, PINNED, stiffness), triangles),
    )

    # What was near to the face stays before what was far; what was inside it, behind all.
    middle = np.rint(anchors[triangles].mean(1)).astype(int)
    hidden = inside[middle[:, 1], middle[:, 0]].astype(bool)
    triangles[hidden] += len(anchors)
    layers = np.concatenate([-distance, np.full(len(anchors), -2.0 * (height + width))])
    mesh = np.concatenate([np.tile(moved, (2, 1)), layers[:, None]], 1)
    mesh, faces = torch.from_numpy(mesh).float(), torch.from_numpy(triangles)
    raster = rasterize(mesh[None], faces, height=height, width=width)
    source = torch.from_numpy(np.tile(anchors, (2, 1))).float()
    x, y = np.moveaxis(_at_pixels(source, raster, faces), -1, 0)
    return _sample(photo, x, y, cv2.INTER_CUBIC)


def _relaxed(
    wanted: np.ndarray,  # (A, 2), px
    stiffness: np.ndarray,  # (A,), > 0 for at least one
    triangles: np.ndarray,  # (M, 3)
) -> np.ndarray:
    """Displacements d that minimise sum_edges |d_a - d_b|^2 + sum_a stiffness_a |d_a - wanted_a|^2,
    (A, 2)."""
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, ::2]]))
    first, second = np.unique(edges, axis=0).T
    count = len(wanted)
    links = scipy.sparse.coo_array((np.ones(len(first)), (first, second)), (count, count))
    links = links + links.T
    matrix = scipy.sparse.diags_array(links.sum(1) + stiffness) - links
    return scipy.sparse.linalg.splu(matrix.tocsc()).solve(stiffness[:, None] * wanted)


def _at_pixels(values: Tensor, raster: Raster, triangles: Tensor) -> np.ndarray:  # (N, C)
    """Values of the vertices interpolated over the first picture, (H, W, C) float32; 0 where
    none."""
    corners = triangles[raster.triangle[0].clamp(min=0)]  # (H, W, 3)
    return (values[corners] * raster.barycentric[0][..., None]).sum(2).numpy()


def _screen_areas(points: Tensor, triangles: Tensor) -> Tensor:  # (N, 3), (T, 3)
    """Twice the area of every triangle as it is seen, (T,) px^2; negative from behind."""
    corners = points[triangles, :2]  # (T, 3, 2)
    edge_1, edge_2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return edge_1[:, 0] * edge_2[:, 1] - edge_1[:, 1] * edge_2[:, 0]


def _sample(picture: np.ndarray, x: np.ndarray, y: np.ndarray, mode: int) -> np.ndarray:
    """A picture (H, W) or (H, W, C) at the points x, y (H, W) px, as float32; the border goes
    on."""
    x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
    sampled = cv2.remap(picture, x, y, mode, borderMode=cv2.BORDER_REPLICATE)
    return sampled.astype(np.float32)


def _ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 up to `low`, 1 from `high` on; `low` may be the larger one."""
    return np.clip((values - low) / (high - low), 0, 1)


def _blur(values: np.ndarray, deviation: float) -> np.ndarray:
    return cv2.GaussianBlur(values, (0, 0), deviation)


def _softened(weights: np.ndarray, mask: np.ndarray, deviation: float) -> np.ndarray:
    """Weights (H, W) in [0, 1] that fall to 0 gradually, inside what they were; 1 stays 1 where all
    of the mask around has it."""
    inside = mask.astype(np.float32)
    around = _blur(weights * inside, deviation) / np.maximum(_blur(inside, deviation), 1e-6)
    return np.minimum(weights, np.clip(2 * around - 1, 0, 1)) * inside


def _spread(weighted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3), times their weights (H, W), spread to where weights are 0.

    Halves the picture until it is one pixel; on the way back each level fills what the finer lacks.
    """
    height, width = weights.shape
    if height == width == 1:
        return weighted / np.maximum(weights, 1e-6)[..., None]
    size = (max(width // 2, 1), max(height // 2, 1))
    coarse_weights = cv2.resize(weights, size, interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(weighted, size, interpolation=cv2.INTER_AREA).reshape(*size[::-1], 3)
    coarse_weights = coarse_weights.reshape(size[::-1])
    # A coarser pixel counts as known as soon as a quarter of it is.
    gain = np.minimum(4 * coarse_weights, 1) / np.maximum(coarse_weights, 1e-6)
    below = _spread(coarse * gain[..., None], coarse_weights * gain)
    below = cv2.resize(below, (width, height), interpolation=cv2.INTER_LINEAR)
    return weighted + (1 - weights)[..., None] * below.reshape(height, width, 3)
