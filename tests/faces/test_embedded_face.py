"""The face that comes with the package: the shipped file, its mesh, its layout, its statistics."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from prnet.faces import embedded
from prnet.faces.embedded import (
    ASSET,
    SURFACE_REGIONS,
    Head,
    load_embedded,
    load_head,
    slide_matrix,
    window_triangles,
)
from prnet.faces.face import REGIONS, Face
from prnet.geometry.mesh import vertex_normals
from prnet.geometry.rasterize import rasterize
from tests.tiny import read_back

MIRROR = torch.tensor([-1.0, 1.0, 1.0])
JAW, RIGHT_BROW, LEFT_BROW = range(17), range(17, 22), range(22, 27)
RIGHT_EYE, LEFT_EYE = range(36, 42), range(42, 48)
OUTER_LIPS, INNER_LIPS = range(48, 60), range(60, 68)
MIRRORED_LANDMARKS = [
    *range(16, -1, -1),
    *range(26, 16, -1),
    *range(27, 31),
    *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60, 67, 66, 65),
]


@pytest.fixture(scope="module")
def head() -> Head:
    return load_head()


@pytest.fixture(scope="module")
def embedded_face() -> Face:
    return load_embedded()


def expression(head: Head, **weights: float) -> torch.Tensor:
    """Vertices (N, 3) of the mean with some expressions; both sides of a name without a side."""
    params = torch.zeros(1, len(head.exp_names))
    for name, weight in weights.items():
        sides = [
            k for k, n in enumerate(head.exp_names) if n in (name, f"{name}Left", f"{name}Right")
        ]
        assert sides, name
        params[0, sides] = weight
    return head.morphable_model(torch.zeros(1, 80), params)[0]


def seen_regions(head: Head, vertices: torch.Tensor, *, yaw_deg: float = 0) -> dict[str, int]:
    """How many pixels of each region a camera sees; the mouth's slit does not hide what is inside.

    The picture is 320 px of 1 mm.
    """
    open_mouth = head.triangle_region != head.region_names.index("mouth_slit")
    turn = np.radians(yaw_deg)
    rotation = torch.tensor(
        [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    ).float()
    pixels = vertices @ rotation.T / 1000 * torch.tensor([1.0, -1.0, 1.0]) + torch.tensor(
        [160.0, 160.0, 0]
    )
    raster = rasterize(pixels[None], head.triangles[open_mouth], height=320, width=320)
    triangle = raster.triangle[raster.triangle >= 0]
    counts = torch.bincount(
        head.triangle_region[open_mouth][triangle], minlength=len(head.region_names)
    )
    return dict(zip(head.region_names, counts.tolist(), strict=True))


def landmarks_mm(head: Head) -> np.ndarray:
    return (head.morphable_model.mean[head.landmark_index] / 1000).numpy()


def signed_area(ring: np.ndarray) -> float:  # (K, 2)
    """Positive where the ring goes round counter-clockwise, y up."""
    x, y = ring.T
    return 0.5 * float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())


# The file.


def test_file_is_small_and_needs_no_pickle() -> None:
    assert ASSET.stat().st_size < 2.5e6
    with np.load(ASSET, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    assert all(array.dtype != object for array in arrays.values())
    assert arrays["shape_basis"].dtype == arrays["exp_basis"].dtype == np.float16
    assert arrays["mean"].shape == arrays["shape_basis"].shape[1:] == arrays["exp_basis"].shape[1:]
    for name in ("mean", "shape_basis", "exp_basis", "uv_coords"):
        assert np.isfinite(arrays[name]).all()


def test_missing_file_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedded, "ASSET", tmp_path / "embedded_face.npz")
    with pytest.raises(FileNotFoundError, match=r"embedded_face\.npz: missing; install"):
        load_head()


def test_fingerprint_is_of_the_content(
    head: Head, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with np.load(ASSET) as archive:
        arrays = {name: archive[name] for name in archive.files}
    monkeypatch.setattr(embedded, "ASSET", tmp_path / "other.npz")
    np.savez(tmp_path / "other.npz", **dict(reversed(arrays.items())))  # order and compression
    assert load_head().fingerprint == head.fingerprint
    arrays["mean"][0, 0] += 1
    np.savez(tmp_path / "other.npz", **arrays)
    assert load_head().fingerprint != head.fingerprint


# The mesh.


def test_shapes_and_names(head: Head) -> None:
    model, count = head.morphable_model, head.morphable_model.num_vertices
    assert (model.num_shape, model.num_exp) == (80, 51)
    assert 0 < head.num_surface < count
    assert head.triangles.shape[1] == 3
    assert head.triangles.unique().tolist() == list(range(count))
    assert head.triangle_region.unique().tolist() == list(range(len(head.region_names)))
    assert set(SURFACE_REGIONS) < set(head.region_names)
    assert len(set(head.exp_names)) == 51
    assert {"jawOpen", "eyeBlinkLeft", "mouthSmileRight"} <= set(head.exp_names)
    for values in (head.ambient_occlusion, *head.masks.values()):
        assert values.shape == (count,)
        assert values.min() >= 0
        assert values.max() <= 1
    assert all(values.max() > 0.9 for values in head.masks.values())
    assert list(head.regions) == list(REGIONS)
    assert (torch.stack(list(head.regions.values())).sum(0) == 1).all()


def test_surface_is_closed_but_for_the_neck(head: Head) -> None:
    """Every side has a triangle on both sides, running the other way; but for one ring below."""
    surface = [head.region_names.index(name) for name in SURFACE_REGIONS]
    triangles = head.triangles[torch.isin(head.triangle_region, torch.tensor(surface))]
    assert triangles.max() < head.num_surface
    sides = torch.cat([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).tolist()
    sides = list(map(tuple, sides))
    present = set(sides)
    assert len(present) == len(sides)
    border = [side for side in present if side[::-1] not in present]
    following = dict(border)
    ring = [border[0][0]]
    while following[ring[-1]] != ring[0] and len(ring) <= len(border):
        ring.append(following[ring[-1]])
    assert len(ring) == len(border)
    assert head.morphable_model.mean[ring, 1].max() < -100e3


def test_mouth_is_lined_without_a_crack(head: Head) -> None:
    """The walls of the mouth take over every side of the lips' rim that the slit leaves."""
    region = {name: head.region_names.index(name) for name in head.region_names}

    def sides(name: str) -> set[frozenset[int]]:
        found = set()
        for triangle in head.triangles[head.triangle_region == region[name]].tolist():
            found ^= {frozenset(pair) for pair in itertools.combinations(triangle, 2)}
        return found

    rim = sides("mouth_slit")
    assert len(rim) > 50
    assert rim <= sides("cavity")
    assert rim <= sides("skin")


def test_triangles_face_outward(head: Head) -> None:
    """The volume within the surface is that of a head with its neck, and positive, y down."""
    points = head.morphable_model.mean.double() / 1e4 * torch.tensor([1.0, -1.0, 1.0])  # cm
    surface = [head.region_names.index(name) for name in SURFACE_REGIONS]
    triangles = head.triangles[torch.isin(head.triangle_region, torch.tensor(surface))]
    low = points[points[:, 1] > 15].mean(0)  # the cut through the shoulders, nearly flat
    litres = torch.linalg.det(points[triangles] - low).sum() / 6 / 1000
    assert 4 < litres < 9
    normals = vertex_normals(points[None], triangles)[0]
    assert normals[head.landmark_index[30], 2] > 0.8


def test_size_is_an_adult_heads(head: Head) -> None:
    landmarks = landmarks_mm(head)
    assert 70 < landmarks[45, 0] - landmarks[36, 0] < 100  # outer corners of the eyes
    assert 90 < landmarks[27, 1] - landmarks[8, 1] < 130  # nasion to chin
    assert 10 < head.eye_radius / 1000 < 15
    (left, right) = head.eye_centers
    assert left[0] > 0
    torch.testing.assert_close(right, left * MIRROR)
    for center, name in zip(head.eye_centers, ("eye_left", "eye_right"), strict=True):
        region = head.region_names.index(name)
        cap = head.triangles[head.triangle_region == region].unique()
        distance = (head.morphable_model.mean[cap] - center).norm(dim=1)
        # All but the ring at the lids' edge lies on the ball.
        assert (distance / head.eye_radius - 1).abs().quantile(0.75) < 0.05


# Symmetry.


def test_mirror_is_exact(head: Head) -> None:
    mirror, model = head.mirror_index, head.morphable_model
    assert torch.equal(mirror[mirror], torch.arange(len(mirror)))
    on_surface = mirror[: head.num_surface] < head.num_surface
    assert on_surface.all()
    torch.testing.assert_close(model.mean[mirror] * MIRROR, model.mean, atol=0.1, rtol=0)
    uv = head.uv_coords[: head.num_surface]
    mirrored = head.uv_coords[mirror[: head.num_surface]] * torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(mirrored + torch.tensor([1.0, 0.0]), uv, atol=1e-6, rtol=0)
    for values in (head.ambient_occlusion, *head.masks.values(), *head.regions.values()):
        assert torch.equal(values[mirror], values)
    assert torch.equal(mirror[head.landmark_index], head.landmark_index[MIRRORED_LANDMARKS])


def test_mirrored_triangles_are_triangles(head: Head) -> None:
    def corners(triangles: torch.Tensor) -> set[tuple[int, ...]]:
        return set(map(tuple, triangles.sort(1).values.tolist()))

    surface = head.triangles[(head.triangles < head.num_surface).all(1)]
    assert corners(head.mirror_index[surface]) == corners(surface)


def test_every_shape_is_symmetric_or_antisymmetric(head: Head) -> None:
    basis = head.morphable_model.basis[:80]
    mirrored = basis[:, head.mirror_index] * MIRROR
    sign = (basis * mirrored).sum((1, 2)).sign()
    torch.testing.assert_close(sign[:, None, None] * mirrored, basis, atol=0.1, rtol=0)
    assert 0 < (sign < 0).sum() < 40


def test_left_expressions_mirror_right_ones(head: Head) -> None:
    basis = head.morphable_model.basis[80:]
    names = list(head.exp_names)
    swap = {"Left": "Right", "Right": "Left"}

    def partner(name: str) -> str:
        for side, other in swap.items():
            if name.endswith(side):
                return name.removesuffix(side) + other
        return name

    order = [names.index(partner(name)) for name in names]
    assert sum(k != j for k, j in enumerate(order)) > 30
    mirrored = basis[order][:, head.mirror_index] * MIRROR
    torch.testing.assert_close(mirrored, basis, atol=0.1, rtol=0)


@pytest.mark.parametrize("name", ["eyeBlink", "mouthSmile", "browOuterUp", "noseSneer"])
def test_left_is_the_subjects_left(head: Head, name: str) -> None:
    """The subject's left is +x, image right."""
    moved = head.morphable_model.basis[80 + head.exp_names.index(f"{name}Left")].norm(dim=1)
    moved, x = moved[: head.num_surface], head.morphable_model.mean[: head.num_surface, 0]
    assert moved[x > 0].max() > 4e3
    assert moved[x < -12e3].max() < 0.25 * moved.max()
    assert moved[x < -30e3].max() < 1e3


# Landmarks.


def test_landmarks_are_68_vertices_of_the_skin(head: Head) -> None:
    assert len(set(head.landmark_index.tolist())) == 68
    skin = head.triangles[head.triangle_region == head.region_names.index("skin")].unique()
    assert torch.isin(head.landmark_index, skin).all()


def test_landmarks_follow_the_order_of_ibug(head: Head) -> None:
    x, y, z = landmarks_mm(head).T
    for line in (JAW, RIGHT_BROW, LEFT_BROW, range(31, 36), range(48, 55), range(60, 65)):
        assert (np.diff(x[list(line)]) > 0).all(), line
    assert (np.diff(y[list(JAW)[:9]]) < 0).all()  # down to the chin
    assert (np.diff(z[list(JAW)[:9]]) > -1).all()  # and forward
    assert (np.diff(y[27:31]) < 0).all()
    assert np.argmax(z) == 30
    for ring in (RIGHT_EYE, LEFT_EYE, OUTER_LIPS, INNER_LIPS):
        # From the image's left corner over the top to the right.
        assert signed_area(np.stack([x, y], -1)[list(ring)]) < 0
    assert x[RIGHT_EYE.start] == x[36:42].min()
    assert x[LEFT_EYE.start] == x[42:48].min()
    assert y[list(RIGHT_BROW)].min() > y[list(RIGHT_EYE)].max()
    assert y[33] > y[51] > y[62] > y[66] > y[57] > y[8]


def test_inner_lips_lie_within_the_outer_ones(head: Head) -> None:
    points = landmarks_mm(head)[:, :2]
    outer = points[list(OUTER_LIPS)]
    for point in points[list(INNER_LIPS)]:
        corners = outer - point
        angle = np.unwrap(np.arctan2(*corners[[*range(12), 0]].T))
        assert abs(angle[-1] - angle[0]) == pytest.approx(2 * np.pi)


def test_slid_vertices_are_where_the_weights_say() -> None:
    slide = slide_matrix(4, np.array([1]), np.array([[0, 1, 3]]), np.array([[0.5, 0.25, 0.25]]))
    values = np.array([[8.0], [4.0], [1.0], [0.0]])
    np.testing.assert_array_equal(slide @ values, [[8], [5], [1], [0]])


# Identity and expression.


def test_shapes_are_principal_components_of_plausible_size(head: Head) -> None:
    window = head.triangles[window_triangles(head)].unique()
    basis = head.morphable_model.basis[:80, window].flatten(1) / 1000  # (80, 3 N), mm
    rms = basis.norm(dim=1) / len(window) ** 0.5
    assert 1.5 < rms[0] < 4
    assert rms[-1] < 0.2
    assert (rms[1:] < 1.25 * rms[:-1]).all()  # the components were found on the coarse vertices
    assert 4 < (rms**2).sum().sqrt() < 8
    direction = basis / basis.norm(dim=1, keepdim=True)
    cosine = (direction @ direction.T).fill_diagonal_(0)
    assert cosine.abs().mean() < 0.05


def test_shapes_hold_no_similarity(head: Head) -> None:
    """Samples were aligned before their components were taken: little of any is motion or size."""
    model = head.morphable_model
    front = model.mean[: head.num_surface]
    index = (
        ((front[:, 2] > 30e3) & (front[:, 1] > -88e3) & (front[:, 1] < 82e3)).nonzero().squeeze(1)
    )
    points = front[index] - front[index].mean(0)
    axes = torch.eye(3)
    motions = [axis.expand_as(points) for axis in axes]
    motions += [torch.linalg.cross(axis.expand_as(points), points) for axis in axes]
    motions = torch.stack([*motions, points]).flatten(1)
    orthonormal = torch.linalg.qr(motions.T).Q  # (3 N, 7)
    basis = model.basis[:80, index].flatten(1)
    share = (basis @ orthonormal).norm(dim=1) / basis.norm(dim=1)
    assert share[:20].max() < 0.5
    assert share[:20].mean() < 0.2


def test_random_heads_are_not_turned_inside_out(head: Head) -> None:
    """At two standard deviations the front still faces the front."""
    random = torch.Generator().manual_seed(0)
    shape = torch.randn(4, 80, generator=random).clamp(-2, 2)
    vertices = head.morphable_model(shape, torch.zeros(4, 51)) * torch.tensor([1.0, -1.0, 1.0])
    surface = head.triangles[(head.triangles < head.num_surface).all(1)]
    mean = head.morphable_model.mean[None] * torch.tensor([1.0, -1.0, 1.0])
    agreement = (vertex_normals(vertices, surface) * vertex_normals(mean, surface)).sum(-1)
    cheeks = head.landmark_index[[*JAW, *RIGHT_BROW, *LEFT_BROW, *range(27, 31)]]
    assert agreement[:, cheeks].min() > 0.5
    assert agreement[:, : head.num_surface].quantile(0.02) > 0.5


def test_mouth_is_shut_at_rest_and_shows_its_inside_open(head: Head) -> None:
    for yaw_deg in (-60, 0, 60):
        seen = seen_regions(head, expression(head), yaw_deg=yaw_deg)
        # The lips of the mean part by less than a pixel.
        assert seen["upper_teeth"] + seen["lower_teeth"] < 10
        assert seen["tongue"] < 30
    seen = seen_regions(head, expression(head, jawOpen=1))
    assert seen["lower_teeth"] > 10
    assert seen["tongue"] > 100
    seen = seen_regions(head, expression(head, mouthUpperUp=1, mouthLowerDown=1))
    assert seen["upper_teeth"] > 50


def test_blinking_hides_the_eyes(head: Head) -> None:
    opened = seen_regions(head, expression(head))
    shut = seen_regions(head, expression(head, eyeBlink=1))
    for name in ("eye_left", "eye_right"):
        assert opened[name] > 100
        assert shut[name] < 0.1 * opened[name]


def test_gaze_does_not_turn_the_eyeballs(head: Head) -> None:
    caps = [head.region_names.index(name) for name in ("eye_left", "eye_right")]
    on_caps = torch.isin(head.triangle_region, torch.tensor(caps))
    others = head.triangles[~on_caps].unique()
    balls = head.triangles[on_caps].unique()
    balls = balls[~torch.isin(balls, others)]
    # Refinement lets the lids' edge pull at the first ring beside it; the iris is inside that.
    near = (head.morphable_model.mean[balls][:, None] - head.eye_centers).norm(dim=2).argmin(1)
    forward = head.morphable_model.mean[balls] - head.eye_centers[near]
    iris = balls[forward[:, 2] > 0.95 * head.eye_radius]
    assert len(iris) > 20
    for k, name in enumerate(head.exp_names):
        if name.startswith("eyeLook"):
            assert head.morphable_model.basis[80 + k, iris].abs().max() == 0, name


# The window and its layout.


def coverage(uv: np.ndarray, triangles: np.ndarray, side: int) -> np.ndarray:
    """How many triangles hold each of side x side points spread over the window."""
    corners = uv[triangles] * side
    low = np.ceil(corners.min(1) - 0.5).clip(0).astype(int)
    high = np.floor(corners.max(1) - 0.5).clip(max=side - 1).astype(int)
    sides = (high - low + 1).clip(0)
    owner = np.repeat(np.arange(len(triangles)), sides.prod(1))
    within = np.arange(len(owner)) - np.repeat(
        np.cumsum(sides.prod(1)) - sides.prod(1), sides.prod(1)
    )
    column = low[owner, 0] + within % sides[owner, 0]
    row = low[owner, 1] + within // sides[owner, 0]
    # Off every line a triangle could share with another: points at irrational places.
    point = np.stack([column, row], -1) + 0.5 + np.array([2**0.5, 3**0.5]) * 1e-3
    a, b, c = (corners[owner, k] for k in range(3))

    def side_of(start: np.ndarray, end: np.ndarray) -> np.ndarray:
        along, offset = end - start, point - start
        return along[:, 0] * offset[:, 1] - along[:, 1] * offset[:, 0]

    signs = np.stack([side_of(a, b), side_of(b, c), side_of(c, a)])
    inside = (signs > 0).all(0) | (signs < 0).all(0)
    return np.bincount((row * side + column)[inside], minlength=side * side)


def test_every_point_of_the_window_is_covered_once(embedded_face: Face) -> None:
    uv = embedded_face.uv
    coords = uv.vertex_pixels.double().numpy() / 255
    counts = coverage(coords, embedded_face.triangles.numpy(), 700)
    # Points within a rounding error of an edge may fall to none or to both.
    assert (counts != 1).mean() < 1e-5
    assert counts.max() <= 2
    # The layout's own raster agrees: no texel is left to the nearest vertex.
    assert (uv.barycentric.amax(-1) < 1).float().mean() > 0.99
    assert uv.barycentric.min() > -1e-6


def test_no_triangle_of_the_window_is_turned_over(embedded_face: Face) -> None:
    corners = embedded_face.uv.vertex_pixels[embedded_face.triangles]  # (T, 3, 2)
    inside = ((corners > 0) & (corners < 255)).all(-1).all(-1)
    edge_1, edge_2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = edge_1[:, 0] * edge_2[:, 1] - edge_1[:, 1] * edge_2[:, 0]
    assert inside.sum() > 20_000
    assert (area[inside] > 0).all()


def test_flipped_map_is_the_mirrored_heads(embedded_face: Face) -> None:
    random = torch.Generator().manual_seed(1)
    params = torch.randn(1, 80, generator=random), torch.rand(1, 51, generator=random)
    vertices = embedded_face.morphable_model(*params)
    mirrored = vertices[:, embedded_face.mirror_index] * MIRROR
    flipped = embedded_face.uv.position_map(vertices).flip(-1) * MIRROR[:, None, None]
    torch.testing.assert_close(
        embedded_face.uv.position_map(mirrored), flipped, atol=1.0, rtol=0
    )  # micrometre


def test_mesh_to_map_to_mesh(embedded_face: Face) -> None:
    """A 256-px map holds the mesh to 0.15 mm in the mean, the landmarks to 0.2 mm."""
    uv, mean = embedded_face.uv, embedded_face.morphable_model.mean
    error_mm = (read_back(uv, uv.position_map(mean[None]))[0] - mean).norm(dim=1) / 1000
    column, row = uv.vertex_pixels.round().long().clamp(0, 255).unbind(-1)
    on_face = uv.face_mask[row, column]
    assert on_face.sum() > 8000
    assert error_mm[on_face].mean() < 0.15
    assert error_mm[on_face].quantile(0.99) < 1.5
    assert error_mm[on_face].max() < 4
    assert error_mm[embedded_face.landmark_index].mean() < 0.2


def test_landmark_cells_are_apart(embedded_face: Face) -> None:
    uv, mean = embedded_face.uv, embedded_face.morphable_model.mean
    assert len(uv.landmark_texels.unique()) == 68
    at_cells = uv.landmarks(uv.position_map(mean[None]))[0]
    error_mm = (at_cells - mean[embedded_face.landmark_index]).norm(dim=1) / 1000
    assert error_mm.mean() < 0.8
    assert error_mm.max() < 2


def test_face_mask_leaves_out_neck_ears_and_hair(embedded_face: Face) -> None:
    uv = embedded_face.uv
    mask = uv.face_mask
    assert torch.equal(mask, mask.flip(1))
    assert 0.3 < mask.float().mean() < 0.45
    assert mask.flatten()[uv.landmark_texels].all()
    ears = embedded_face.regions["ears"][uv.vertex_index].all(-1)
    assert (mask & ears).sum() < 0.02 * ears.sum()
    map_mm = uv.position_map(embedded_face.morphable_model.mean[None])[0] / 1000
    chin = landmarks_mm(load_head())[8, 1]
    assert map_mm[1][mask].min() > chin - 8  # nothing of the neck
    assert map_mm[1][mask].max() < 85  # nothing of the scalp
    assert map_mm[2][mask].min() > 15  # nothing behind the cheeks


def test_classes_hold_their_landmarks(embedded_face: Face) -> None:
    regions, index = embedded_face.regions, embedded_face.landmark_index
    assert regions["nose"][index[27:36]].all()
    assert regions["mouth"][index[48:68]].all()
    assert regions["eyes"][index[[*RIGHT_BROW, *LEFT_BROW, *RIGHT_EYE, *LEFT_EYE]]].all()
    assert regions["rest"][index[list(JAW)]].all()
    classes = torch.stack([regions[name] for name in REGIONS])
    assert (classes.sum(0) == 1).all()
    central = (
        embedded_face.uv.region >= 2
    ).float().mean() / embedded_face.uv.face_mask.float().mean()
    assert 0.15 < central < 0.4


# The interface.


def test_window_is_the_heads_part(head: Head, embedded_face: Face) -> None:
    kept = head.triangles[window_triangles(head)].unique()
    torch.testing.assert_close(
        embedded_face.morphable_model.mean, head.morphable_model.mean[kept], atol=0, rtol=0
    )
    assert torch.equal(kept[embedded_face.landmark_index], head.landmark_index)
    assert torch.equal(kept[embedded_face.mirror_index], head.mirror_index[kept])
    assert kept.max() < head.num_surface
    pixels = embedded_face.uv.vertex_pixels[embedded_face.landmark_index]
    expected = head.uv_coords[head.landmark_index] * torch.tensor([255.0, -255.0])
    torch.testing.assert_close(pixels, expected + torch.tensor([0.0, 255.0]), atol=1e-3, rtol=0)


def test_face_says_what_it_is(embedded_face: Face, head: Head) -> None:
    described = embedded_face.describe()
    assert described == {
        "name": "embedded",
        "vertices": embedded_face.morphable_model.num_vertices,
        "shape_bases": 80,
        "exp_bases": 51,
        "face_pixels": int(embedded_face.uv.face_mask.sum()),
        "fingerprint": head.fingerprint,
    }
    assert described != embedded_face._replace(fingerprint="0" * 12).describe()
    assert embedded_face.shape_std.tolist() == [1] * 80
    assert embedded_face.exp_std.shape == (51,)
    assert (embedded_face.exp_std > 0).all()
    assert embedded_face.exp_names == head.exp_names


def test_face_moves_as_a_whole() -> None:
    moved = load_embedded().to("meta")
    for tensor in (
        moved.triangles,
        moved.landmark_index,
        moved.mirror_index,
        moved.shape_std,
        moved.exp_std,
        moved.morphable_model.mean,
        moved.uv.face_mask,
        *moved.regions.values(),
    ):
        assert tensor.device.type == "meta"
